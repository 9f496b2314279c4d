"""TensorFlow Serving's metrics: counters and latency histograms, and the text of its monitoring page.

Names, labels and buckets as in S: servables/tensorflow/util.cc and tensorflow/cc/saved_model/loader.cc; the text as in
S: util/prometheus_exporter.cc. The page has `# TYPE` lines only, and names with colons, which Prometheus accepts but
its style forbids; a metric nobody has touched shows its type line and nothing else.
"""

import threading
import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_LATENCY_BUCKETS = tuple(10 * 1.8**power for power in range(33))  # microseconds, 10 µs to about 25 minutes
_lock = threading.Lock()


@dataclass
class Counter:
    name: str
    labels: tuple[str, ...] = ()
    cells: dict[tuple[str, ...], int] = field(default_factory=dict)
    type = "counter"

    def add(self, *labels: str, by: int = 1) -> None:
        with _lock:
            self.cells[labels] = self.cells.get(labels, 0) + by

    def lines(self) -> Iterator[str]:
        for labels, value in sorted(self.cells.items()):
            yield f"{self.name}{{{_pairs(self.labels, labels)}}} {value}"


@dataclass
class Histogram:
    name: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = _LATENCY_BUCKETS
    cells: dict[tuple[str, ...], list[int]] = field(default_factory=dict)
    sums: dict[tuple[str, ...], int] = field(default_factory=dict)
    type = "histogram"

    def observe(self, value: int, *labels: str) -> None:
        with _lock:
            cell = self.cells.setdefault(labels, [0] * (len(self.buckets) + 1))
            cell[bisect_left(self.buckets, value)] += 1
            self.sums[labels] = self.sums.get(labels, 0) + value

    def lines(self) -> Iterator[str]:
        limits = [f"{bucket:g}" for bucket in self.buckets] + ["+Inf"]
        for labels, cell in sorted(self.cells.items()):
            pairs, seen = _pairs(self.labels, labels), 0
            for limit, count in zip(limits, cell, strict=True):
                seen += count
                yield f'{self.name}_bucket{{{pairs}{"," if pairs else ""}le="{limit}"}} {seen}'
            yield f"{self.name}_sum{{{pairs}}} {self.sums[labels]}"
            yield f"{self.name}_count{{{pairs}}} {seen}"


class Metrics:
    """Every metric this server has; one object a process."""

    def __init__(self) -> None:
        serving, saved_model = ":tensorflow:serving", ":tensorflow:cc:saved_model"
        self.load_attempts = Counter(f"{saved_model}:load_attempt_count", ("model_path", "status"))
        self.load_latency = Counter(f"{saved_model}:load_latency", ("model_path",))
        self.session_runs = Counter(":tensorflow:core:direct_session_runs")
        self.warmup_latency = Histogram(f"{serving}:model_warmup_latency", ("model_path", "status"))
        self.requests = Counter(f"{serving}:request_count", ("model_name", "status"))
        self.request_latency = Histogram(f"{serving}:request_latency", ("model_name", "API", "entrypoint"))
        self.runtime_latency = Histogram(f"{serving}:runtime_latency", ("model_name", "API", "runtime"))
        self._never_touched = (
            Histogram(f"{serving}:batching_session:queuing_latency"),
            Counter(f"{serving}:batching_session:wrapped_run_count"),
            Counter(f"{serving}:request_example_count_total"),
            Histogram(f"{serving}:request_example_counts"),
            Counter(f"{serving}:request_log_count"),
        )

    @contextmanager
    def load_attempt(self, path: str) -> Iterator[None]:
        """Count and time one load of a SavedModel, failed or not."""
        start, status = time.monotonic(), "fail"
        try:
            yield
            status = "success"
        finally:
            self.load_attempts.add(path, status)
            self.load_latency.add(path, by=int((time.monotonic() - start) * 1e6))

    def page(self) -> str:
        metrics = (*(value for value in vars(self).values() if isinstance(value, Counter | Histogram)), *self._never_touched)
        lines = []
        with _lock:
            for metric in sorted(metrics, key=lambda metric: metric.name):
                lines.append(f"# TYPE {metric.name} {metric.type}")
                lines.extend(metric.lines())
        return "\n".join(lines) + "\n"


def _pairs(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    return ",".join(f'{name}="{value}"' for name, value in zip(names, values, strict=True))
