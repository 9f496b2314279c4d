"""The common log format: one JSON object a line, in the words of the OpenTelemetry log data model.

    {"timestamp": "2026-11-22T15:04:05.123456789Z", "severity_text": "INFO", "severity_number": 9,
     "body": "…", "attributes": {…}, "resource": {…}, "trace_id": "…", "span_id": "…", "trace_flags": 1}

The last three where a record belongs to a request that has a trace.

Lines leave through one buffer: a request only appends to it, and the event loop hands it over, ten times a second and at
once for warnings, to the thread that writes (`output.py`), so that nothing ever waits for the platform's log pipe. Other
threads' records go by the loop.
"""

import asyncio
import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import lru_cache, partial
from typing import Any, BinaryIO, NamedTuple, Protocol

import orjson
from aiohttp import ClientPayloadError
from aiohttp.http import HttpProcessingError
from aiohttp.web import RequestPayloadError

from adapter.telemetry.metrics import LOG_DROPPED
from adapter.telemetry.output import Output
from adapter.telemetry.traces import Trace

FLUSH_SECONDS = 0.1
ANNOUNCE_SECONDS = 1.0
# At the end: so long for a reader that has fallen behind.
STOP_SECONDS = 1.0
MAX_BODY = 16_384
# Bytes that wait for the reader; beyond half of it who can wait does (`LogStream.clogged`).
MAX_BUFFER = 4 << 20

log = logging.getLogger(__name__)

# OpenTelemetry log data model, "Severity Fields".
SEVERITY_NUMBER: Mapping[str, int] = {"DEBUG": 5, "INFO": 9, "WARNING": 13, "ERROR": 17, "CRITICAL": 21}
SEVERITY_TEXT: Mapping[str, str] = {"WARNING": "WARN", "CRITICAL": "FATAL"}


class InRequest(Protocol):
    """What the log wants to know of the request that is being answered."""

    request_id: str
    trace: Trace | None


REQUEST: ContextVar[InRequest | None] = ContextVar("request", default=None)
"""The request that this task answers: its ids are put on every record that is logged meanwhile."""


class Entry(NamedTuple):
    """A record before it is text; `severity` as `logging` names it, Unix nanoseconds."""

    severity: str
    body: str
    attributes: Mapping[str, Any]
    nanoseconds: int
    trace: Trace | None


