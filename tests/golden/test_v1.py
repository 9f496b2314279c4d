"""`/v1` is TensorFlow Serving's own REST API: every recorded request gets the recorded status, and the same values."""

import base64
import contextlib
import json
import math
from collections.abc import Iterator
from typing import Any

import pytest

from tests.adapters import Adapter, Answer
from tests.golden.conftest import DATA
from tests.servers import ModelServer

# /v2 is served here and was not there.
CASES = [case for case in json.loads((DATA / "rest_cases.json").read_text()) if case["id"] != "v2"]

# Off /v1, where TensorFlow Serving has libevent's own pages, the contract's problem documents stand.
OURS = {"root", "v1", "options_root", "metrics_query"}
# Refused there, answered here (docs/differences.md): half as an output.
ANSWERED = {"predict_half_out": {"predictions": [1.0]}}


def content(body: Any) -> bytes:
    """A recorded body: text, bytes in base64, or none."""
    if isinstance(body, dict):
        return base64.b64decode(body["b64"])
    return (body or "").encode()


@pytest.fixture(scope="module")
def adapter(model_server: ModelServer) -> Iterator[Adapter]:
    with Adapter(tfs_grpc=model_server.target) as running:
        yield running.ready()


def answer_to(case: dict[str, Any], adapter: Adapter) -> Answer:
    request = case["request"]
    return adapter.request(request["method"], request["path"], content(request["body"]), request["headers"])


def same(ours: Any, theirs: Any) -> bool:
    """Equal JSON values; NaN equals NaN, and an integer is no float."""
    if isinstance(theirs, float):
        return isinstance(ours, float) and (ours == theirs or (math.isnan(ours) and math.isnan(theirs)))
    if isinstance(theirs, list):
        return isinstance(ours, list) and len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(theirs, dict):
        return isinstance(ours, dict) and ours.keys() == theirs.keys() and all(same(ours[k], theirs[k]) for k in theirs)
    return type(ours) is type(theirs) and ours == theirs


@pytest.mark.parametrize(
    "case", [case for case in CASES if case["id"] not in OURS | ANSWERED.keys()], ids=lambda case: case["id"]
)
def test_a_recorded_request_gets_the_recorded_status_and_values(case: dict[str, Any], adapter: Adapter) -> None:
    status = int(case["response"]["status_line"].split()[1])
    body = content(case["response"]["body"])
    answer = answer_to(case, adapter)
    assert answer.status == status, answer.body
    if case["request"]["method"] == "HEAD":
        assert answer.body == b""
    elif status == 200 and body:
        assert answer.headers["content-type"] == "application/json"
        assert same(answer.json, json.loads(body.decode("utf-8", "replace"))), answer.body
    elif status != 200 and case["request"]["method"] != "OPTIONS":
        assert list(answer.json) == ["error"]
        assert answer.json["error"]


@pytest.mark.parametrize("case", [case for case in CASES if case["id"] in OURS], ids=lambda case: case["id"])
def test_off_v1_errors_are_problem_documents(case: dict[str, Any], adapter: Adapter) -> None:
    answer = answer_to(case, adapter)
    assert answer.status == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["status"] == 404


@pytest.mark.parametrize("case", [case for case in CASES if case["id"] in ANSWERED], ids=lambda case: case["id"])
def test_what_tensorflow_serving_refuses_and_this_answers(case: dict[str, Any], adapter: Adapter) -> None:
    answer = answer_to(case, adapter)
    assert answer.status == 200, answer.body
    assert answer.json == ANSWERED[case["id"]]


@pytest.mark.parametrize(
    "name",
    [
        "foo%zz",
        "half%",
        "%",
        "%2",
        "%g0",
        "a|b",
        "a{b}",
        'a"b',
        "a<b>",
        "a[0]",
        "a^b",
        "a`b",
        "a\\b",
        "m?q=|",
        "m#%",
        "m##",
    ],
)
def test_a_path_that_is_no_url_is_400(adapter: Adapter, name: str) -> None:
    headers = {"Origin": "http://example.com"}
    for method, path in (
        ("GET", f"/v1/models/{name}"),
        ("POST", f"/v1/models/{name}:predict"),
        ("OPTIONS", f"/v1/models/{name}"),
    ):
        answer = adapter.request(method, path, '{"instances": [1.0]}' if method == "POST" else None, headers)
        assert answer.status == 400, answer.body
        assert "URL" in answer.json["error"]


@pytest.mark.parametrize(
    ("features", "result"),
    [
        ('{"x": 1.0, "x": 3.0}', 3.5),
        ('{"x": "x", "x": 3.0}', 3.5),
        ('{"x": 3.0, "x": "x"}', None),
        ('{"x": null, "x": 3.0}', None),
    ],
)
@pytest.mark.parametrize("size", [0, 1 << 17], ids=["small", "large"])
def test_the_last_of_a_feature_given_twice_counts(
    adapter: Adapter, features: str, result: float | None, size: int
) -> None:
    body = f'{{"signature_name": "regress_x_to_y", {" " * size}"examples": [{features}]}}'
    answer = adapter.request("POST", "/v1/models/examples:regress", body)
    assert (answer.status, answer.json.get("results")) == ((400, None) if result is None else (200, [result]))


