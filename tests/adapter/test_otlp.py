"""What leaves by OTLP, as a real OpenTelemetry Collector receives it, and what happens when it does not."""

import json
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.adapters import LAST_SECONDS, Adapter, event
from tests.collector import Collector, Json
from tests.metrics import Page, read_openmetrics, read_text, value
from tests.servers import ModelServer

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{CALLER}-01"
PREDICT = "/v1/models/half_plus_two:predict"
BODY = json.dumps({"instances": [1.0, 2.0]})
PREDICT_ROUTE = "/v1/models/{model}:predict"
SERVER, CLIENT = 2, 3
LOG_LINE = b"2026-11-22 13:57:24.343859: W tensorflow_serving/core/a.cc:7] said by the other task\n"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_requests_trace_both_tasks_logs_and_both_tasks_metrics_arrive_under_one_resource(
    collector: Collector, monitored: ModelServer, bundle: Path, tmp_path: Path, protocol: str
) -> None:
    for part in ("logs", "data"):
        (tmp_path / "alloc" / part).mkdir(parents=True)
    (tmp_path / "alloc" / "logs" / "tfs.stderr.0").write_bytes(LOG_LINE)
    environment = collector.environment(protocol)
    environment["OTEL_RESOURCE_ATTRIBUTES"] = "deployment.environment.name=staging"
    settings = {
        "tfs_grpc": monitored.target,
        "tfs_logs": tmp_path / "alloc" / "logs",
        "tfs_metrics_url": f"http://127.0.0.1:{monitored.rest_port}/monitoring/prometheus/metrics",
        "bundle": bundle,
    }
    with Adapter(environment, **settings) as adapter:
        adapter.ready()
        headers = {"traceparent": PARENT, "X-Request-Id": "one"}
        assert adapter.request("POST", PREDICT, BODY, headers).status == 200
        server = collector.span(lambda span: span["kind"] == SERVER and span["traceId"] == TRACE)
        client = collector.span(lambda span: span["kind"] == CLIENT and span["traceId"] == TRACE)
        access = collector.record(lambda record: record["attributes"].get("http.request.id") == "one")
        theirs = collector.record(lambda record: record["attributes"]["tandem.task"] == "tfs")
        duration = collector.metric("http.server.request.duration", lambda m: route_of(m) == PREDICT_ROUTE)
        latency = collector.metric("tensorflow_serving_request_latency_seconds", has_points)
        phases = {s["name"]: s for s in collector.spans() if s.get("parentSpanId") == server["spanId"]}
        state = collector.span(lambda span: span["name"].startswith("group "))
        printed = adapter.wait_for(event("http.access"))
        page = adapter.request("GET", "/metrics", headers={"Accept": "application/openmetrics-text"}).body
    assert server["parentSpanId"] == CALLER
    assert server["name"] == "POST /v1/models/{model}:predict"
    assert server["attributes"]["http.response.status_code"] == 200
    assert client["parentSpanId"] == server["spanId"]
    assert client["attributes"]["rpc.method"] == "tensorflow.serving.PredictionService/Predict"
    assert {"read", "parse", "queue", "render"} < set(phases)
    assert (
        (access["traceId"], access["spanId"]) == (TRACE, server["spanId"]) == (printed["trace_id"], printed["span_id"])
    )
    assert access["attributes"]["tandem.signature"] == "serving_default"
    assert set(access["attributes"]["tandem.phases_us"]) == {"read", "parse", "queue", "call", "render"}
    assert theirs["body"] == {"stringValue": "said by the other task"}
    assert theirs["severityText"] == "WARN"
    assert duration["histogram"]["dataPoints"][0]["exemplars"][0]["traceId"] == TRACE
    assert latency["unit"] == "s"
    named = [s.exemplar.labels for f in read_openmetrics(page).values() for s in f.samples if s.exemplar is not None]
    assert {"trace_id": TRACE, "span_id": server["spanId"]} in named
    assert state["events"][0]["name"] == "tandem.state"
    resource = printed["resource"]
    assert resource["service.version"] == "1.2.3"
    assert resource["deployment.environment.name"] == "staging"
    for arrived in (server, client, access, theirs, duration, latency, state):
        assert arrived["resource"] == resource


