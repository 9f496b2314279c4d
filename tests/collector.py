"""An OpenTelemetry Collector for tests: the real one, built from its pinned modules; what reaches it is read back."""

import json
import signal
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from deploy.cluster import tools
from tests.servers import free_port

Json = dict[str, Any]

# What an adapter is told so that a test need not wait for batches to fill.
PROMPT = {
    "OTEL_BSP_SCHEDULE_DELAY": "100",
    "OTEL_BLRP_SCHEDULE_DELAY": "100",
    "OTEL_METRIC_EXPORT_INTERVAL": "500",
}
_CONFIG = """
receivers: {otlp: {protocols: {grpc: {endpoint: "HOST:GRPC"}, http: {endpoint: "HOST:HTTP"}}}}
exporters:
  file/traces: {path: DIRECTORY/traces.json, flush_interval: 100ms, append: true}
  file/logs: {path: DIRECTORY/logs.json, flush_interval: 100ms, append: true}
  file/metrics: {path: DIRECTORY/metrics.json, flush_interval: 100ms, append: true}
  prometheus: {endpoint: "127.0.0.1:PAGE", enable_open_metrics: true}
service:
  telemetry: {metrics: {level: none}}
  pipelines:
    traces: {receivers: [otlp], exporters: [file/traces]}
    logs: {receivers: [otlp], exporters: [file/logs]}
    metrics: {receivers: [otlp], exporters: [file/metrics, prometheus]}
"""


class Collector:
    """A collector on ports of its own at `host`, as a context manager; it may be stopped and started again.

    `spans()`, `records()` and `metrics()` are what has reached it so far, each with its resource's attributes as `resource`
    and its own as plain values in `attributes`.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="otelcol-"))
        self.grpc, self.http, self._page = free_port(), free_port(), free_port()
        self._config = self._directory / "config.yaml"
        text = _CONFIG.replace("HOST", host).replace("DIRECTORY", str(self._directory)).replace("PAGE", str(self._page))
        self._config.write_text(text.replace("GRPC", str(self.grpc)).replace("HTTP", str(self.http)))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGKILL)

    def start(self) -> None:
        """Start it and wait until it takes data."""
        command = [str(tools.binary("otelcol")), "--config", str(self._config)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        ready = threading.Event()
        self._lines: list[str] = []
        threading.Thread(target=self._read, args=(self._process, ready), daemon=True).start()
        if not ready.wait(60):
            raise AssertionError(f"the collector did not start: {self._lines[-5:]}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it; what has reached it is kept."""
        self._process.send_signal(number)
        self._process.wait(30)

    def freeze(self) -> None:
        """It goes on listening and answers nobody; `thaw` lets it go on."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def environment(self, protocol: str = "grpc", host: str = "127.0.0.1") -> dict[str, str]:
        """OTEL_* for an adapter that shall export here."""
        port = self.grpc if protocol == "grpc" else self.http
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{host}:{port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            **PROMPT,
        }

    def spans(self) -> list[Json]:
        return list(self._items("traces", "resourceSpans", "scopeSpans", "spans"))

    def records(self) -> list[Json]:
        return list(self._items("logs", "resourceLogs", "scopeLogs", "logRecords"))

    def metrics(self) -> list[Json]:
        return list(self._items("metrics", "resourceMetrics", "scopeMetrics", "metrics"))

    def page(self) -> bytes:
        """What its Prometheus exporter makes of the metrics."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._page}/metrics", timeout=10) as answer:
            body: bytes = answer.read()
        return body

    def span(self, wanted: Callable[[Json], bool], timeout: float = 30) -> Json:
        """The first span that is wanted, waited for."""
        return self._wait(self.spans, wanted, timeout)

    def record(self, wanted: Callable[[Json], bool], timeout: float = 30) -> Json:
        """The first log record that is wanted, waited for."""
        return self._wait(self.records, wanted, timeout)

    def metric(self, name: str, wanted: Callable[[Json], bool] = lambda _: True, timeout: float = 30) -> Json:
        """The first push of the metric that is wanted, waited for."""
        return self._wait(self.metrics, lambda metric: metric["name"] == name and wanted(metric), timeout)

    def _wait(self, items: Callable[[], list[Json]], wanted: Callable[[Json], bool], timeout: float) -> Json:
        end = time.monotonic() + timeout
        while True:
            found = items()
            item = next((item for item in found if wanted(item)), None)
            if item is not None:
                return item
            if time.monotonic() > end:
                raise AssertionError(f"it did not reach the collector; {len(found)} others did, the last: {found[-3:]}")
            time.sleep(0.05)  # the collector tells nobody that it has written

    def _items(self, name: str, outer: str, middle: str, inner: str) -> Iterator[Json]:
        path = self._directory / f"{name}.json"
        if not path.exists():
            return
        for line in path.read_bytes().splitlines(keepends=True):
            if not line.endswith(b"\n"):
                continue
            for batch in json.loads(line)[outer]:
                resource = plain(batch["resource"].get("attributes", []))
                for scope in batch[middle]:
                    for item in scope[inner]:
                        yield {**item, "resource": resource, "attributes": plain(item.get("attributes", []))}

    def _read(self, process: "subprocess.Popen[str]", ready: threading.Event) -> None:
        assert process.stderr is not None
        with process.stderr as lines:
            for line in lines:
                self._lines.append(line)
                if "Everything is ready" in line:
                    ready.set()


def plain(attributes: list[Mapping[str, Any]]) -> Json:
    """OTLP's list of keys and typed values as a mapping."""
    return {pair["key"]: _value(pair["value"]) for pair in attributes}


def _value(value: Mapping[str, Any]) -> Any:
    ((kind, inner),) = value.items()
    if kind == "intValue":
        return int(inner)
    if kind == "kvlistValue":
        return plain(inner["values"])
    return inner
