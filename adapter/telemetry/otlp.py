"""OTLP: spans, the log of both tasks and the metrics of both tasks leave for a collector, all under one resource.

Loaded only where an endpoint is configured: the exporters are the SDK's, read their own OTEL_* variables, and take
memory. Whatever the collector does, a request pays for appending to a queue (`batches.py`).
"""

import asyncio
import logging
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState
from prometheus_client import CollectorRegistry

import adapter
from adapter.telemetry import otlp_metrics
from adapter.telemetry.batches import Batches, Bounds, bounds
from adapter.telemetry.handler_spans import HandlerSpans
from adapter.telemetry.logs import SEVERITY_NUMBER, SEVERITY_TEXT, Entry, LogStream
from adapter.telemetry.metrics import TfsLife
from adapter.telemetry.otel_env import OtelEnvironment, Protocol, Sending, Signal
from adapter.telemetry.scrape import Scraper
from adapter.telemetry.traces import Ids, Span

if TYPE_CHECKING:
    import grpc
    from opentelemetry.exporter.otlp.proto import http

# Python hands its lock over only so often (default 5 ms): the event loop must not wait that long for a thread of ours.
_SWITCH_SECONDS = 0.0005
_FLUSH_SECONDS = 3.0
_SCOPE = InstrumentationScope("tandem.adapter", adapter.__version__)
_SAMPLED, _NOT_SAMPLED = TraceFlags(TraceFlags.SAMPLED), TraceFlags(TraceFlags.DEFAULT)

T = TypeVar("T")
log = logging.getLogger(__name__)


class Otlp:
    """The signals of `environment`, under the log's resource.

    `span` takes finished spans and `handlers` is about those that a bundle's handler makes; None if traces do not leave.
    """

    def __init__(self, environment: OtelEnvironment, environ: Mapping[str, str], stream: LogStream) -> None:
        sys.setswitchinterval(_SWITCH_SECONDS)
        sdk = Resource(dict(stream.attributes))
        self._sdk = sdk
        self._complaint = _Complaint()
        self._closers: list[Callable[[float], None]] = []
        self._push: Batches[MetricsData] | None = None
        self._interval = _seconds(environ.get("OTEL_METRIC_EXPORT_INTERVAL"), 60.0)
        self._stream = stream
        self.span: Callable[[Span], None] | None = None
        self.handlers: HandlerSpans | None = None
        if spans := _made("traces", _spans, environment):
            self.span = add = self._batches(
                "traces",
                lambda batch: spans.export([_span(span, sdk) for span in batch]) is SpanExportResult.SUCCESS,
                bounds(environ, "OTEL_BSP", Bounds()),
            ).add
            self.handlers = HandlerSpans(add, sdk, environment.sampling)
            stream.innermost = self.handlers.innermost
        if records := _made("logs", _logs, environment):
            stream.export = self._batches(
                "logs",
                lambda batch: records.export([_record(entry, sdk) for entry in batch]) is LogRecordExportResult.SUCCESS,
                bounds(environ, "OTEL_BLRP", Bounds(delay=1.0)),
            ).add
        if figures := _made("metrics", _metrics, environment):
            self._push = self._batches(
                "metrics",
                lambda batch: figures.export(batch[-1]) is MetricExportResult.SUCCESS,
                Bounds(queue=1, batch=1, delay=60.0),
            )

    def _batches(self, signal: str, export: Callable[[Sequence[Any]], bool], limits: Bounds) -> Batches[Any]:
        batches = Batches[Any](signal, export, limits, lambda: self._complaint.last)
        self._closers.append(batches.close)
        return batches

    async def run(self, registry: CollectorRegistry, scraper: Scraper | None) -> None:
        """Push the metrics until cancelled, and once more then."""
        if self._push is None:
            return
        try:
            while True:
                await asyncio.sleep(self._interval)
                await self._measure(self._push, registry, scraper)
        finally:
            await self._measure(self._push, registry, scraper)

    async def _measure(self, push: Batches[MetricsData], registry: CollectorRegistry, scraper: Scraper | None) -> None:
        theirs = await scraper.families() if scraper is not None else ()
        push.add(otlp_metrics.data(registry, theirs, TfsLife.since, self._sdk, _SCOPE))

    async def close(self) -> None:
        """Send what waits, for `_FLUSH_SECONDS` at most; a collector that is down does not keep the process."""
        self._stream.export = None
        self.span = None
        threads = [threading.Thread(target=close, args=(_FLUSH_SECONDS,), daemon=True) for close in self._closers]
        for thread in threads:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join, _FLUSH_SECONDS)


