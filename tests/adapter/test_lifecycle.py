"""The life of the two tasks as one, seen from outside: health, healing, drain. Real processes."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.adapters import Adapter, event, state
from tests.servers import ModelServer

X = {"instances": [1.0, 2.0, 5.0]}
Y = {"predictions": [2.5, 3.0, 4.5]}
# Long enough to be in flight when the drain begins, whatever the machine.
PREDICT = "/v1/models/{model}:predict"
SLOW = {"signature_name": "slow", "instances": [400.0]}


@pytest.fixture
def adapter(server: ModelServer, bundle: Path) -> Iterator[Adapter]:
    with Adapter(tfs_grpc=server.target, bundle=bundle) as running:
        yield running.ready()


def test_a_ready_group_says_so_with_every_check_and_its_reason(adapter: Adapter) -> None:
    answer = adapter.request("GET", "/health/ready")
    assert answer.status == 200
    assert answer.json["state"] == "ready"
    assert answer.json["checks"]["model:half_plus_two"]["reason"] == "version 1 is AVAILABLE"
    assert [t["to"] for t in answer.json["history"]][-1] == "ready"


def test_every_answer_names_the_bundle_and_the_request(adapter: Adapter) -> None:
    answer = adapter.request("GET", "/health/live", headers={"X-Request-Id": "mine-1"})
    assert answer.headers["x-bundle"] == "halves@1.2.3"
    assert answer.headers["x-request-id"] == "mine-1"
    other = adapter.request("GET", "/nope", headers={"X-Request-Id": "spaces are not accepted"})
    assert other.headers["x-request-id"] not in ("", "spaces are not accepted")


def test_without_tensorflow_serving_it_is_alive_but_unready_and_predict_says_when_to_retry(bundle: Path) -> None:
    with Adapter(tfs_grpc=f"unix://{bundle}/none.sock", bundle=bundle) as adapter:
        adapter.wait_for(event("tandem.start"))
        ready = adapter.request("GET", "/health/ready")
        assert ready.status == 503
        assert ready.json["state"] == "starting"
        predict = adapter.predict("half_plus_two", X)
        assert predict.status == 503
        assert int(predict.headers["retry-after"]) > 0
        assert list(predict.json) == ["error"]
        reason = adapter.request("GET", "/health").json["checks"]["tfs"]["reason"]
        assert "TensorFlow Serving cannot be reached" in reason
        assert adapter.request("GET", "/health/live").status == 200
        assert adapter.request("GET", "/health/startup").status == 503


def test_another_version_than_the_bundles_is_not_ready(server: ModelServer, bundle: Path) -> None:
    other = bundle / "models" / "half_plus_two" / "2"
    other.symlink_to(bundle / "models" / "half_plus_two" / "1")
    (bundle / "bundle.toml").write_text((bundle / "bundle.toml").read_text().replace("version = 1\n", "version = 2\n"))
    server.wait_for(r"Successfully loaded servable version \{name: half_plus_two version: 2\}")
    other.unlink()
    server.wait_for(r"Done unloading servable version \{name: half_plus_two version: 2\}")
    other.mkdir()
    (other / "saved_model.pb").touch()  # what the manifest lists is there; what is served is version 1
    with Adapter(tfs_grpc=server.target, bundle=bundle) as adapter:
        record = adapter.wait_for(state("loading"))
        assert "expected version 2 AVAILABLE, found version 1 AVAILABLE" in record["body"]
        assert adapter.request("GET", "/health/ready").status == 503


def test_when_tensorflow_serving_dies_the_group_is_unready_within_a_second_and_heals(
    adapter: Adapter, server: ModelServer
) -> None:
    server.kill(signal.SIGKILL)
    died = time.time()
    record = adapter.wait_for(state("degraded"))
    assert adapter.request("GET", "/health/ready").status == 503
    seen = adapter.request("GET", "/health").json["history"][-1]
    assert seen["to"] == "degraded"
    assert record["severity_text"] == "WARN"
    assert time.time() - died < 1.5  # the test's own requests included
    seen_after = len(adapter.records)
    server.start()
    adapter.wait_for(state("ready"), after=seen_after)
    assert adapter.predict("half_plus_two", X).json == Y


def test_when_tensorflow_serving_hangs_the_group_is_unready_by_deadline(adapter: Adapter, server: ModelServer) -> None:
    server.process.send_signal(signal.SIGSTOP)
    try:
        record = adapter.wait_for(state("degraded"))
        assert "does not answer within" in record["body"]
        answer = adapter.predict("half_plus_two", X)
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        seen = len(adapter.records)
    finally:
        server.process.send_signal(signal.SIGCONT)
    adapter.wait_for(state("ready"), after=seen)
    assert adapter.predict("half_plus_two", X).json == Y


def test_requests_in_flight_when_tensorflow_serving_dies_get_a_right_answer_or_503(
    adapter: Adapter, server: ModelServer
) -> None:
    done = threading.Event()

    def client() -> list[tuple[int, object, bool]]:
        answers = []
        while not done.is_set():
            answer = adapter.predict("half_plus_two", X)
            answers.append((answer.status, answer.json, "retry-after" in answer.headers))
        return answers

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(client) for _ in range(4)]
        server.kill(signal.SIGKILL)
        after = len(adapter.records)
        adapter.wait_for(state("degraded"))
        server.start()
        adapter.wait_for(state("ready"), after=after)
        done.set()
        answers = [answer for each in clients for answer in each.result()]
    assert {status for status, _, _ in answers} <= {200, 503}
    assert all(body == Y for status, body, _ in answers if status == 200)
    assert all(retry for status, _, retry in answers if status == 503)


def test_sigterm_finishes_what_is_in_flight_and_exits_0(slow_server: ModelServer) -> None:
    with Adapter(tfs_grpc=slow_server.target) as adapter, ThreadPoolExecutor(1) as pool:
        adapter.ready()
        in_flight = pool.submit(adapter.predict, "multi", SLOW)
        in_flight_now(adapter)
        status = adapter.stop(signal.SIGTERM)
        answer = in_flight.result()
        assert answer.status == 200
        assert answer.headers["connection"] == "close"
        assert status == 0
    assert [r["attributes"]["to"] for r in adapter.records if event("tandem.state")(r)][-2:] == ["draining", "stopped"]


def test_a_drain_is_unready_at_once_and_serves_on_while_others_hold_the_address(slow_server: ModelServer) -> None:
    with Adapter(tfs_grpc=slow_server.target, shutdown_delay=5) as adapter:
        adapter.ready()
        adapter.process.send_signal(signal.SIGTERM)
        adapter.wait_for(state("draining"))
        assert adapter.request("GET", "/health/ready").status == 503
        assert adapter.request("GET", "/health/live").status == 200
        served = adapter.predict("multi", {"signature_name": "scalar_in", "inputs": 3})
        assert served.json == {"outputs": 6.0}
        assert served.headers["connection"] == "close"
        assert adapter.stop(signal.SIGTERM) == 0  # the second signal: nothing was in flight, so nothing was cut off


def test_a_second_signal_cuts_requests_off_and_says_so(slow_server: ModelServer) -> None:
    long = {"signature_name": "slow", "instances": [2e4]}
    with Adapter(tfs_grpc=slow_server.target) as adapter, ThreadPoolExecutor(1) as pool:
        adapter.ready()
        in_flight = pool.submit(adapter.predict, "multi", long)
        in_flight_now(adapter)
        adapter.process.send_signal(signal.SIGTERM)
        adapter.wait_for(state("draining"))
        assert adapter.stop(signal.SIGTERM) == 1
        assert isinstance(in_flight.exception(), ConnectionError), in_flight.result()
        assert any(event("tandem.forced")(record) for record in adapter.records)
        cut_off = next(r["attributes"] for r in adapter.records if r["attributes"].get("http.route") == PREDICT)
    assert cut_off["http.response.status_code"] == 503  # its client did not leave, as 499 would say
    assert cut_off["error.message"] == "Cut off: the grace period is over"


def test_shutdown_by_post_drains_and_is_recorded_with_its_reason(slow_server: ModelServer) -> None:
    with Adapter(tfs_grpc=slow_server.target) as adapter:
        adapter.ready()
        answer = adapter.request("POST", "/shutdown", '{"grace_seconds": 3, "reason": "moving house"}')
        assert answer.status == 202
        assert adapter.wait() == 0
        assert adapter.wait_for(state("draining"))["body"] == "draining: moving house"


def test_a_shutdown_request_that_cannot_be_read_is_refused_by_field(slow_server: ModelServer) -> None:
    with Adapter(tfs_grpc=slow_server.target) as adapter:
        adapter.ready()
        for body, named in (
            ('{"grace_seconds": "soon"}', "grace_seconds"),
            ('{"grace_seconds": -1}', "grace_seconds"),
            ('{"grace": 1}', "grace"),
            ("{", ""),
        ):
            answer = adapter.request("POST", "/shutdown", body)
            assert answer.status == 400
            assert answer.headers["content-type"] == "application/problem+json"
            assert named in answer.json["detail"]
        assert adapter.request("GET", "/health/ready").status == 200


def in_flight_now(adapter: Adapter) -> None:
    """Until the adapter has a request other than this question in flight."""
    while b"\nhttp_server_active_requests 2.0\n" not in adapter.request("GET", "/metrics").body:
        pass


_STOPPED_AT = """
import os, signal, sys
from adapter.group import drain

class Finder:
    def find_spec(self, name, *_):
        if name == "{place}":
            os.kill(os.getpid(), signal.SIGTERM)

class Drain(drain.Drain):
    def __init__(self, grace):
        super().__init__(grace)
        if "{place}" == "Drain":
            os.kill(os.getpid(), signal.SIGTERM)

drain.Drain = Drain
sys.meta_path.insert(0, Finder())
from adapter.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize("place", ["adapter.settings", "uvloop", "Drain"])
def test_a_signal_while_it_still_starts_is_no_failure(place: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _STOPPED_AT.format(place=place)],
        env={**os.environ, "ADAPTER_HOST": "127.0.0.1", "ADAPTER_PORT": "0", "ADAPTER_TFS_GRPC": "127.0.0.1:1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert ("drain" in done.stdout) == (place == "Drain")
