"""TensorFlow's Status as an exception: a canonical code and a message.

The codes are gRPC's own, so that a service hands them on unchanged (S: tensorflow_serving/util/status_util.cc, `ToGRPCStatus`).
"""

import grpc

Code = grpc.StatusCode
_BY_NUMBER = {code.value[0]: code for code in Code}


class StatusError(Exception):
    """A failed call; prints as TensorFlow's `Status::ToString` does: `NOT_FOUND: no such thing`."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}"


def from_number(code: int, message: str) -> StatusError:
    return StatusError(_BY_NUMBER.get(code, Code.UNKNOWN), message)


def invalid_argument(message: str) -> StatusError:
    return StatusError(Code.INVALID_ARGUMENT, message)
