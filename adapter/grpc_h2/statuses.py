"""Which gRPC status a call has when the server did not say: tables of the protocol's documents.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, "Errors"
https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md
"""

from collections.abc import Mapping

from grpc import StatusCode

from adapter.grpc_h2 import frames

BY_NUMBER: Mapping[int, StatusCode] = {code.value[0]: code for code in StatusCode}

# An answer without grpc-status; 200, too, is UNKNOWN then.
_BY_HTTP: Mapping[int, StatusCode] = {
    400: StatusCode.INTERNAL,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.UNIMPLEMENTED,
    429: StatusCode.UNAVAILABLE,
    431: StatusCode.INTERNAL,
    502: StatusCode.UNAVAILABLE,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.UNAVAILABLE,
}

_BY_RESET: Mapping[int, StatusCode] = {
    frames.NO_ERROR: StatusCode.INTERNAL,
    frames.PROTOCOL_ERROR: StatusCode.INTERNAL,
    frames.INTERNAL_ERROR: StatusCode.INTERNAL,
    frames.FLOW_CONTROL_ERROR: StatusCode.INTERNAL,
    frames.SETTINGS_TIMEOUT: StatusCode.INTERNAL,
    frames.FRAME_SIZE_ERROR: StatusCode.INTERNAL,
    frames.REFUSED_STREAM: StatusCode.UNAVAILABLE,
    frames.CANCEL: StatusCode.CANCELLED,
    frames.COMPRESSION_ERROR: StatusCode.INTERNAL,
    frames.CONNECT_ERROR: StatusCode.INTERNAL,
    frames.ENHANCE_YOUR_CALM: StatusCode.RESOURCE_EXHAUSTED,
    frames.INADEQUATE_SECURITY: StatusCode.PERMISSION_DENIED,
}


def of_http(status: int) -> StatusCode:
    """For an answer of this HTTP status that has no grpc-status."""
    return _BY_HTTP.get(status, StatusCode.UNKNOWN)


def of_reset(code: int) -> StatusCode:
    """For a stream that the server reset with this code."""
    return _BY_RESET.get(code, StatusCode.UNKNOWN)