@pytest.mark.parametrize("path", ["METADATA", "Metadata", "versions/1/MetaData", "labels/stable/METADATA"])
def test_metadata_in_other_than_lower_case_is_the_status(adapter: Adapter, path: str) -> None:
    answer = adapter.request("GET", f"/v1/models/half_plus_two/{path}")
    assert answer.status == 200
    assert list(answer.json) == ["model_version_status"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "half_plus_two?x=SECRET", 404),
        ("GET", "half_plus_two?", 404),
        ("GET", "half_plus_two#SECRET", 404),
        ("GET", "half_plus_two?x=SECRET/metadata", 404),
        ("GET", "half_plus_two?x=SECRET/versions/1", 404),
        ("GET", "half_plus_two/labels/stable?x=SECRET", 200),  # a status reads no label
        ("GET", "half_plus_two/labels/stable?x=SECRET/metadata", 400),
        ("GET", "half_plus_two/labels/stable#SECRET/metadata", 400),
        ("GET", "?x=SECRET", 404),
        ("GET", "half_plus_two/metadata?x=SECRET", 400),
        ("GET", "half_plus_two/versions/1?x=SECRET", 400),
        ("GET", "half_plus_two/versions/1/metadata#SECRET", 400),
        ("GET", "half_plus_two?x=SECRET/more", 400),
        ("GET", "half_plus_two?x:SECRET", 400),
        ("POST", "half_plus_two:predict?x=SECRET", 400),
        ("POST", "half_plus_two:predict#SECRET", 400),
        ("POST", "half_plus_two?x=SECRET:predict", 404),
        ("POST", "half_plus_two/labels/stable?x=SECRET:predict", 400),
        ("POST", "half_plus_two/versions/1?x=SECRET:predict", 400),
        ("POST", "examples?x=SECRET:regress", 404),
    ],
)
def test_a_query_is_what_the_path_makes_of_it_and_is_told_to_nobody(
    adapter: Adapter, method: str, path: str, status: int
) -> None:
    before = len(adapter.records)
    body = '{"instances": [1.0], "examples": [{"x": 1.0}]}' if method == "POST" else None
    answer = adapter.request(method, f"/v1/models/{path}", body)
    assert answer.status == status, answer.body
    identity = answer.headers["x-request-id"]
    adapter.wait_for(lambda record: record["attributes"].get("http.request.id") == identity, after=before)
    assert "SECRET" not in answer.body.decode() + json.dumps(adapter.records[before:])


def test_every_character_that_a_url_has_may_stand_in_the_name_of_a_model(adapter: Adapter) -> None:
    answer = adapter.request("GET", "/v1/models/a-._~!$&'()*+,;=@%20%2F%3a%e2%82%ac")
    assert (answer.status, answer.json) == (
        404,
        {"error": "Could not find any versions of model a-._~!$&'()*+,;=@ /:€"},
    )


@pytest.mark.parametrize(("lines", "coding"), [(["gzip"], "gzip"), (["gzip", "br"], None), (["gzip, br"], None)])
def test_an_answer_is_compressed_for_who_accepts_one_coding(
    adapter: Adapter, lines: list[str], coding: str | None
) -> None:
    body = json.dumps({"instances": [0.5] * 2000}).encode()
    connection = adapter.connection()
    with contextlib.closing(connection):
        connection.putrequest("POST", "/v1/models/half_plus_two:predict", skip_accept_encoding=True)
        for line in lines:
            connection.putheader("Accept-Encoding", line)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        assert response.read()
        assert response.getheader("Content-Encoding") == coding


def test_a_preference_writes_non_finite_numbers_as_valid_json(adapter: Adapter) -> None:
    body = '{"signature_name": "nonfinite", "inputs": [1, -1, 0]}'
    for preference, values in (("null", [None] * 3), ("string", ["Infinity", "-Infinity", "NaN"])):
        answer = adapter.request("POST", "/v1/models/multi:predict", body, {"Prefer": f"nonfinite={preference}"})
        assert answer.json == {"outputs": values}
        assert answer.headers["preference-applied"] == f"nonfinite={preference}"
    answer = adapter.request("POST", "/v1/models/multi:predict", body)
    assert answer.body == b'{"outputs":[Infinity,-Infinity,NaN]}'
    answer = adapter.request("POST", "/v1/models/multi:predict", body, {"Prefer": "nonfinite=zero"})
    assert answer.body == b'{"outputs":[Infinity,-Infinity,NaN]}'
    assert "preference-applied" not in answer.headers
