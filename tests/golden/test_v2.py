"""`/v2` is the Open Inference Protocol: the running adapter before a model server, as its published clients see it."""

import gzip
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.adapters import Adapter, Answer, event
from tests.environments import environment
from tests.golden.conftest import DATA, relocated
from tests.servers import ModelServer

HERE = Path(__file__).parent
HEADER_LENGTH = "Inference-Header-Content-Length"


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adapter]:
    """An adapter before the recorded models and `echo`."""
    home = tmp_path_factory.mktemp("v2")
    subprocess.run([sys.executable, HERE / "echo_model.py", home / "echo"], check=True, capture_output=True)
    config = home / "models.config"
    echo = f'config {{ name: "echo" base_path: "{home / "echo"}" model_platform: "tensorflow" }}'
    recorded = relocated((DATA / "models.config").read_text()).rstrip().removesuffix("}")
    config.write_text(f"{recorded}{echo} }}")
    flags = [
        f"--model_config_file={config}",
        "--allow_version_labels_for_unavailable_models=true",
        "--grpc_max_threads=8",
    ]
    with ModelServer(*flags) as server, Adapter(tfs_grpc=server.target, tfs_max_calls=8) as running:
        yield running.ready()


def test_its_published_clients_get_what_they_ask_for(adapter: Adapter) -> None:
    pytest_alone = ["-m", "pytest", "-q", "--noconftest", "-c", os.devnull, "-p", "no:cacheprovider"]
    clients = subprocess.run(
        [environment("clients"), *pytest_alone, HERE / "v2_clients.py"],
        env={**os.environ, "V2_ADDRESS": f"127.0.0.1:{adapter.port}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert clients.returncode == 0, clients.stdout + clients.stderr


def test_an_output_of_a_type_without_json_is_400_on_v1_and_v2(adapter: Adapter) -> None:
    said = "Failed to write JSON value for tensor type: quint8"
    answer = adapter.predict("echo", {"signature_name": "QUINT8", "instances": [1, 2]})
    assert (answer.status, answer.json) == (400, {"error": said})
    answer = adapter.predict("echo", {"signature_name": "QUINT8", "inputs": []})
    assert (answer.status, answer.json) == (200, {"outputs": []})  # as no value is written
    inputs = [{"name": "x", "shape": [2], "datatype": "UINT8", "data": [1, 2]}]
    body = {"inputs": inputs, "parameters": {"signature_name": "QUINT8"}}
    answer = infer(adapter, "echo", body)
    assert (answer.status, answer.json["error"]) == (400, said)
    answer = infer(adapter, "echo", {**body, "outputs": [{"name": "y"}]})
    assert answer.status == 400, answer.body
    assert adapter.request("GET", "/v2/models/echo").status == 200


def x(data: list[Any], **members: Any) -> dict[str, Any]:
    """A request to half_plus_two."""
    return {"inputs": [{"name": "x", "shape": [len(data)], "datatype": "FP32", "data": data}], **members}


def infer(adapter: Adapter, model: str, body: object, headers: dict[str, str] | None = None) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body)
    return adapter.request("POST", f"/v2/models/{model}/infer", content, headers)


def test_an_answer_names_the_version_that_gave_it_and_echoes_the_id(adapter: Adapter) -> None:
    answer = infer(adapter, "half_plus_two/versions/1", x([1, 2, 5], id="42"))
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json == {
        "model_name": "half_plus_two",
        "model_version": "1",
        "id": "42",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [3], "data": [2.5, 3.0, 4.5]}],
    }


def test_binary_data_follows_the_json_both_ways(adapter: Adapter) -> None:
    tensor = {"name": "x", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    answer = infer(adapter, "half_plus_two", head + struct.pack("<2f", 1, 2), {HEADER_LENGTH: str(len(head))})
    assert (answer.status, answer.headers["content-type"]) == (200, "application/octet-stream")
    length = int(answer.headers[HEADER_LENGTH.lower()])
    assert json.loads(answer.body[:length])["outputs"] == [
        {"name": "y", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}}
    ]
    assert struct.unpack("<2f", answer.body[length:]) == (3.0, 3.5)


