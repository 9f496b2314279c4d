"""What the embedded group tells a real OpenTelemetry Collector: both tasks, one resource, to the last record."""

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.collector import Collector, Json
from tests.embedded.test_group import PREDICT, Run

SERVER, CLIENT = 2, 3
TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


@pytest.fixture
def run(source: Path, tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """The group, told of the collector as a person would: by its environment."""
    for name, text in collector.environment().items():
        monkeypatch.setenv(name, text)
    with Run(source, tmp_path / "tandem") as running:
        running.wait_for(r"REST +http")
        yield running


def predict_in_a_trace(run: Run) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", run.port, timeout=10)) as connection:
        path, body = PREDICT
        connection.request("POST", path, body, {"traceparent": f"00-{TRACE}-{CALLER}-01", "X-Request-Id": "one"})
        assert connection.getresponse().status == 200


def last(metrics: list[Json], name: str) -> list[Json]:
    """The points of the last push of this metric."""
    metric = [metric for metric in metrics if metric["name"] == name][-1]
    points: list[Json] = next(metric[kind]["dataPoints"] for kind in ("sum", "gauge", "histogram") if kind in metric)
    return points


def number(point: Json) -> float:
    return float(point["asInt"] if "asInt" in point else point["asDouble"])


def test_both_tasks_logs_and_metrics_and_a_requests_trace_arrive_under_one_resource_to_the_last(
    run: Run, collector: Collector
) -> None:
    predict_in_a_trace(run)
    allocation = run.allocation.name
    assert run.interrupt() == 0
    collector.stop()  # it has written all that has reached it
    spans, records, metrics = collector.spans(), collector.records(), collector.metrics()
    (server,) = [span for span in spans if span["kind"] == SERVER and span["traceId"] == TRACE]
    (client,) = [span for span in spans if span["kind"] == CLIENT and span["traceId"] == TRACE]
    assert (server["parentSpanId"], client["parentSpanId"]) == (CALLER, server["spanId"])
    (access,) = [record for record in records if record["attributes"].get("http.request.id") == "one"]
    assert (access["traceId"], access["spanId"]) == (TRACE, server["spanId"])

    said = [(record["attributes"]["tandem.task"], record["body"]["stringValue"]) for record in records]
    assert len([1 for task, body in said if task == "tfs" and "Successfully loaded servable version" in body]) == 1
    states = [r["attributes"]["to"] for r in records if r["attributes"].get("event.name") == "tandem.state"]
    assert states[-3:] == ["ready", "draining", "stopped"]
    assert [span["name"] for span in spans if span["name"].startswith("group ")][-2:] == [
        "group ready",
        "group draining",
    ]

    assert sum(number(point) for point in last(metrics, "tensorflow_serving_request_count")) >= 1
    routes = [json.dumps(point["attributes"]) for point in last(metrics, "http.server.request.duration")]
    assert any(":predict" in route for route in routes)
    (state,) = [json.dumps(p["attributes"]) for p in last(metrics, "tandem_group_state") if number(p) == 1]
    assert '"stopped"' in state

    resources = {json.dumps(item["resource"], sort_keys=True) for item in (*spans, *records, *metrics)}
    assert len(resources) == 1
    resource = json.loads(resources.pop())
    assert (resource["service.name"], resource["service.version"]) == ("halves", "1.2.3")
    assert resource["nomad.alloc.id"] == allocation
