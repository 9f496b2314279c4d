"""What the running service answers is what the document says: status, headers, content type and body."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adapters import Adapter
from tests.contract.document import contract
from tests.golden.conftest import DATA
from tests.servers import ModelServer

MODELS = DATA / "models"
INFER = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [1.0, 2.0]}]}
SERVED = [
    ("GET", "/health", "", 200),
    ("GET", "/health/live", "", 200),
    ("GET", "/health/ready", "", 200),
    ("GET", "/health/startup", "", 200),
    ("GET", "/metrics", "", 200),
    ("GET", "/openapi.json", "", 200),
    ("GET", "/docs", "", 200),
    ("GET", "/docs/swagger-ui.css", "", 200),
    ("GET", "/changes", "", 200),
    ("GET", "/changes?limit=1", "", 200),
    ("GET", "/changes/current", "", 200),
    ("GET", "/v1/models/half_plus_two", "", 200),
    ("GET", "/v1/models/half_plus_two/versions/1", "", 200),
    ("GET", "/v1/models/half_plus_two/labels/any", "", 200),
    ("GET", "/v1/models/half_plus_two/metadata", "", 200),
    ("GET", "/v1/models/half_plus_two/versions/1/metadata", "", 200),
    ("POST", "/v1/models/half_plus_two:predict", '{"instances": [1.0, 2.0]}', 200),
    ("POST", "/v1/models/half_plus_two/versions/1:predict", '{"inputs": {"x": [1.0, 2.0]}}', 200),
    ("GET", "/v2", "", 200),
    ("GET", "/v2/health/live", "", 200),
    ("GET", "/v2/health/ready", "", 200),
    ("GET", "/v2/models/half_plus_two", "", 200),
    ("GET", "/v2/models/half_plus_two/versions/1", "", 200),
    ("GET", "/v2/models/half_plus_two/ready", "", 200),
    ("GET", "/v2/models/half_plus_two/versions/1/ready", "", 200),
    ("POST", "/v2/models/half_plus_two/infer", json.dumps(INFER), 200),
    ("POST", "/v2/models/half_plus_two/versions/1/infer", json.dumps(INFER | {"id": "a"}), 200),
    ("POST", "/v2/models/half_plus_two/infer", json.dumps(INFER | {"parameters": {"binary_data_output": True}}), 200),
]
REFUSED = [
    ("POST", "/health", "", 405),
    ("POST", "/shutdown", '{"grace_seconds": -1}', 400),
    ("POST", "/shutdown", '{"when": "now"}', 400),
    ("GET", "/changes?limit=0", "", 400),
    ("GET", "/changes?limit=101", "", 400),
    ("GET", "/changes?limit=one", "", 400),
    ("GET", "/changes?after=never", "", 400),
    ("GET", "/changes?before=now", "", 400),
    ("GET", "/v1/models/nope", "", 404),
    ("GET", "/v1/models/half_plus_two/versions/99", "", 404),
    ("GET", "/v1/models/half_plus_two/labels/any/metadata", "", 400),
    ("POST", "/v1/models/nope:predict", '{"instances": [1.0]}', 404),
    ("POST", "/v1/models/half_plus_two:predict", "{}", 400),
    ("POST", "/v1/models/half_plus_two:predict", '{"instances": ["' + "a" * 2048 + '"]}', 413),
    ("POST", "/v1/models/half_plus_two/labels/any:predict", '{"instances": [1.0]}', 400),
    ("POST", "/v2", "", 405),
    ("GET", "/v2/models/nope", "", 404),
    ("GET", "/v2/models/nope/ready", "", 404),
    ("POST", "/v2/models/half_plus_two/infer", '{"inputs": []}', 400),
    ("POST", "/v2/models/half_plus_two/infer", " " * 2048, 413),
]


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adapter]:
    """A bundle of half_plus_two, served."""
    top = tmp_path_factory.mktemp("bundle")
    model = top / "models" / "half_plus_two"
    model.mkdir(parents=True)
    (model / "1").symlink_to(MODELS / "half_plus_two" / "1")
    (top / "bundle.toml").write_text(
        'name = "halves"\nversion = "1.2.3"\n[[models]]\nname = "half_plus_two"\nversion = 1\n'
    )
    flags = ["--model_name=half_plus_two", f"--model_base_path={model}", "--grpc_max_threads=8"]
    with ModelServer(*flags) as server, Adapter(bundle=top, tfs_grpc=server.target, max_body=1024) as running:
        yield running.ready()


@pytest.mark.parametrize(("method", "path", "body", "status"), SERVED, ids=lambda value: value or "-")
def test_what_is_served_is_as_documented(method: str, path: str, body: str, status: int, adapter: Adapter) -> None:
    answer = adapter.request(method, path, body or None)
    assert answer.status == status
    assert contract().answer_errors(method, path, answer) == []
    assert answer.headers["x-bundle"] == "halves@1.2.3"


@pytest.mark.parametrize(("method", "path", "body", "status"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_is_refused_is_as_documented(method: str, path: str, body: str, status: int, adapter: Adapter) -> None:
    answer = adapter.request(method, path, body or None)
    assert answer.status == status
    documented_as = "GET" if status == 405 else method
    assert contract().answer_errors(documented_as, path, answer) == []
    assert ("allow" in answer.headers) == (status == 405)


def test_openmetrics_is_as_documented(adapter: Adapter) -> None:
    answer = adapter.request("GET", "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert contract().answer_errors("GET", "/metrics", answer) == []


@pytest.mark.parametrize(
    "header", [{"X-Request-Timeout": "0"}, {"X-Request-Timeout": "soon"}, {"grpc-timeout": "5"}], ids=str
)
def test_a_deadline_that_cannot_be_read_is_refused_as_documented(header: dict[str, str], adapter: Adapter) -> None:
    answer = adapter.request("GET", "/v1/models/half_plus_two", headers=header)
    assert answer.status == 400
    assert contract().answer_errors("GET", "/v1/models/half_plus_two", answer) == []


def test_a_service_without_its_model_answers_as_documented(tmp_path: Path) -> None:
    with Adapter(tfs_grpc=f"unix://{tmp_path}/nobody.sock") as alone:
        for path in ("/health", "/health/ready", "/health/startup"):
            answer = alone.request("GET", path)
            assert answer.status == 503
            assert "retry-after" in answer.headers
            assert contract().answer_errors("GET", path, answer) == []
        answer = alone.request("GET", "/health/live")
        assert answer.status == 200
        assert contract().answer_errors("GET", "/health/live", answer) == []
        for path in ("/v1/models/half_plus_two", "/v2/models/half_plus_two", "/v2/models/half_plus_two/ready"):
            answer = alone.request("GET", path, headers={"X-Request-Timeout": "0.3"})
            assert answer.status in (503, 504)
            assert contract().answer_errors("GET", path, answer) == []
        answer = alone.request("GET", "/v2/health/ready")
        assert answer.status == 503
        assert "retry-after" in answer.headers
        assert contract().answer_errors("GET", "/v2/health/ready", answer) == []


@pytest.mark.parametrize("path", ["/v1/models/m", "/v2/models/m", "/health"])
def test_a_connection_too_many_is_refused_in_the_form_of_its_resource(path: str, tmp_path: Path) -> None:
    with (
        Adapter(tfs_grpc=f"unix://{tmp_path}/nobody.sock", max_connections=1) as full,
        contextlib.closing(full.connection()) as other,
    ):
        other.request("GET", "/health/live")
        other.getresponse().read()
        answer = full.request("GET", path)
        assert answer.status == 503
        assert answer.headers["connection"] == "close"
        assert contract().answer_errors("GET", path, answer) == []


def test_a_shutdown_is_answered_as_documented(tmp_path: Path) -> None:
    with Adapter(tfs_grpc=f"unix://{tmp_path}/nobody.sock") as leaving:
        answer = leaving.request("POST", "/shutdown", '{"grace_seconds": 1, "reason": "the test is over"}')
        assert answer.status == 202
        assert contract().answer_errors("POST", "/shutdown", answer) == []
        assert leaving.wait() == 0
