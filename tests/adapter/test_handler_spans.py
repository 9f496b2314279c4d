"""Spans and log records that a bundle's handler makes with OpenTelemetry's API and `logging`, at a real Collector."""

import json
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.adapters import Adapter
from tests.collector import Collector, Json
from tests.metrics import read_text, value
from tests.servers import ModelServer

SERVER, CLIENT = 2, 3
HEAD = """
import logging, sys
import numpy as np
from opentelemetry import trace
from adapter.handler import Handler, Struct

log = logging.getLogger("mine")
spans = trace.get_tracer("mine")

class Request(Struct):
    x: float

class Answer(Struct):
    y: float

def looked_up(batch):
    with spans.start_as_current_span("look up", attributes={"x": batch[0].x, "long": "l" * 10_000}):
        with spans.start_as_current_span("below"):
            log.warning("looked up %g", batch[0].x)
    return np.array([r.x for r in batch], np.float32)
"""
STEPS = """
class Halves(Handler[Request, Answer]):
    def startup(self):
        with spans.start_as_current_span("starts"):
            pass

    def preprocess(self, batch):
        return {"x": looked_up(batch)}

    def postprocess(self, outputs, batch):
        return [Answer(y) for y in outputs["y"].tolist()]
"""
INLINE = STEPS.replace("    def startup", "    inline = True\n\n    def startup")
PIPELINE = """
class Halves(Handler[Request, Answer]):
    async def predict(self, ctx, batch):
        with spans.start_as_current_span("ask"):
            x = await ctx.run(looked_up, batch)
            outputs = await ctx.infer("half_plus_two", {"x": x})
        return [Answer(y) for y in outputs["y"].tolist()]
"""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


def with_handler(bundle: Path, code: str) -> Path:
    (bundle / "handler.py").write_text(HEAD + textwrap.dedent(code))
    manifest = bundle / "bundle.toml"
    manifest.write_text('handler = "handler.py"\n' + manifest.read_text())
    return bundle


def trace_id(number: int) -> str:
    return f"{number + 1:032x}"


def ask(adapter: Adapter, number: int, *, sampled: bool = True) -> int:
    headers = {"traceparent": f"00-{trace_id(number)}-b7ad6b7169203331-{'01' if sampled else '00'}"}
    answer = adapter.request("POST", "/predict", json.dumps({"x": number}), headers)
    assert answer.json == {"y": number / 2 + 2}
    return answer.status


def named(name: str, number: int, collector: Collector) -> Json:
    """The span of this name in that request's trace, waited for."""
    return collector.span(lambda span: (span["name"], span["traceId"]) == (name, trace_id(number)))


@pytest.mark.parametrize("code", [pytest.param(STEPS, id="threads"), pytest.param(INLINE, id="inline")])
def test_a_handlers_spans_and_records_are_part_of_its_requests_trace(
    collector: Collector, server: ModelServer, bundle: Path, code: str
) -> None:
    with Adapter(collector.environment(), tfs_grpc=server.target, bundle=with_handler(bundle, code)) as adapter:
        ask(adapter.ready(), 7)
        answered = collector.span(lambda span: span["kind"] == SERVER and span["traceId"] == trace_id(7))
        outer, inner = named("look up", 7, collector), named("below", 7, collector)
        said = collector.record(lambda record: record["body"] == {"stringValue": "looked up 7"})
        printed = adapter.wait_for(lambda record: record["body"] == "looked up 7")
    assert outer["parentSpanId"] == answered["spanId"]
    assert inner["parentSpanId"] == outer["spanId"]
    assert answered["startTimeUnixNano"] <= outer["startTimeUnixNano"] <= inner["startTimeUnixNano"]
    assert inner["endTimeUnixNano"] <= outer["endTimeUnixNano"] <= answered["endTimeUnixNano"]
    assert outer["attributes"]["x"] == 7
    assert len(outer["attributes"]["long"]) == 4096
    assert (said["traceId"], said["spanId"]) == (trace_id(7), inner["spanId"])
    assert (printed["trace_id"], printed["span_id"]) == (trace_id(7), inner["spanId"])
    assert said["resource"] == inner["resource"] == outer["resource"] == answered["resource"] == printed["resource"]


