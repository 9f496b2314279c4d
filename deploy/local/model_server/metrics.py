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

_LATENCY_BUCKETS = [10 * 1.8**power for power in range(33)]  # microseconds, 10 µs to about 25 minutes
_LIMITS = [f"{bucket:g}" for bucket in _LATENCY_BUCKETS] + ["+Inf"]
_lock = threading.Lock()


class Counter:
    type = "counter"

    def __init__(self, name: str, *labels: str) -> None:
        self.name = name
        self._labels = labels
        self._cells: dict[str, int] = {}

    def add(self, *values: str, by: int = 1) -> None:
        pairs = _pairs(self._labels, values)
        with _lock:
            self._cells[pairs] = self._cells.get(pairs, 0) + by

    def lines(self) -> Iterator[str]:
        for pairs, value in sorted(self._cells.items()):
            yield f"{self.name}{{{pairs}}} {value}"


class Histogram:
    type = "histogram"

    def __init__(self, name: str, *labels: str) -> None:
        self.name = name
        self._labels = labels
        self._cells: dict[str, list[int]] = {}
        self._sums: dict[str, int] = {}

    def observe(self, value: int, *values: str) -> None:
        pairs = _pairs(self._labels, values)
        with _lock:
            self._cells.setdefault(pairs, [0] * len(_LIMITS))[bisect_left(_LATENCY_BUCKETS, value)] += 1
            self._sums[pairs] = self._sums.get(pairs, 0) + value

    def lines(self) -> Iterator[str]:
        for pairs, cell in sorted(self._cells.items()):
            seen = 0
            for limit, count in zip(_LIMITS, cell, strict=True):
                seen += count
                yield f'{self.name}_bucket{{{pairs},le="{limit}"}} {seen}'
            yield f"{self.name}_sum{{{pairs}}} {self._sums[pairs]}"
            yield f"{self.name}_count{{{pairs}}} {seen}"


class Metrics:
    """Every metric this server has; one object a process."""

    def __init__(self) -> None:
        serving, saved_model = ":tensorflow:serving", ":tensorflow:cc:saved_model"
        self.load_attempts = Counter(f"{saved_model}:load_attempt_count", "model_path", "status")
        self.load_latency = Counter(f"{saved_model}:load_latency", "model_path")
        self.session_runs = Counter(":tensorflow:core:direct_session_runs")
        self.warmup_latency = Histogram(f"{serving}:model_warmup_latency", "model_path", "status")
        self.requests = Counter(f"{serving}:request_count", "model_name", "status")
        self.request_latency = Histogram(f"{serving}:request_latency", "model_name", "API", "entrypoint")
        self.runtime_latency = Histogram(f"{serving}:runtime_latency", "model_name", "API", "runtime")
        self._all = (
            *(value for value in vars(self).values() if isinstance(value, Counter | Histogram)),
            # Always there, and never touched by this server:
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
            self.load_latency.add(path, by=micros_since(start))

    def page(self) -> str:
        lines = []
        with _lock:
            for metric in sorted(self._all, key=lambda metric: metric.name):
                lines += [f"# TYPE {metric.name} {metric.type}", *metric.lines()]
        return "\n".join(lines) + "\n"


def micros_since(start: float) -> int:
    return int((time.monotonic() - start) * 1e6)


def _pairs(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    return ",".join(f'{name}="{_sanitized(value)}"' for name, value in zip(names, values, strict=True))


def _sanitized(value: str) -> str:
    """SanitizeLabelValue of the exporter: backslashes and quotes are escaped, line feeds are not."""
    return value.replace("\\", r"\\").replace('"', r"\"")