def test_bytes_alone_are_a_request_to_a_model_of_one_input(adapter: Adapter) -> None:
    for body in (struct.pack("<2f", 1, 2), struct.pack("<30000f", *range(30_000))):
        answer = infer(
            adapter, "half_plus_two/versions/1", body, {HEADER_LENGTH: "0", "Content-Type": "application/octet-stream"}
        )
        assert (answer.status, answer.headers["content-type"]) == (200, "application/octet-stream")
        length = int(answer.headers[HEADER_LENGTH.lower()])
        (output,) = json.loads(answer.body[:length])["outputs"]
        assert output["shape"] == [len(body) // 4]
        assert answer.body[length:][:8] == struct.pack(
            "<2f", *(value / 2 + 2 for value in struct.unpack("<2f", body[:8]))
        )
    several = infer(adapter, "multi", b"abcd", {HEADER_LENGTH: "0"})
    assert several.status == 400
    assert "bytes alone are for a model of one input" in several.json["error"]


def test_a_signature_that_is_not_there_is_answered_with_those_that_are(adapter: Adapter) -> None:
    message = infer(adapter, "multi", x([1], parameters={"signature_name": "z"})).json["error"]
    named = message.removeprefix('Serving signature name: "z" not found in signature def, which has ').split(", ")
    assert '"matrix"' in named
    assert not [name for name in named if "saved_model" in name]


def test_a_large_image_in_json_comes_back_whole(adapter: Adapter) -> None:
    values = [index / 8 for index in range(150_528)]
    for data in (values, [values[:75_264], values[75_264:]]):
        shape = [2, 75_264]
        tensor = {"name": "x", "shape": shape, "datatype": "FP32", "data": data}
        answer = infer(adapter, "echo", {"inputs": [tensor]})
        assert answer.json["outputs"] == [{"name": "y", "datatype": "FP32", "shape": shape, "data": values}]


def test_an_answer_is_compressed_only_for_who_asks_for_one_coding(
    adapter: Adapter,
) -> None:
    body = gzip.compress(json.dumps(x([1.0] * 1000)).encode())
    for accepted, coding in (("gzip", "gzip"), ("gzip, deflate, br", None)):
        answer = infer(adapter, "half_plus_two", body, {"Content-Encoding": "gzip", "Accept-Encoding": accepted})
        assert answer.headers.get("content-encoding") == coding
        content = gzip.decompress(answer.body) if coding else answer.body
        assert json.loads(content)["outputs"][0]["data"] == [3.0] * 1000


def test_numbers_that_json_does_not_have_are_strings(adapter: Adapter) -> None:
    answer = infer(adapter, "multi", x([1, -1, 0], parameters={"signature_name": "nonfinite"}))
    assert answer.json["outputs"][0]["data"] == ["Infinity", "-Infinity", "NaN"]


REFUSED = [
    ("half_plus_two", b"", 400, "The body: expected JSON, "),
    ("half_plus_two", x([1, 2], outputs=[{"name": "z"}]), 400, 'outputs[0] "z": signature "serving_default" has no such'),
    ("half_plus_two", x(["a"]), 400, 'inputs[0] "x": data[0]: expected a number (FP32), got "a"'),
    ("half_plus_two", x([1], parameters={"signature_name": "z"}), 400, 'Serving signature name: "z" not found in signature def'),
    ("half_plus_two/versions/9", x([1]), 404, "Servable not found for request: Specific(half_plus_two, 9)"),
    ("half_plus_two/versions/a", x([1]), 400, "Version: expected a number "),
    ("nope", x([1]), 404, "Servable not found for request: Latest(nope)"),
    ("multi", x([-1], parameters={"signature_name": "assert_pos"}), 400, "assertion failed"),
    ("echo", x([1], parameters={"signature_name": "COMPLEX"}), 400, 'outputs[0] "y": complex64 is no datatype of this protocol'),
]  # fmt: skip


@pytest.mark.parametrize(("model", "body", "status", "message"), REFUSED, ids=[message[:50] for *_, message in REFUSED])
def test_a_failure_is_a_problem_document_with_the_error_that_clients_show(
    adapter: Adapter, model: str, body: object, status: int, message: str
) -> None:
    answer = infer(adapter, model, body)
    assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.json["status"] == status
    assert message in answer.json["detail"]
    assert answer.json["error"] == answer.json["detail"]


def test_what_is_not_there_is_404_and_what_is_not_offered_405(adapter: Adapter) -> None:
    assert adapter.request("GET", "/v2/repository/index").status == 404
    assert adapter.request("GET", "/v2/models/half_plus_two/infer").headers["allow"] == "POST"
    assert adapter.request("POST", "/v2/models/half_plus_two").headers["allow"] == "GET, HEAD"
    answer = adapter.request("DELETE", "/v2")
    assert (answer.status, answer.json["error"]) == (405, "DELETE is not offered here, only GET, HEAD")


def test_a_query_is_ignored_and_head_answers_as_get_does(adapter: Adapter) -> None:
    assert adapter.request("GET", "/v2?verbose=1").json == adapter.request("GET", "/v2").json
    for path in ("/v2", "/v2/", "/v2/health/live", "/v2/health/ready", "/v2/models/echo", "/v2/models/echo/ready"):
        got, head = adapter.request("GET", path), adapter.request("HEAD", path)
        assert (head.status, head.headers["content-length"]) == (200, str(len(got.body)))
        assert head.body == b""


def test_a_client_s_deadline_holds(adapter: Adapter) -> None:
    slow = x([1e5], parameters={"signature_name": "slow"})
    answer = infer(adapter, "multi", slow, {"X-Request-Timeout": "0.05"})
    assert answer.status == 504


def test_the_access_record_names_the_route_not_the_model(adapter: Adapter) -> None:
    infer(adapter, "half_plus_two/versions/1", x([1]), {"X-Request-Id": "one-version"})

    def is_its(record: dict[str, Any]) -> bool:
        return event("http.access")(record) and record["attributes"]["http.request.id"] == "one-version"

    record = adapter.wait_for(is_its)["attributes"]
    assert record["http.route"] == "/v2/models/{model}/versions/{version}/infer"
    assert (record["tandem.model"], record["tandem.model_version"]) == ("half_plus_two", 1)


def test_without_tensorflow_serving_it_lives_and_is_not_ready(tmp_path: Path) -> None:
    with Adapter(tfs_grpc=f"unix://{tmp_path}/nobody.sock", request_timeout=1) as alone:
        assert alone.request("GET", "/v2/health/live").json == {"live": True}
        answer = alone.request("GET", "/v2/health/ready")
        assert (answer.status, answer.json) == (503, {"ready": False})
        assert alone.request("GET", "/v2/models/echo/ready").status == 503
        assert infer(alone, "echo", x([1])).status == 503