def test_a_pipelines_spans_hold_the_calls_and_the_threads_work_that_it_waits_for(
    collector: Collector, server: ModelServer, bundle: Path
) -> None:
    with Adapter(collector.environment(), tfs_grpc=server.target, bundle=with_handler(bundle, PIPELINE)) as adapter:
        ask(adapter.ready(), 3)
        answered = collector.span(lambda span: span["kind"] == SERVER and span["traceId"] == trace_id(3))
        asked, looked = named("ask", 3, collector), named("look up", 3, collector)
        called = collector.span(lambda span: span["kind"] == CLIENT and span["traceId"] == trace_id(3))
        said = collector.record(lambda record: record["body"] == {"stringValue": "looked up 3"})
    assert asked["parentSpanId"] == answered["spanId"]
    assert looked["parentSpanId"] == called["parentSpanId"] == asked["spanId"]
    assert said["spanId"] == named("below", 3, collector)["spanId"]


@pytest.mark.parametrize("code", [pytest.param(STEPS, id="threads"), pytest.param(PIPELINE, id="pipeline")])
def test_among_many_requests_each_span_is_its_own_requests_and_those_not_sampled_make_none(
    collector: Collector, server: ModelServer, bundle: Path, code: str
) -> None:
    """Every other one is not wanted by its caller; none of its spans leaves, though the handler makes them alike."""
    environment = collector.environment()
    with (
        Adapter(environment, tfs_grpc=server.target, bundle=with_handler(bundle, code)) as adapter,
        ThreadPoolExecutor(8) as pool,
    ):
        adapter.ready()
        statuses = list(pool.map(lambda number: ask(adapter, number, sampled=number % 2 == 0), range(100)))
        assert adapter.stop() == 0
    collector.stop()  # it has written all that has reached it
    assert statuses == [200] * 100
    looked = [(span["traceId"], span["attributes"]["x"]) for span in collector.spans() if span["name"] == "look up"]
    assert sorted(looked) == [(trace_id(number), number) for number in range(0, 100, 2)]
    below = {record["spanId"] for record in collector.records() if "looked up" in record["body"]["stringValue"]}
    assert {span["spanId"] for span in collector.spans() if span["name"] == "below"} < below


def test_a_span_of_no_request_is_a_trace_of_its_own_and_sampled_as_one(
    collector: Collector, server: ModelServer, bundle: Path
) -> None:
    with_handler(bundle, STEPS)
    with Adapter(collector.environment(), tfs_grpc=server.target, bundle=bundle) as adapter:
        started = collector.span(lambda span: span["name"] == "starts")
        assert adapter.ready().stop() == 0
    assert "parentSpanId" not in started
    never = {**collector.environment(), "OTEL_TRACES_SAMPLER": "parentbased_always_off"}
    with Adapter(never, tfs_grpc=server.target, bundle=bundle) as adapter:
        assert adapter.ready().stop() == 0
    collector.stop()
    assert [span["spanId"] for span in collector.spans() if span["name"] == "starts"] == [started["spanId"]]


def test_however_many_spans_a_handler_makes_the_queue_is_bounded_and_the_rest_counted(
    server: ModelServer, bundle: Path
) -> None:
    """Nobody listens at this address."""
    environment = {**Collector().environment(), "OTEL_BSP_MAX_QUEUE_SIZE": "64", "OTEL_BSP_SCHEDULE_DELAY": "60000"}
    code = STEPS.replace('{"x": looked_up(batch)}', '{"x": [looked_up(batch) for _ in range(1000)][0]}')
    with Adapter(environment, tfs_grpc=server.target, bundle=with_handler(bundle, code)) as adapter:
        adapter.ready()
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(lambda number: ask(adapter, number), range(4))) == [200] * 4
        page = read_text(adapter.request("GET", "/metrics").body)
    queued, dropped = (value(page, f"tandem_otlp_{name}", signal="traces") for name in ("queued", "dropped_total"))
    assert queued is not None
    assert queued <= 64
    assert dropped is not None
    assert dropped > 4 * 2000 - 64 - 2 * 64


def test_without_a_collector_a_handlers_spans_cost_it_nothing(server: ModelServer, bundle: Path) -> None:
    code = STEPS.replace("Answer(y)", 'Answer(y + 100 * ("opentelemetry.sdk.trace" in sys.modules))')
    with Adapter(tfs_grpc=server.target, bundle=with_handler(bundle, code)) as adapter:
        ask(adapter.ready(), 1)
        said = adapter.wait_for(lambda record: record["body"] == "looked up 1")
    assert said["trace_id"] == trace_id(1)
