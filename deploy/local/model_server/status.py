"""TensorFlow's Status as an exception: a canonical code (gRPC has the same ones) and a message."""

from grpc import StatusCode

_BY_NUMBER = {code.value[0]: code for code in StatusCode}


class StatusError(Exception):
    """A failed call; prints as TensorFlow's `Status::ToString` does: `NOT_FOUND: no such thing`."""

    def __init__(self, code: StatusCode | int, message: str) -> None:
        super().__init__(message)
        self.code = _BY_NUMBER.get(code, StatusCode.UNKNOWN) if isinstance(code, int) else code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}"


def require(condition: object, message: str, code: StatusCode = StatusCode.INVALID_ARGUMENT) -> None:
    if not condition:
        raise StatusError(code, message)
