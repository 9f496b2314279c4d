"""What a real OpenTelemetry Collector, a real Prometheus and `nomad alloc logs` are told of the two tasks: one story."""

import json
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from deploy.cluster.cluster import Cluster
from tests.adapters import Record, event, state
from tests.cluster.allocation import address, records
from tests.cluster.client import ANSWER, FIRST_HALF, MODEL, QUESTION, SECOND_HALF
from tests.cluster.conftest import Service
from tests.collector import Collector, Json, plain
from tests.servers import free_port

Deploy = Callable[..., Service]

# The node, as a task behind Nomad's bridge reaches it, unless the client's configuration says otherwise.
GATEWAY = "172.26.64.1"
TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SERVER, CLIENT = 2, 3
# Its lines have no time of their own; their records have the moment when they were read.
UNTIMED = "evhttp_server.cc"
LOADED = "Successfully loaded servable version"


@contextmanager
def prometheus(directory: Path, targets: list[str]) -> Iterator[Callable[[str], list[Json]]]:
    """A Prometheus that scrapes `targets`; gives what asks it: the series that a query finds.

    It is told where they are: Debian's has no discovery by Consul.
    """
    scraped = {"job_name": "tandem", "static_configs": [{"targets": targets}]}
    config = directory / "prometheus.yml"
    config.write_text(json.dumps({"global": {"scrape_interval": "500ms"}, "scrape_configs": [scraped]}))
    address = f"127.0.0.1:{free_port()}"
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={directory / 'series'}"]
    with subprocess.Popen([*command, f"--web.listen-address={address}"], stderr=subprocess.DEVNULL) as process:

        def query(text: str) -> list[Json]:
            """What it finds; waits until that is something."""
            url = f"http://{address}/api/v1/query?{urllib.parse.urlencode({'query': text})}"
            end = time.monotonic() + 30
            while time.monotonic() < end:
                try:
                    with urllib.request.urlopen(url, timeout=10) as answer:
                        found: list[Json] = json.load(answer)["data"]["result"]
                except OSError:  # it does not listen yet
                    found = []
                if found:
                    return found
                time.sleep(0.05)  # it tells nobody that it has scraped
            raise AssertionError(f"Prometheus has no {text}")

        try:
            yield query
        finally:
            process.kill()