def route_of(metric: Json) -> str | None:
    (pair,) = [a for a in metric["histogram"]["dataPoints"][0]["attributes"] if a["key"] == "http.route"]
    route: str = pair["value"]["stringValue"]
    return route


def has_points(metric: Json) -> bool:
    return bool(metric["histogram"]["dataPoints"])


def test_the_figures_pushed_are_those_on_the_page(collector: Collector, monitored: ModelServer, bundle: Path) -> None:
    """The collector's own Prometheus exporter turns what was pushed into a page: the same series, the same values."""
    url = f"http://127.0.0.1:{monitored.rest_port}/monitoring/prometheus/metrics"
    with Adapter(collector.environment(), tfs_grpc=monitored.target, tfs_metrics_url=url, bundle=bundle) as adapter:
        adapter.ready()
        for _ in range(5):
            assert adapter.request("POST", PREDICT, BODY).status == 200
        collector.metric("tensorflow_serving_request_count", counts_five)
        pushed, page = samples(read_text(collector.page())), samples(read_text(adapter.request("GET", "/metrics").body))
    theirs = {sample for sample in page if sample[0].startswith("tensorflow_")}
    assert len(theirs) > 50
    assert theirs - pushed == set()
    ours = {
        s for s in page if s[0].startswith(("http_server_request_duration", "tandem_group", "tandem_request_phase"))
    }
    assert len(ours) > 20
    assert {s for s in ours - pushed if "/metrics" not in str(s)} == set()


Sample = tuple[str, frozenset[tuple[str, str]], float]


def counts_five(metric: Json) -> bool:
    return any(
        float(point["asInt"] if "asInt" in point else point["asDouble"]) == 5 for point in metric["sum"]["dataPoints"]
    )


def samples(page: Page) -> set[Sample]:
    """Every sample of a page, without the labels that say who speaks."""
    whose = ("job", "instance", "otel_scope_name", "otel_scope_version", "otel_scope_schema_url")
    return {
        (
            s.name,
            frozenset((k, str(float(v)) if k == "le" else v) for k, v in s.labels.items() if k not in whose),
            s.value,
        )
        for family in page.values()
        for s in family.samples
    }


def test_a_request_that_is_not_sampled_leaves_no_span_but_keeps_its_trace_in_the_log(
    collector: Collector, server: ModelServer, bundle: Path
) -> None:
    environment = {**collector.environment(), "OTEL_TRACES_SAMPLER": "parentbased_always_off"}
    with Adapter(environment, tfs_grpc=server.target, bundle=bundle) as adapter:
        adapter.ready()
        assert adapter.request("POST", PREDICT, BODY, {"traceparent": PARENT[:-1] + "0"}).status == 200
        assert adapter.request("POST", PREDICT, BODY).status == 200
        assert adapter.request("POST", PREDICT, BODY, {"traceparent": PARENT.replace("0af", "1af")}).status == 200
        sampled = collector.span(lambda span: span["kind"] == SERVER)
        last = adapter.wait_for(lambda r: event("http.access")(r) and str(r["trace_id"]).startswith("1af"))
        first, second, third = (r for r in adapter.records if event("http.access")(r))
        assert third is last
    assert sampled["traceId"].startswith("1af")
    assert {span["traceId"] for span in collector.spans() if span["kind"] != 1} == {sampled["traceId"]}
    assert (first["trace_id"], first["trace_flags"]) == (TRACE, 0)
    assert len(second["trace_id"]) == 32
    assert third["trace_flags"] == 1