def timestamp(nanoseconds: int) -> str:
    """RFC 3339 in UTC with nine digits: `1795362196533992000` → `2026-11-22T15:43:16.533992000Z`."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{_second(seconds)}.{rest:09d}Z"


@lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


class LogStream:
    """The process's stdout as the common log. It belongs to the event loop's thread; `CommonHandler` takes any.

    Records written before `start` are written through; afterwards they are buffered. A platform that stops reading, or
    cannot be written to, costs records, never requests: those beyond `MAX_BUFFER` bytes are dropped. They are counted,
    and said in the log once it can be written again.
    """

    def __init__(self, resource: Mapping[str, str], output: BinaryIO | None = None) -> None:
        self._output = Output(output or sys.stdout.buffer, self._failed)
        self.attributes = resource
        """Of the resource that every record ends with."""
        self.resource = orjson.dumps(dict(resource))
        """The same as JSON."""
        self._resource = orjson.Fragment(self.resource)
        self._lines: list[bytes] = []
        self._size = 0
        self._room = MAX_BUFFER
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._dropped = 0
        self._unwritten = 0
        self._told = 0
        self._told_at = -ANNOUNCE_SECONDS
        self.export: Callable[[Entry], None] | None = None
        """Takes every record once more, for OTLP."""
        self.innermost: Callable[[Trace], Trace] | None = None
        """A sampled request's trace at the span that its handler is in now."""

    @property
    def dropped(self) -> int:
        """Records lost so far: the buffer was full, or they could not be written."""
        return self._dropped + self._unwritten

    @property
    def clogged(self) -> bool:
        """So much waits for the reader that whoever has records which can wait elsewhere had better let them wait."""
        return self._output.waiting > MAX_BUFFER // 2

    def start(self) -> None:
        """Buffer from now on; call it inside the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._output.start()

    def stop(self) -> None:
        """Write what is buffered, if the reader takes it within `STOP_SECONDS`, and write through again."""
        if self._loop is None:
            return
        self._loop = None
        self.flush()
        self._output.stop(STOP_SECONDS)

    def mend(self) -> None:
        """End the line that a killed process left without an end, so that it takes none of ours with it."""
        self._lines.append(b"\n")

    def write(
        self,
        severity: str,
        body: str,
        attributes: Mapping[str, Any],
        nanoseconds: int = 0,
        *,
        hold: bool = False,
        trace: Trace | None = None,
    ) -> None:
        """Add one record; `nanoseconds` since the epoch, now if 0. With `hold` even a warning waits for `flush`."""
        nanoseconds = nanoseconds or time.time_ns()
        body = body if len(body) <= MAX_BODY else body[:MAX_BODY] + "…"
        record = {
            "timestamp": timestamp(nanoseconds),
            "severity_text": SEVERITY_TEXT.get(severity, severity),
            "severity_number": SEVERITY_NUMBER.get(severity, 9),
            "body": body,
            "attributes": attributes,
            "resource": self._resource,
        }
        if trace is not None:
            record["trace_id"], record["span_id"] = trace.trace_id, trace.span_id
            record["trace_flags"] = 1 if trace.sampled else 0
        if self.export is not None:
            self.export(Entry(severity, body, attributes, nanoseconds, trace))
        try:
            line = orjson.dumps(record, default=str, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS)
        except orjson.JSONEncodeError:  # a lone surrogate from a stranger's header or path
            record["body"] = body.encode("utf-8", "replace").decode()
            record["attributes"] = {k: str(v).encode("utf-8", "replace").decode() for k, v in attributes.items()}
            line = orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
        self.append(line, at_once=not (hold or severity in ("INFO", "DEBUG")))

    def append(self, line: bytes, *, at_once: bool = False) -> None:
        """Add one record that is a line already; `at_once`: do not wait for others."""
        self._size += len(line)
        if self._size > self._room and not self._has_room():
            self._size -= len(line)
            self._dropped += 1
            LOG_DROPPED.inc()
            self._flush_soon()  # to see whether there is room again
            return
        self._lines.append(line)
        if at_once or self._loop is None:
            self.flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(FLUSH_SECONDS, self.flush)

    def write_from_anywhere(
        self, severity: str, body: str, attributes: Mapping[str, Any], nanoseconds: int, trace: Trace | None = None
    ) -> None:
        """The same, from any thread: what is not the event loop's own is handed over to it."""
        write = partial(self.write, severity, body, attributes, nanoseconds, trace=trace)
        if self._loop is None or threading.get_ident() == self._thread:
            write()
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to write
            self._loop.call_soon_threadsafe(write)

    def flush(self, then: Callable[[], None] | None = None) -> None:
        """Hand the buffer over to be written; `then` is called once it is, maybe by another thread."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.dropped != self._told:
            self._tell_of_lost()
        lines, self._lines, self._size = self._lines, [], 0
        if lines or then is not None:
            self._output.put(b"".join(lines), then)
            self._room = MAX_BUFFER - self._output.waiting

    def _has_room(self) -> bool:
        self._room = MAX_BUFFER - self._output.waiting
        return self._size <= self._room

    def _flush_soon(self) -> None:
        if self._timer is None and self._loop is not None:
            self._timer = self._loop.call_later(FLUSH_SECONDS, self.flush)

    def _tell_of_lost(self) -> None:
        """What was lost, once there is room and at most once a second."""
        now = time.monotonic()
        if self._output.broken or self.clogged or now - self._told_at < ANNOUNCE_SECONDS:
            self._flush_soon()
            return
        lost, self._told, self._told_at = self.dropped - self._told, self.dropped, now
        attributes = {"tandem.task": "adapter", "event.name": "tandem.log.lost", "tandem.log.records_dropped": lost}
        body = f"Lost of this log: {lost} records, which nobody read in time or which could not be written"
        self.write("WARNING", body, attributes, hold=True)

    def _failed(self, lines: int, error: OSError, first: bool) -> None:
        """So many could not be written; called by the thread that tried."""
        self._unwritten += lines
        LOG_DROPPED.inc(lines)
        if first:
            log.error("The log cannot be written to stdout: %s", error)


class CommonHandler(logging.Handler):
    """Python's own loggers (aiohttp, asyncio, ours) into the common log."""

    def __init__(self, stream: LogStream) -> None:
        super().__init__()
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        attributes: dict[str, Any] = {"tandem.task": "adapter", "log.logger": record.name}
        request = REQUEST.get()
        if request is not None:
            attributes["http.request.id"] = request.request_id
        attributes.update(getattr(record, "attributes", {}))
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            attributes["exception.type"] = type(error).__qualname__
            attributes["exception.message"] = str(error)[:MAX_BODY]
            attributes["exception.stacktrace"] = logging.Formatter().formatException(record.exc_info)[:MAX_BODY]
        trace = request.trace if request is not None else None
        if trace is not None and trace.sampled and self._stream.innermost is not None:
            trace = self._stream.innermost(trace)
        self._stream.write_from_anywhere(
            record.levelname, record.getMessage(), attributes, int(record.created * 1e9), trace
        )


class StrangersMistakes(logging.Filter):
    """What aiohttp logs as its own failures though a client caused them: one line of INFO instead of a stack trace."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError | ClientPayloadError | RequestPayloadError | ConnectionError):
            record.levelno, record.levelname = logging.INFO, "INFO"
            record.msg, record.args = "Not HTTP, or a body that breaks off: %s", (str(error)[:256],)
            record.exc_info = None
        return True


def configure(level: str, resource: Mapping[str, str]) -> LogStream:
    """Send every logger of this process to the common log on stdout, from `level` up."""
    stream = LogStream(resource, os.fdopen(os.dup(1), "wb", buffering=0))
    root = logging.getLogger()
    root.handlers = [CommonHandler(stream)]
    root.setLevel(level)
    logging.getLogger("aiohttp.server").addFilter(StrangersMistakes())
    return stream
