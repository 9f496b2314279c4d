"""What can go wrong with a request, and how it is told: one table from gRPC status to HTTP status to body.

    RequestFailed                 a request that gets an error answer; knows its HTTP status
    ├── Refused                   by us, before TensorFlow Serving saw it (4xx, 503 while unready)
    └── CallFailed                by TensorFlow Serving or on the way to it; keeps the gRPC status
    BadInput (inference/tensor)   a body that means no tensor: 400, raised by the codecs, which know no HTTP
    Unserved (inference/tensor)   an answer of a type that has no JSON: 400, as TensorFlow Serving's REST API has it

`/v1` answers with TensorFlow Serving's envelope, every other resource with problem JSON (RFC 9457).
"""

from collections.abc import Mapping
from http import HTTPStatus

import grpc
import orjson

# TFS model_servers/http_server.cc, ToHTTPStatusCode.
HTTP_STATUS: Mapping[grpc.StatusCode, int] = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DATA_LOSS: 500,
    grpc.StatusCode.UNAUTHENTICATED: 401,
}

_JSON = {"Content-Type": "application/json"}
_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Headers": "Content-Type",
}

# Statuses after which the same request may succeed elsewhere or later (RFC 9110 §10.2.3, RFC 6585 §4).
RETRYABLE = frozenset({429, 503})
RETRY_AFTER_SECONDS = 1


class RequestFailed(Exception):
    """A request that is answered with `status` and `message`, plus `headers` of its own."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers: dict[str, str] = dict(headers or {})
        if status in RETRYABLE:
            self.headers.setdefault("Retry-After", str(RETRY_AFTER_SECONDS))


class Refused(RequestFailed):
    """Ours to say: the request never reached TensorFlow Serving."""


class CallFailed(RequestFailed):
    """TensorFlow Serving's status, or the channel's when it could not be reached."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(HTTP_STATUS.get(code, 500), details)
        self.code = code


def too_late() -> CallFailed:
    """A deadline passed on our side of the call; in the words of gRPC's own."""
    return CallFailed(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline exceeded")


def no_such_method() -> Refused:
    """A method that TensorFlow Serving does not allow: libevent answers for it (http.c, HTTP_NOTIMPLEMENTED)."""
    return Refused(501, "Method not implemented: under /v1 there are GET and POST, in upper case")


def tfs_envelope(message: str) -> bytes:
    """The body of an error on `/v1`: `{"error": message}` (TFS util/json_tensor.cc, MakeJsonFromStatus)."""
    return orjson.dumps({"error": message})


def tfs_headers(cors: bool) -> Mapping[str, str]:
    """What is on every JSON answer under `/v1`, also on errors (http_server.cc: the headers are set before the work begins)."""
    return {**_JSON, **_CORS} if cors else _JSON


def problem(status: int, message: str, **extension: str) -> bytes:
    """The body of an error everywhere else: RFC 9457 problem details, `about:blank` type, with extension members."""
    try:
        title = HTTPStatus(status).phrase
    except ValueError:
        title = "Client Closed Request" if status == 499 else "Error"
    return orjson.dumps({"type": "about:blank", "title": title, "status": status, "detail": message, **extension})
