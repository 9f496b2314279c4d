"""Trace context in and out, sampling, and the spans that are built of a request's moments."""

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from adapter.telemetry.otel_env import Sampling
from adapter.telemetry.traces import Span, Trace, Tracer, Trip

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = CIMultiDict(traceparent=f"00-{TRACE}-{CALLER}-01")
NOT_SAMPLED = CIMultiDict(traceparent=f"00-{TRACE}-{CALLER}-00")
PREDICT = "/tensorflow.serving.PredictionService/Predict"


def tracer(sampling: Sampling | None = None) -> tuple[Tracer, list[Span]]:
    spans: list[Span] = []
    return Tracer(sampling, spans.append), spans


def begun(headers: Mapping[str, str] | Sequence[tuple[str, str]], sampling: Sampling | None = None) -> Trace:
    trace = tracer(sampling)[0].begin(CIMultiDict(headers))
    assert trace is not None
    return trace


@pytest.mark.parametrize("headers", [SAMPLED, NOT_SAMPLED])
def test_a_request_goes_on_in_its_callers_trace(headers: dict[str, str]) -> None:
    trace = begun(headers)
    assert (trace.trace_id, trace.parent, trace.sampled) == (TRACE, CALLER, headers is SAMPLED)
    assert len(trace.span_id) == 16
    assert trace.span_id != CALLER


@pytest.mark.parametrize(
    "header",
    [
        "",
        "rubbish",
        f"ff-{TRACE}-{CALLER}-01",
        f"00-{TRACE}-{CALLER}-01-more",
        f"00-{'0' * 32}-{CALLER}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{CALLER}-01",
        f"00-{TRACE}-{CALLER}-1",
    ],
)
def test_a_traceparent_that_the_recommendation_forbids_starts_a_new_trace(header: str) -> None:
    trace = begun({"traceparent": header})
    assert trace.trace_id != TRACE
    assert trace.parent == ""


def test_a_later_version_of_traceparent_is_read_as_far_as_it_is_known() -> None:
    assert begun({"traceparent": f"01-{TRACE}-{CALLER}-01-more"}).trace_id == TRACE


@given(st.text(max_size=80))
def test_no_header_of_a_strangers_is_too_strange(text: str) -> None:
    assert begun({"traceparent": text, "tracestate": text, "baggage": text}).trace_id


def test_without_an_exporter_a_request_has_a_trace_only_if_its_caller_sent_one() -> None:
    alone = Tracer()
    assert alone.begin(CIMultiDict()) is None
    trace = alone.begin(SAMPLED)
    assert trace is not None
    assert not trace.sampled


def test_a_ratio_samples_that_share_of_new_traces() -> None:
    one, _ = tracer(Sampling(0.25))
    sampled = [trace.sampled for _ in range(4000) if (trace := one.begin(CIMultiDict())) is not None]
    assert 0.2 < sum(sampled) / 4000 < 0.3


def test_a_sampler_that_is_not_parent_based_does_not_ask_the_parent() -> None:
    assert not begun(SAMPLED, Sampling(0.0, parent=False)).sampled
    assert begun(NOT_SAMPLED, Sampling(1.0, parent=False)).sampled


def test_a_sampled_requests_spans_are_its_phases_under_one_server_span() -> None:
    one, spans = tracer()
    trace = one.begin(SAMPLED)
    assert trace is not None
    one.finish(trace, "POST /x", 1.0, 2.0, [("read", 1.1), ("queue", 1.2), ("call", 1.8), ("render", 1.9)], {}, None)
    *phases, server = spans
    assert [span.name for span in phases] == ["read", "queue", "render"]  # its call has a span of its own
    assert {span.parent for span in phases} == {trace.span_id}
    assert (server.kind, server.ids.span_id, server.parent) == ("SERVER", trace.span_id, CALLER)
    assert server.start == phases[0].start
    assert phases[0].end == phases[1].start


def test_the_trace_context_and_the_baggage_go_along_with_the_call() -> None:
    trip = Trip([begun({**SAMPLED, "tracestate": "a=1", "baggage": "tenant=b"})])
    ids, metadata = trip.depart()
    assert ids is not None
    assert metadata == [
        ("traceparent", f"00-{TRACE}-{ids.span_id}-01"),
        ("tracestate", "a=1"),
        ("baggage", "tenant=b"),
    ]


def test_a_request_that_is_not_sampled_is_passed_on_as_that() -> None:
    trace = begun(NOT_SAMPLED)
    assert Trip([trace]).depart() == (None, [("traceparent", f"00-{TRACE}-{trace.span_id}-00")])


