"""A bundle handler's own spans, made with OpenTelemetry's API: they join the trace of the request that they are for.

    server span ─┬─ pre, post, handler …             the service's own (traces.py)
                 └─ "look up" ─┬─ …                  the handler's: start_as_current_span, at any depth
                               └─ Predict            a call that it made meanwhile

Loaded with the exporters, where traces leave, and asked only for requests that are sampled: the server span is made the
current one around the handler, and Python's context carries it to the handler's threads and to its loop. Spans for a
request that is not sampled find no parent and are dropped; those of no request (`startup`) are sampled like requests.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace as api
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, Sampler, SamplingResult, TraceIdRatioBased
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, TraceFlags, TraceState

from adapter.telemetry.logs import REQUEST
from adapter.telemetry.otel_env import Sampling
from adapter.telemetry.traces import Trace

# Characters of an attribute's value where OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT says nothing: the queue bounds spans, not bytes.
MAX_VALUE = 4096
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


class HandlerSpans:
    """The spans that handlers make from now on go to `export`, from whatever thread; there can be one in a process."""

    def __init__(self, export: Callable[[ReadableSpan], None], resource: Resource, sampling: Sampling) -> None:
        provider = TracerProvider(
            ParentBased(_OfNoRequest(sampling.ratio)), resource, shutdown_on_exit=False, span_limits=_limits()
        )
        provider.add_span_processor(_Finished(export))
        api.set_tracer_provider(provider)

    @contextmanager
    def around(self, trace: Trace) -> Iterator[None]:
        """Within, the server span of this request is the current one."""
        state = TraceState.from_header([trace.state]) if trace.state else None
        server = SpanContext(int(trace.trace_id, 16), int(trace.span_id, 16), False, _SAMPLED, state)
        token = otel_context.attach(api.set_span_in_context(NonRecordingSpan(server)))
        try:
            yield
        finally:
            otel_context.detach(token)

    def innermost(self, trace: Trace) -> Trace:
        """`trace` at the span that the handler is in now; as it is, if it is in none of its own."""
        current = api.get_current_span().get_span_context()
        span_id = f"{current.span_id:016x}"
        if current.trace_id != int(trace.trace_id, 16) or span_id == trace.span_id:
            return trace
        return trace.at(span_id)


class _OfNoRequest(Sampler):
    """For spans without a parent: within a request it was decided already that none of them is wanted."""

    def __init__(self, ratio: float) -> None:
        self._ratio = TraceIdRatioBased(ratio)

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Any = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        sampler = self._ratio if REQUEST.get() is None else ALWAYS_OFF
        return sampler.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        return "OfNoRequest"


class _Finished(SpanProcessor):
    def __init__(self, export: Callable[[ReadableSpan], None]) -> None:
        self._export = export

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is not None and span.context.trace_flags.sampled:
            self._export(span)


def _limits() -> SpanLimits:
    limits = SpanLimits()
    return SpanLimits(max_attribute_length=limits.max_attribute_length or MAX_VALUE)
