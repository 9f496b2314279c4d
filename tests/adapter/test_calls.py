"""The way to TensorFlow Serving: never more calls than it takes, cancelled with their clients, retried where that is safe."""

import json
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.adapter.conftest import HALF_PLUS_TWO
from tests.adapters import Adapter, Answer
from tests.servers import ModelServer


def test_sixty_four_requests_in_flight_never_see_resource_exhausted() -> None:
    """TensorFlow Serving refuses calls beyond its threads: with 4 of them, none of 64 clients hears of it.

    A refusal behind the scenes is no failure: the server may count a call as running a moment after its answer came, and
    the adapter then asks again.
    """
    flags = ["--model_name=half_plus_two", f"--model_base_path={HALF_PLUS_TWO}", "--grpc_max_threads=4"]
    with ModelServer(*flags) as server, Adapter(tfs_grpc=server.target, tfs_max_calls=4) as adapter:
        adapter.ready()

        def client(number: int) -> Counter[tuple[int, bool]]:
            answers: Counter[tuple[int, bool]] = Counter()
            for value in range(20):
                x = number * 100.0 + value
                answer = adapter.predict("half_plus_two", {"instances": [x]})
                answers[answer.status, answer.json == {"predictions": [x / 2 + 2.5]}] += 1
            return answers

        with ThreadPoolExecutor(64) as pool:
            assert sum(pool.map(client, range(64)), Counter()) == {(200, True): 64 * 20}


def test_more_calls_than_tensorflow_serving_takes_are_tried_again_not_refused() -> None:
    """The bound is set too high on purpose: 16 where the server takes 2."""
    flags = ["--model_name=half_plus_two", f"--model_base_path={HALF_PLUS_TWO}", "--grpc_max_threads=2"]
    with ModelServer(*flags) as server, Adapter(tfs_grpc=server.target, tfs_max_calls=16) as adapter:
        adapter.ready()

        def ask(_: int) -> Answer:
            return adapter.predict("half_plus_two", {"instances": [1.0]})

        with ThreadPoolExecutor(16) as pool:
            statuses = Counter(answer.status for answer in pool.map(ask, range(300)))
        assert set(statuses) <= {200, 429}
        assert statuses[200] > 290


def test_a_client_that_leaves_takes_its_call_along(slow_server: ModelServer) -> None:
    body = json.dumps({"signature_name": "slow", "instances": [2000.0]}).encode()
    head = f"POST /v1/models/multi:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with Adapter(tfs_grpc=slow_server.target, tfs_max_calls=2) as adapter:
        adapter.ready()
        with socket.create_connection(("127.0.0.1", adapter.port)) as leaving:
            leaving.sendall(head + body)
            while b"\nhttp_server_active_requests 2.0\n" not in adapter.request("GET", "/metrics").body:
                pass
        # The one place for predictions is free again although the model still computes.
        record = adapter.wait_for(lambda record: record["attributes"].get("http.response.status_code") == 499)
        assert record["attributes"]["http.route"] == "/v1/models/{model}:predict"
        assert adapter.predict("multi", {"signature_name": "scalar_in", "inputs": 3}).json == {"outputs": 6.0}


def test_a_queue_that_is_full_is_503_with_when_to_retry(slow_server: ModelServer) -> None:
    slow = {"signature_name": "slow", "instances": [800.0]}
    with Adapter(tfs_grpc=slow_server.target, tfs_max_calls=2, max_queue=2) as adapter, ThreadPoolExecutor(8) as pool:
        adapter.ready()
        assert adapter.predict("multi", {"signature_name": "scalar_in", "inputs": 3}).status == 200
        answers = list(pool.map(lambda _: adapter.predict("multi", slow), range(8)))
    statuses = Counter(answer.status for answer in answers)
    assert statuses[200] >= 3
    assert statuses[503] >= 1
    assert set(statuses) == {200, 503}
    refused = next(answer for answer in answers if answer.status == 503)
    assert int(refused.headers["retry-after"]) > 0
    assert "waiting" in refused.json["error"]


@pytest.mark.parametrize("enabled", [True, False])
def test_cross_origin_headers_are_sent_where_they_are_asked_for(enabled: bool, slow_server: ModelServer) -> None:
    with Adapter(tfs_grpc=slow_server.target, cors=str(enabled).lower()) as adapter:
        adapter.ready()
        answers = [
            adapter.request(method, path, body, {"Origin": "http://example.com"})
            for method, path, body in (
                ("GET", "/v1/models/multi", None),
                ("POST", "/v1/models/nope:predict", '{"instances": [1]}'),
                ("POST", "/v1/models/multi:predict", "{"),
                ("GET", "/v1/nope", None),
                ("OPTIONS", "/v1/models/multi:predict", None),
            )
        ]
        with socket.create_connection(("127.0.0.1", adapter.port), timeout=10) as connection:
            connection.sendall(b"GET /v1/models/multi HTTP/1.1\r\n\r\n")  # without Host: no handler sees it
            unread = connection.recv(65536)
        assert [answer.status for answer in answers] == [200, 404, 400, 400, 200]
        expected = ("*", "POST, GET", "Content-Type") if enabled else (None, None, None)
        names = ("origin", "methods", "headers")
        for answer in answers:
            assert tuple(answer.headers.get(f"access-control-allow-{name}") for name in names) == expected
        assert unread.startswith(b"HTTP/1.1 400")
        assert (b"\r\nAccess-Control-Allow-Origin: *\r\n" in unread) == enabled
        assert "access-control-allow-origin" not in adapter.request("GET", "/nope").headers
