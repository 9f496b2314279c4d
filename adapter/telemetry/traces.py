"""Traces: W3C trace context and baggage in and out, sampling, and the spans of the requests that are sampled.

    traceparent ─► begin ─► Trace (every request that has one, or may be sampled)
                              ├─ not sampled: its ids on log records, `traceparent` onwards; nothing else is made
                              └─ sampled: laps ─► finish ─► server span, a span for each phase, a span for each call

Nothing is made while a request runs but a few numbers: spans are built from them when it is answered, so that one that
is not sampled costs a look at its headers. Spans are named and attributed by OpenTelemetry's semantic conventions
(HTTP server, RPC client).

Requests that share a call to TensorFlow Serving share its span: it belongs to the first sampled one's trace and links to
the others; each of these has a phase `call` that links to it.
"""

import random
import re
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from multidict import MultiMapping

from adapter.telemetry.otel_env import Sampling

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
# W3C Trace Context §3.3.1: members of a `tracestate`, and what of it must be passed on at least.
_STATE_MEMBER = re.compile(
    r"([a-z0-9][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
    r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
_MAX_STATE = 512
_MAX_STATE_MEMBERS = 32
# W3C Baggage §3.3.1. It would have 8,192 bytes passed on; gRPC servers refuse calls with more than 8 KiB of metadata in all,
# and do so with RESOURCE_EXHAUSTED, which looks like overload. Half of that is for these two.
_BAGGAGE_MEMBER = re.compile(
    r"[!#$%&'*+\-.^_`|~0-9A-Za-z]++[ \t]*+=[ \t]*([\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]+[ \t]*)?"
    r"(;[\t\x20\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*)*"
)
_MAX_BAGGAGE = 4096 - _MAX_STATE
_NO_TRACE = "0" * 32
_NO_SPAN = "0" * 16

_random = random.getrandbits

Attributes = dict[str, Any]


class Ids(NamedTuple):
    """A span's name among all spans, in hexadecimal digits."""

    trace_id: str
    span_id: str


class Span(NamedTuple):
    """A finished span; times are Unix nanoseconds, `kind` is OpenTelemetry's word for it, `error` what failed."""

    name: str
    kind: str
    ids: Ids
    parent: str
    start: int
    end: int
    attributes: Attributes
    links: Sequence[Ids] = ()
    error: str | None = None
    state: str = ""
    event: str | None = None


class Trace:
    """A request's place in a trace: `span_id` is its server span's, `parent` the caller's ("" = it starts the trace)."""

    __slots__ = ("baggage", "parent", "sampled", "shared", "span_id", "state", "trace_id", "tracer")

    def __init__(
        self, tracer: "Tracer", trace_id: str, span_id: str, parent: str, sampled: bool, state: str = ""
    ) -> None:
        self.tracer = tracer
        self.trace_id = trace_id
        self.span_id = span_id
        self.parent = parent
        self.sampled = sampled
        self.state = state
        self.baggage = ""
        self.shared: Ids | None = None
        """The span of the call that it shared with the trace that this one belongs to."""

    def at(self, span_id: str) -> "Trace":
        """The same, at a span below its server span."""
        inner = Trace(self.tracer, self.trace_id, span_id, self.span_id, self.sampled, self.state)
        inner.baggage = self.baggage
        return inner


class Nowhere:
    """Where no collector is configured: in the place of `otlp.Otlp`, which is not loaded then."""

    span: Callable[[Span], None] | None = None
    handlers: None = None

    async def run(self, *_: object) -> None:
        """Nothing is pushed."""

    async def close(self) -> None:
        """Nothing waits."""


class Tracer:
    """Decides and builds; `export` takes finished spans, None where none leave.

    Without `export` a request has a trace only if its caller sent one, which then is on its log records.
    """

    def __init__(
        self,
        sampling: Sampling | None = None,
        export: Callable[[Span], None] | None = None,
        *,
        tracecontext: bool = True,
        baggage: bool = True,
    ) -> None:
        sampling = sampling or Sampling()
        self._export = export
        self._bound = round(sampling.ratio * (1 << 64))
        self._parent_counts = sampling.parent
        self._tracecontext = tracecontext
        self._baggage = baggage
        self._group = f"{_random(128):032x}"
        self._unwanted = _span_id()
        # Spans are timed by the clock that phases are measured with, which no adjustment of the time moves.
        self._epoch = time.time_ns() - int(time.perf_counter() * 1e9)

    def begin(self, headers: MultiMapping[str]) -> Trace | None:
        """The trace of a request with these headers; None if it has none."""
        given = headers.get("traceparent") if self._tracecontext else None
        # Of two parents, neither is to be believed.
        if given is not None and len(headers.getall("traceparent")) == 1 and (found := _TRACEPARENT.fullmatch(given)):
            version, trace_id, parent, flags, more = found.groups()
            if version != "ff" and not (version == "00" and more) and trace_id != _NO_TRACE and parent != _NO_SPAN:
                return self._continue(headers, trace_id, parent, bool(int(flags, 16) & 1))
        if self._export is None:
            return None
        number = _random(64)
        if number >= self._bound:  # the way of almost every request: only its log records will name it
            span_id = number.to_bytes(8, "big").hex()  # in half the time of formatting it
            return Trace(self, self._unwanted + span_id, span_id, "", False)
        trace = Trace(self, f"{_random(64):016x}{number:016x}", _span_id(), "", True)
        if self._baggage and "baggage" in headers:
            trace.baggage = _baggage(headers)
        return trace

    def _continue(self, headers: MultiMapping[str], trace_id: str, parent: str, sampled: bool) -> Trace:
        if not self._parent_counts:
            sampled = int(trace_id[16:], 16) < self._bound
        state = _state(headers) if "tracestate" in headers else ""
        trace = Trace(self, trace_id, _span_id(), parent, sampled and self._export is not None, state)
        if self._baggage and "baggage" in headers:
            trace.baggage = _baggage(headers)
        return trace

    def nanoseconds(self, moment: float) -> int:
        """Unix time of a moment of `time.perf_counter()`."""
        return self._epoch + int(moment * 1e9)

    def finish(
        self,
        trace: Trace,
        name: str,
        start: float,
        end: float,
        laps: Sequence[tuple[str, float]],
        attributes: Attributes,
        error: str | None,
    ) -> None:
        """A sampled request is answered: its server span and one for each phase; moments are `perf_counter`'s."""
        export = self._export
        if export is None:
            return
        at = self.nanoseconds
        before = start
        for phase, moment in laps:
            # Its own call has a span already.
            if moment > before and (phase != "call" or trace.shared is not None):
                ids = Ids(trace.trace_id, _span_id())
                links = (trace.shared,) if phase == "call" and trace.shared is not None else ()
                export(Span(phase, "INTERNAL", ids, trace.span_id, at(before), at(moment), {}, links))
            before = moment
        ids = Ids(trace.trace_id, trace.span_id)
        export(Span(name, "SERVER", ids, trace.parent, at(start), at(end), attributes, (), error, trace.state))

    def state(self, before: str, after: str, reason: str, since: float, now: float) -> None:
        """The group was in state `before` from `since` to `now` (Unix seconds): a span of the trace of its life."""
        if self._export is not None:
            attributes = {"tandem.state": before, "from": before, "to": after, "tandem.reason": reason}
            ids = Ids(self._group, _span_id())
            start, end = int(since * 1e9), int(now * 1e9)
            self._export(Span(f"group {before}", "INTERNAL", ids, "", start, end, attributes, event="tandem.state"))

    def call(self, trip: "Trip", attributes: Attributes, error: str | None, ids: Ids) -> None:
        """One attempt of a call to TensorFlow Serving for sampled requests is over."""
        if self._export is None:
            return
        first, *others = trip.riders
        for other in others:
            other.shared = ids
        links = [Ids(other.trace_id, other.span_id) for other in others]
        name, start, end = str(attributes["rpc.method"]), self.nanoseconds(trip.sent), self.nanoseconds(trip.returned)
        self._export(Span(name, "CLIENT", ids, first.span_id, start, end, attributes, links, error, first.state))


class Trip:
    """One call to TensorFlow Serving on behalf of one request or several: who rides, and when it went and came.

    `sent` and `returned` are moments of `time.perf_counter()`; the call's last attempt counts.
    """

    __slots__ = ("alone", "returned", "riders", "sent")

    def __init__(self, traces: Sequence[Trace | None] = ()) -> None:
        self.alone = len(traces) == 1
        self.riders = _riders(traces) if traces else ()
        self.sent = self.returned = 0.0

    def depart(self) -> tuple[Ids | None, list[tuple[str, str]]]:
        """For the next attempt: its span's ids, None if no rider is sampled, and the metadata that go along.

        The trace context is the first rider's, whose baggage goes only if it rides alone.
        """
        first = self.riders[0]
        ids = Ids(first.trace_id, _span_id()) if first.sampled else None
        span_id, flags = (ids.span_id, "01") if ids is not None else (first.span_id, "00")
        metadata = [("traceparent", f"00-{first.trace_id}-{span_id}-{flags}")]
        if first.state:
            metadata.append(("tracestate", first.state))
        if first.baggage and self.alone:
            metadata.append(("baggage", first.baggage))
        return ids, metadata

    def arrive(self, path: str, ids: Ids | None, status: str, attempt: int) -> None:
        """An attempt is over, with this gRPC status; `sent` and `returned` say when."""
        if ids is None:
            return
        attributes: Attributes = {"rpc.system.name": "grpc", "rpc.method": path[1:], "rpc.response.status_code": status}
        if attempt:
            attributes["tandem.attempt"] = attempt + 1
        self.riders[0].tracer.call(self, attributes, None if status == "OK" else status, ids)


def _riders(traces: Sequence[Trace | None]) -> Sequence[Trace]:
    """Those that are sampled; if none is, the first that has a caller who may want to know."""
    given = [trace for trace in traces if trace is not None and (trace.sampled or trace.parent)]
    return [trace for trace in given if trace.sampled] or given[:1]


def _span_id() -> str:
    return f"{_random(64) or 1:016x}"


def _state(headers: MultiMapping[str]) -> str:
    """`tracestate`, all of its headers as one; none at all where a member is malformed or there twice."""
    members = _members(headers, "tracestate")
    keys = {member.partition("=")[0] for member in members}
    if len(keys) < len(members) or len(keys) > _MAX_STATE_MEMBERS or not all(map(_STATE_MEMBER.fullmatch, members)):
        return ""
    return _first(members, _MAX_STATE)


def _baggage(headers: MultiMapping[str]) -> str:
    """`baggage`, all of its headers as one, without members that are malformed."""
    return _first([m for m in _members(headers, "baggage") if _BAGGAGE_MEMBER.fullmatch(m)], _MAX_BAGGAGE)


def _members(headers: MultiMapping[str], name: str) -> list[str]:
    return [member for part in ",".join(headers.getall(name)).split(",") if (member := part.strip(" \t"))]


def _first(members: Sequence[str], size: int) -> str:
    """So many of the first members, whole ones, as `size` bytes hold."""
    text = ",".join(members)
    return text if len(text) <= size else text[: size + 1].rpartition(",")[0]