def ask(address: str, headers: dict[str, str]) -> Any:
    request = urllib.request.Request(f"http://{address}{MODEL}", json.dumps(QUESTION).encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def test_one_requests_trace_both_tasks_logs_and_both_tasks_metrics_tell_one_story(
    cluster: Cluster, deploy: Deploy, tmp_path: Path
) -> None:
    with Collector("0.0.0.0") as collector:  # the bridge comes with the first task only
        told = {**collector.environment(host=GATEWAY), "OTEL_TRACES_SAMPLER": "always_on"}
        service = deploy("told", env=json.dumps(told))
        (address,) = cluster.consul.passing(service.name, 1, seconds=10)
        (allocation,) = cluster.nomad.running(service.name)
        assert ask(address, {"traceparent": f"00-{TRACE}-{CALLER}-01", "X-Request-Id": "one"}) == ANSWER

        server = collector.span(lambda span: span["kind"] == SERVER and span["traceId"] == TRACE)
        client = collector.span(lambda span: span["kind"] == CLIENT and span["traceId"] == TRACE)
        access = collector.record(lambda record: record["attributes"].get("http.request.id") == "one")
        loaded = collector.record(lambda record: record["body"].get("stringValue", "").startswith(LOADED))
        duration = collector.metric("http.server.request.duration", of_the_route)
        latency = collector.metric("tensorflow_serving_request_latency_seconds", has_points)

        with prometheus(tmp_path, [address]) as query:
            (up,) = query("tandem_tfs_scrape_up")
            (served,) = query('tensorflow_serving_request_count_total{model_name="half_plus_two",status="OK"}')

        cluster.nomad.command("job", "stop", "-detach", service.name)
        cluster.nomad.ended(service.name, 60)
        story = records(cluster, allocation["ID"])

    assert (server["parentSpanId"], client["parentSpanId"]) == (CALLER, server["spanId"])
    assert (access["traceId"], access["spanId"]) == (TRACE, server["spanId"])
    assert access["attributes"]["http.request.body.size"] == len(json.dumps(QUESTION))
    assert (access["attributes"]["tandem.task"], loaded["attributes"]["tandem.task"]) == ("adapter", "tfs")
    resource = story[0]["resource"]
    assert resource["nomad.alloc.id"] == allocation["ID"]
    for arrived in (server, client, access, loaded, duration, latency):
        assert arrived["resource"] == resource
    assert (up["metric"]["instance"], up["value"][1]) == (address, "1")
    assert (served["metric"]["instance"], served["value"][1]) == (address, "2")  # the bundle's warm-up, then this one

    assert {record["attributes"]["tandem.task"] for record in story} == {"adapter", "tfs"}
    assert [record for record in story if record["resource"] != resource] == []
    ready = only(story, state("ready"))
    answered = only(story, lambda record: record.get("trace_id") == TRACE and event("http.access")(record))
    ends = [only(story, state("draining")), only(story, state("stopped"))]
    in_order([only(story, event("tandem.start")), ready, answered, *ends])
    in_order([only(story, lambda record: record["body"].startswith(LOADED)), ready])
    in_order([record for record in story if record["attributes"]["tandem.task"] == "adapter"])
    in_order([record for record in story if record["attributes"].get("code.file.path", UNTIMED) != UNTIMED])
    assert story[-1] == ends[-1]


def test_the_last_records_of_a_stopped_instance_reach_the_collector(cluster: Cluster, deploy: Deploy) -> None:
    with Collector("0.0.0.0") as collector:
        service = deploy("told-to-the-end", env=json.dumps(collector.environment(host=GATEWAY)))
        (first,) = cluster.nomad.running(service.name)
        stopped_with_a_request_in_flight(cluster, collector, first["ID"], "alloc", "stop", "-detach", first["ID"])
        cluster.consul.passing(service.name, 1, seconds=60)
        (second,) = cluster.nomad.running(service.name)
        stopped_with_a_request_in_flight(cluster, collector, second["ID"], "job", "stop", "-detach", service.name)

        for allocation in (first["ID"], second["ID"]):
            collector.record(lambda record, one=allocation: of(record, one) and state("stopped")(record))
            story = records(cluster, allocation)
            last = only(story, lambda record: record["attributes"].get("http.request.id") == "last")
            in_order([only(story, state("draining")), last, only(story, state("stopped"))])
            arrived = [record["body"]["stringValue"] for record in collector.records() if of(record, allocation)]
            assert arrived == [record["body"] for record in story]


def stopped_with_a_request_in_flight(cluster: Cluster, collector: Collector, allocation: str, *command: str) -> None:
    """Stop it by this command of Nomad, and see it ended; the request is answered after it has begun to drain."""
    host, port = address(cluster, allocation).split(":")
    with socket.create_connection((host, int(port)), timeout=30) as client:
        client.sendall(FIRST_HALF.replace(b"Host: x", b"Host: x\r\nX-Request-Id: last"))
        cluster.nomad.command(*command)
        collector.record(lambda record: of(record, allocation) and state("draining")(record))
        client.sendall(SECOND_HALF)
        assert client.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
    cluster.nomad.ended_one(allocation, 60)


def of(record: Record, allocation: str) -> bool:
    """The record is of this allocation."""
    return bool(record["resource"]["nomad.alloc.id"] == allocation)


def of_the_route(metric: Json) -> bool:
    points = metric["histogram"]["dataPoints"]
    return any(plain(point["attributes"]).get("http.route") == "/v1/models/{model}:predict" for point in points)


def has_points(metric: Json) -> bool:
    return bool(metric["histogram"]["dataPoints"])


def only(story: list[Record], wanted: Callable[[Record], bool]) -> Record:
    """The one record that is wanted."""
    (found,) = [record for record in story if wanted(record)]
    return found


def in_order(story: list[Record]) -> None:
    """They happened in this order; timestamps are of one length, so they sort as text."""
    assert [(a, b) for a, b in pairwise(story) if a["timestamp"] > b["timestamp"]] == []
