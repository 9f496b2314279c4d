"""The table of failures: gRPC status → HTTP status → body."""

import json

import grpc
import pytest

from adapter.errors import HTTP_STATUS, CallFailed, Refused, problem, tfs_envelope


def test_every_grpc_status_has_an_http_status() -> None:
    assert set(HTTP_STATUS) == set(grpc.StatusCode)


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED])
def test_what_may_succeed_later_says_when_to_retry(code: grpc.StatusCode) -> None:
    assert CallFailed(code, "full").headers["Retry-After"] == "1"


def test_what_will_not_succeed_later_does_not() -> None:
    assert "Retry-After" not in CallFailed(grpc.StatusCode.INVALID_ARGUMENT, "bad").headers
    assert Refused(404, "no").headers == {}


def test_bodies_are_tfs_envelope_and_rfc_9457() -> None:
    assert json.loads(tfs_envelope('say "no"')) == {"error": 'say "no"'}
    assert json.loads(problem(404, "No such resource")) == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "No such resource",
    }
    assert json.loads(problem(499, "gone"))["title"] == "Client Closed Request"