def test_a_request_that_nobody_traces_sends_nothing_along() -> None:
    assert Trip([None]).riders == []
    assert Trip([begun({}, Sampling(0.0))]).riders == []


def test_requests_that_share_a_call_share_its_span_by_links() -> None:
    one, spans = tracer()
    first, second = one.begin(SAMPLED), one.begin(CIMultiDict())
    assert first is not None
    assert second is not None
    trip = Trip([None, first, second])
    ids, metadata = trip.depart()
    trip.sent, trip.returned = 1.0, 2.0
    trip.arrive(PREDICT, ids, "OK", 0)
    (call,) = spans
    assert (call.kind, call.parent) == ("CLIENT", first.span_id)
    assert [link.span_id for link in call.links] == [second.span_id]
    one.finish(second, "POST /x", 0.5, 2.5, [("queue", 1.0), ("call", 2.0)], {}, None)
    riding = next(span for span in spans if span.name == "call")
    assert riding.ids.trace_id == second.trace_id
    assert list(riding.links) == [ids]
    assert "baggage" not in dict(metadata)


def test_a_failed_attempt_is_a_failed_span_and_the_next_one_says_which_it_is() -> None:
    one, spans = tracer()
    trip = Trip([one.begin(SAMPLED)])
    for attempt, status in enumerate(("UNAVAILABLE", "OK")):
        ids, _ = trip.depart()
        trip.arrive(PREDICT, ids, status, attempt)
    assert [span.error for span in spans] == ["UNAVAILABLE", None]
    assert spans[1].attributes["tandem.attempt"] == 2
    assert spans[0].ids != spans[1].ids


def test_each_state_of_the_group_is_a_span_of_one_trace() -> None:
    one, spans = tracer()
    one.state("starting", "loading", "TensorFlow Serving answers", 1.0, 3.0)
    one.state("loading", "ready", "every check passes", 3.0, 4.0)
    assert [span.name for span in spans] == ["group starting", "group loading"]
    assert spans[0].ids.trace_id == spans[1].ids.trace_id
    assert spans[0].end == spans[1].start


def carried(*headers: tuple[str, str]) -> dict[str, str]:
    """What of these headers goes along with a call, beside the trace's own."""
    metadata = dict(Trip([begun([*SAMPLED.items(), *headers])]).depart()[1])
    del metadata["traceparent"]
    return metadata


def test_several_headers_are_one_list() -> None:
    headers = [("tracestate", "a=1"), ("tracestate", " b@c=2 , d=x y"), ("baggage", "k=1"), ("baggage", "l = 2;p;q=3")]
    assert carried(*headers) == {"tracestate": "a=1,b@c=2,d=x y", "baggage": "k=1,l = 2;p;q=3"}


@pytest.mark.parametrize(
    "state", ["!!bad==,,", "a=1,a=2", "A=1", "=", "a", "a=1,b", "a=\u00e9", ",".join(f"k{i}=v" for i in range(33))]
)
def test_a_state_that_is_malformed_does_not_go_on(state: str) -> None:
    assert carried(("tracestate", state), ("baggage", "k=1")) == {"baggage": "k=1"}


def test_members_of_baggage_that_are_malformed_do_not_go_on() -> None:
    assert carried(("baggage", '!!bad==,,a=1,b,=c,d="e",f=\u00e9,g=%C3%A9')) == {"baggage": "!!bad==,a=1,g=%C3%A9"}


def test_both_together_stay_within_what_a_grpc_server_takes() -> None:
    """By whole members, the first ones."""
    state, baggage = ([f"{name}{i}={'v' * 20}" for i in range(32)] for name in ("s", "b"))
    long = carried(("tracestate", ",".join(state)), ("baggage", ",".join(f"{member}{'v' * 200}" for member in baggage)))
    assert 480 < len(long["tracestate"]) <= 512
    assert 3300 < len(long["baggage"]) <= 4096 - 512
    assert long["tracestate"].split(",") == state[: long["tracestate"].count(",") + 1]
    assert all(member.endswith("v" * 220) for member in long["baggage"].split(","))
    assert carried(("baggage", "k=" + "v" * 5000)) == {}


def test_of_two_parents_neither_is_believed() -> None:
    twice = [("traceparent", f"00-{TRACE}-{CALLER}-01"), ("traceparent", f"00-{TRACE}-{'a' * 16}-01")]
    trace = begun(twice)
    assert (trace.trace_id == TRACE, trace.parent) == (False, "")
