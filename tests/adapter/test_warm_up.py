"""The bundle's warm-up requests go the whole way before the group is ready, and again after TensorFlow Serving restarted."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adapters import Adapter, Record, event, state
from tests.servers import ModelServer

EXAMPLE = '[[examples]]\nname = "{name}"\npath = "{path}"\nrequest = "{name}.json"\nwarmup = {warmup}\n'
PREDICT = "/v1/models/half_plus_two:predict"


def add_example(bundle: Path, name: str, body: object, path: str = PREDICT, warmup: str = "true") -> None:
    (bundle / f"{name}.json").write_text(json.dumps(body))
    with (bundle / "bundle.toml").open("a") as manifest:
        manifest.write(EXAMPLE.format(name=name, path=path, warmup=warmup))


@pytest.fixture
def warmed(server: ModelServer, bundle: Path) -> Iterator[Adapter]:
    add_example(bundle, "one", {"instances": [1.0]})
    add_example(bundle, "two", {"inputs": [1.0, 2.0]})
    add_example(bundle, "golden", {"instances": [3.0]}, warmup="false")
    with Adapter(tfs_grpc=server.target, bundle=bundle) as running:
        yield running.ready()


def predictions(adapter: Adapter) -> list[Record]:
    return [r for r in adapter.records if event("http.access")(r) and r["attributes"]["http.route"].startswith("/v1")]


def test_each_request_is_answered_before_ready_and_recorded_like_any_other(warmed: Adapter) -> None:
    passed = [r["attributes"]["to"] for r in warmed.records if event("tandem.state")(r)]
    assert passed[-2:] == ["warming", "ready"]
    assert [record["attributes"]["http.response.status_code"] for record in predictions(warmed)] == [200, 200]
    assert warmed.request("GET", "/health").json["checks"]["warm-up"]["reason"] == "2 requests answered"


def test_a_model_server_that_comes_back_is_warmed_before_the_group_is_ready_again(
    warmed: Adapter, server: ModelServer
) -> None:
    server.kill(signal.SIGKILL)
    warmed.wait_for(state("degraded"))
    seen = len(warmed.records)
    server.start()
    warmed.wait_for(state("ready"), after=seen)
    warmed.wait_for(lambda _: len(predictions(warmed)) == 4)


def test_a_failing_warm_up_keeps_it_unready_and_names_the_request_and_its_answer(
    server: ModelServer, bundle: Path
) -> None:
    add_example(bundle, "wrong", {"instances": ["words"]})
    with Adapter(tfs_grpc=server.target, bundle=bundle) as adapter:
        adapter.wait_for(state("warming"))
        reason = ""
        while not reason.startswith("wrong: "):
            health = adapter.request("GET", "/health/ready")
            assert (health.status, health.json["state"]) == (503, "warming")
            reason = health.json["checks"]["warm-up"]["reason"]
        assert reason.startswith('wrong: POST /v1/models/half_plus_two:predict answered 400: {"error"')
        assert adapter.request("GET", "/health/live").status == 200


def test_it_needs_neither_a_token_nor_an_allowed_address(server: ModelServer, bundle: Path, tmp_path: Path) -> None:
    add_example(bundle, "one", {"instances": [1.0]})
    secret = tmp_path / "secret"
    secret.write_text("s" * 64)
    secret.chmod(0o600)
    given = {"tfs_grpc": server.target, "bundle": bundle, "jwt_secret_file": secret, "allow": "192.0.2.1/32"}
    with Adapter(**given) as adapter:
        adapter.ready()
        assert adapter.predict("half_plus_two", {"instances": [1.0]}).status == 403