def test_a_collector_that_comes_and_goes_costs_telemetry_and_never_a_request(server: ModelServer, bundle: Path) -> None:
    """Not there, there, hung, gone, there again: every request is answered, none late; what was lost is counted."""
    collector = Collector()
    environment = {**collector.environment(), "OTEL_EXPORTER_OTLP_TIMEOUT": "1000"}
    environment |= {"OTEL_BSP_MAX_QUEUE_SIZE": "64", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "32"}
    with Adapter(environment, tfs_grpc=server.target, bundle=bundle) as adapter:
        adapter.ready()
        load = Load(adapter)
        since = said(adapter, "Traces cannot be delivered by OTLP: ")
        collector.start()
        since = said(adapter, "Traces are delivered by OTLP again", since)
        collector.freeze()
        since = said(adapter, "Traces cannot be delivered by OTLP: ", since)
        collector.thaw()
        since = said(adapter, "Traces are delivered by OTLP again", since)
        collector.stop()
        since = said(adapter, "Traces cannot be delivered by OTLP: ", since)
        collector.start()
        said(adapter, "Traces are delivered by OTLP again", since)
        load.stop()
        page = read_text(adapter.request("GET", "/metrics").body)
        began = time.monotonic()
        collector.freeze()
        assert adapter.stop() == 0
        assert time.monotonic() - began < 10
        collector.thaw()
    collector.stop()
    assert load.statuses == {200}
    assert value(page, "tandem_otlp_dropped_total", signal="traces") > 0
    assert value(page, "tandem_otlp_exported_total", signal="traces") > 0
    assert value(page, "tandem_otlp_queued", signal="traces") <= 64
    assert load.slowest() < 1.0


def test_a_drain_with_everything_hung_ends_in_the_time_that_the_job_gives_it(
    collector: Collector, monitored: ModelServer, bundle: Path
) -> None:
    """The request in flight, TensorFlow Serving's page and the collector: each has its bound, and the job their sum."""
    url = f"http://127.0.0.1:{monitored.rest_port}/monitoring/prometheus/metrics"
    settings = {"tfs_metrics_url": url, "bundle": bundle, "shutdown_delay": 0.5, "shutdown_grace": 1}
    with (
        Adapter(collector.environment(), tfs_grpc=monitored.target, **settings) as adapter,
        ThreadPoolExecutor(1) as pool,
    ):
        adapter.ready()
        monitored.process.send_signal(signal.SIGSTOP)
        try:
            in_flight = pool.submit(adapter.request, "POST", PREDICT, BODY)
            while value(read_text(adapter.request("GET", "/metrics").body), "http_server_active_requests") < 2:
                pass
            collector.freeze()
            began = time.monotonic()
            assert adapter.stop() == 1
            took = time.monotonic() - began
        finally:
            monitored.process.send_signal(signal.SIGCONT)
            collector.thaw()
        assert isinstance(in_flight.exception(), ConnectionError)
    assert took < 0.5 + 1 + LAST_SECONDS + 2  # a busy machine's


def said(adapter: Adapter, words: str, since: int = 0) -> int:
    """Wait until the adapter logs a record that begins with `words`, from number `since` on; the number after it."""
    record = adapter.wait_for(lambda record: record["body"].startswith(words), after=since)
    return since + next(i for i, each in enumerate(adapter.records[since:], 1) if each is record)


class Load:
    """One client that asks without a pause; it notes statuses and times."""

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter
        self._end = threading.Event()
        self.statuses: set[int] = set()
        self._seconds: list[float] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._end.set()
        self._thread.join(30)

    def slowest(self) -> float:
        return max(self._seconds)

    def _run(self) -> None:
        while not self._end.is_set():
            began = time.monotonic()
            self.statuses.add(self._adapter.request("POST", PREDICT, BODY).status)
            self._seconds.append(time.monotonic() - began)


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_variables_that_make_no_sense_are_said_and_everything_leaves_all_the_same(
    collector: Collector, server: ModelServer, bundle: Path, protocol: str
) -> None:
    nonsense = {
        "OTEL_EXPORTER_OTLP_TIMEOUT": "abc",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "zstd",
        "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": "none",
        "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "many",
        "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT": "",
        "OTEL_PROPAGATORS": "",
    }
    environment = {**collector.environment(protocol), **nonsense}
    with Adapter(environment, tfs_grpc=server.target, bundle=bundle) as adapter:
        adapter.ready()
        assert adapter.request("POST", PREDICT, BODY).status == 200
        assert adapter.stop() == 0
        said = [record["body"].partition("=")[0] for record in adapter.records if record["body"].startswith("OTEL_")]
    assert said == ["OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "OTEL_EXPORTER_OTLP_COMPRESSION"]
    assert collector.span(lambda span: span["name"] == "POST /v1/models/{model}:predict")
