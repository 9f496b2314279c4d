"""One call: what is left of its request to send, and what has come of its answer. Knows gRPC's framing, does no I/O."""

import asyncio
import struct

from grpc import StatusCode

from adapter.errors import CallFailed
from adapter.grpc_h2 import frames, statuses
from adapter.grpc_h2.headers import Head
from adapter.joining import Whole

# What TensorFlow Serving itself can send and take (server.cc): it fits one window.
MAX_MESSAGE = frames.MAX_WINDOW - 5
PREFIX = struct.Struct(">BI")
"""Before every message: whether it is compressed, and its length."""


class Stream:
    """`answer` is the answer's message, or CallFailed."""

    __slots__ = ("answer", "body", "deadline", "head", "id", "pieces", "prefix", "request_head", "sent", "size", "wanted",
                 "whole", "window")  # fmt: skip

    def __init__(self, request_head: bytes, body: bytes, deadline: float, answer: asyncio.Future[bytes]) -> None:
        self.request_head = request_head
        self.body: bytes | memoryview = body
        self.deadline = deadline
        self.answer = answer
        self.id = 0  # not opened yet
        # Sending: bytes of prefix and body that left, and the window that the server gives the stream.
        self.prefix = b""
        self.sent = -1  # nothing is left to send
        self.window = 0
        # Receiving: the headers, and the message, which has `wanted` bytes with its prefix: in pieces while that is not
        # known, or if it came in one; else together, so that nothing is left to do when the last piece is here.
        self.head: Head | None = None
        self.pieces: list[bytes | memoryview] = []
        self.whole: Whole | None = None
        self.size = 0
        self.wanted = 0

    def take(self, piece: bytes | memoryview) -> tuple[StatusCode, str] | None:
        """More of the answer's message; what is wrong with it, if anything is."""
        pieces = self.pieces
        if pieces and self.wanted == 0:  # the prefix itself came in pieces
            piece = b"".join([*pieces, piece])
            pieces.clear()
            self.size = 0
        self.size += len(piece)
        if self.whole is not None:
            if self.size <= self.wanted:
                self.whole.add(piece)
        else:
            pieces.append(piece)
        if self.wanted == 0 and self.size >= PREFIX.size:
            compressed, length = PREFIX.unpack_from(piece)
            self.wanted = PREFIX.size + length
            if compressed:
                return StatusCode.INTERNAL, "a compressed message, which was not offered"
            if length > MAX_MESSAGE:
                return StatusCode.RESOURCE_EXHAUSTED, f"a message of {length} bytes"
            if self.size < self.wanted:
                self.whole = Whole(length)
                self.whole.add(memoryview(piece)[PREFIX.size :])
                pieces.clear()
        if self.wanted and self.size > self.wanted:
            return StatusCode.INTERNAL, "more than one message for a unary call"
        return None

    def fail(self, code: StatusCode, words: str) -> None:
        """Whoever waits for the answer, if somebody still does, is told this."""
        if not self.answer.done():
            self.answer.set_exception(CallFailed(code, words))

    def end(self, trailers: Head) -> None:
        """The answer is complete."""
        if self.answer.done():
            return
        if trailers.status == 0 and self.wanted and self.size == self.wanted:
            self.answer.set_result(self._message())
        elif trailers.status == 0:
            self.fail(StatusCode.INTERNAL, f"status OK, but {'the message is cut off' if self.size else 'no message'}")
        elif trailers.status is None:
            http = self.head.http if self.head is not None and self.head.http is not None else 200
            self.fail(statuses.of_http(http), f"the server answered with HTTP {http} and no gRPC status")
        else:
            code = statuses.BY_NUMBER.get(trailers.status, StatusCode.UNKNOWN)
            self.fail(code, trailers.message or code.name)

    def _message(self) -> bytes:
        """The message without its prefix."""
        if self.whole is not None:
            return self.whole.take()
        return bytes(self.pieces[0][PREFIX.size :])