class _Complaint(logging.Handler):
    """What the exporters say goes wrong: kept for the one record that tells of it, instead of one for each attempt."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last = ""
        logger = logging.getLogger("opentelemetry")
        logger.handlers = [self]
        logger.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()[:512]


def _made(signal: Signal, make: Callable[[Protocol, Sending], T], environment: OtelEnvironment) -> T | None:
    """The signal's exporter, if the signal leaves; whatever the exporter's maker stumbles over is said, and never fatal."""
    if signal not in environment.signals:
        return None
    try:
        return make(environment.signals[signal], environment.sending[signal])
    except Exception as error:
        log.warning("%s do not leave by OTLP: %s: %s", signal.capitalize(), type(error).__name__, error)
        return None


def _spans(protocol: Protocol, sending: Sending) -> SpanExporter:
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc

        return grpc.OTLPSpanExporter(timeout=sending.timeout, compression=_grpc_compression(sending))
    from opentelemetry.exporter.otlp.proto.http import trace_exporter as http

    return http.OTLPSpanExporter(timeout=sending.timeout, compression=_http_compression(sending))


def _logs(protocol: Protocol, sending: Sending) -> LogRecordExporter:
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc import _log_exporter as grpc

        return grpc.OTLPLogExporter(timeout=sending.timeout, compression=_grpc_compression(sending))
    from opentelemetry.exporter.otlp.proto.http import _log_exporter as http

    return http.OTLPLogExporter(timeout=sending.timeout, compression=_http_compression(sending))


def _metrics(protocol: Protocol, sending: Sending) -> MetricExporter:
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc import metric_exporter as grpc

        return grpc.OTLPMetricExporter(timeout=sending.timeout, compression=_grpc_compression(sending))
    from opentelemetry.exporter.otlp.proto.http import metric_exporter as http

    return http.OTLPMetricExporter(timeout=sending.timeout, compression=_http_compression(sending))


def _grpc_compression(sending: Sending) -> "grpc.Compression":
    import grpc

    return grpc.Compression.Gzip if sending.compression == "gzip" else grpc.Compression.NoCompression


def _http_compression(sending: Sending) -> "http.Compression":
    from opentelemetry.exporter.otlp.proto import http

    return http.Compression(sending.compression)


def _span(span: Span | ReadableSpan, resource: Resource) -> ReadableSpan:
    if isinstance(span, ReadableSpan):  # a handler's own
        return span
    parent = _context(Ids(span.ids.trace_id, span.parent), remote=span.kind == "SERVER") if span.parent else None
    return ReadableSpan(
        span.name,
        _context(span.ids, span.state),
        parent,
        resource,
        {key: value for key, value in span.attributes.items() if value is not None}
        | ({"error.type": span.error} if span.error else {}),
        events=[Event(span.event, span.attributes, span.end)] if span.event else (),
        links=[Link(_context(ids)) for ids in span.links],
        kind=SpanKind[span.kind],
        status=Status(StatusCode.ERROR, None) if span.error else Status(StatusCode.UNSET),
        start_time=span.start,
        end_time=span.end,
        instrumentation_scope=_SCOPE,
    )


def _context(ids: Ids, state: str = "", *, remote: bool = False) -> SpanContext:
    trace_state = TraceState.from_header([state]) if state else None
    return SpanContext(int(ids.trace_id, 16), int(ids.span_id, 16), remote, _SAMPLED, trace_state)


def _record(entry: Entry, resource: Resource) -> ReadableLogRecord:
    trace = entry.trace
    record = LogRecord(
        timestamp=entry.nanoseconds,
        observed_timestamp=entry.nanoseconds,
        severity_text=SEVERITY_TEXT.get(entry.severity, entry.severity),
        severity_number=SeverityNumber(SEVERITY_NUMBER.get(entry.severity, 9)),
        body=_text(entry.body),
        attributes={key: _plain(value) for key, value in entry.attributes.items() if value is not None},
        event_name=str(entry.attributes.get("event.name", "")) or None,
    )
    if trace is not None:
        record.trace_id, record.span_id = int(trace.trace_id, 16), int(trace.span_id, 16)
        record.trace_flags = _SAMPLED if trace.sampled else _NOT_SAMPLED
    return ReadableLogRecord(record, resource, _SCOPE)


def _plain(value: object) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return value if isinstance(value, bool | int | float) else _text(str(value))


def _text(text: str) -> str:
    """Without lone surrogates, which UTF-8 cannot say."""
    return text.encode("utf-8", "replace").decode()


def _seconds(milliseconds: str | None, default: float) -> float:
    return int(milliseconds) / 1000 if milliseconds and milliseconds.isdecimal() and int(milliseconds) else default
