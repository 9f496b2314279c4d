"""The server's side of a connection, played by a test: what the client wrote as frames, what the server says as bytes.

Reads and writes by the letter of RFC 9113, and by `hpack`, not by the code under test.
"""

import asyncio
import contextlib
import struct
from typing import Any, NamedTuple

import hpack

from adapter.grpc_h2.connection import Connection
from adapter.grpc_h2.headers import RequestHead
from adapter.grpc_h2.stream import Stream

DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM = ACK = 1
END_HEADERS = 4
HEAD = RequestHead("/a.B/C", "localhost", "grpc-test/1").block(10)


class Seen(NamedTuple):
    """A frame that the client sent."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def number(self) -> int:
        return int.from_bytes(self.payload, "big")


def raw(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def fields(*pairs: tuple[str, str]) -> bytes:
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    block: bytes = encoder.encode(pairs)
    return block


def settings(**values: int) -> bytes:
    numbers = {"max_streams": 3, "window": 4, "max_frame": 5}
    return raw(SETTINGS, 0, 0, b"".join(struct.pack(">HI", numbers[name], value) for name, value in values.items()))


OK_HEAD = fields((":status", "200"), ("content-type", "application/grpc"))
OK_TAIL = fields(("grpc-status", "0"))


def message(body: bytes, compressed: int = 0) -> bytes:
    return struct.pack(">BI", compressed, len(body)) + body


def answer(stream: int, body: bytes) -> bytes:
    """A whole answer of status OK."""
    return (
        raw(HEADERS, END_HEADERS, stream, OK_HEAD)
        + raw(DATA, 0, stream, message(body))
        + raw(HEADERS, END_HEADERS | END_STREAM, stream, OK_TAIL)
    )


class Transport:
    """A socket that a test can fill: after `room` bytes, `pause_writing` is called, as a transport does."""

    def __init__(self) -> None:
        self.connection: Any = None
        self.written = bytearray()
        self.room = 1 << 40
        self.held = 0
        self.closing = False
        self.aborted = False

    def write(self, data: bytes) -> None:
        assert not self.closing
        self.written += data
        self.held += len(data)
        if self.held > self.room and not self.connection._sending.paused:
            self.connection.pause_writing()

    def writelines(self, parts: list[bytes]) -> None:
        self.write(b"".join(parts))

    def read(self) -> None:
        """The other side reads all that waits."""
        self.held = 0
        if self.connection._sending.paused:
            self.connection.resume_writing()

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return self.held

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = self.aborted = True


class Peer:
    """A connection whose server is the test."""

    def __init__(self, *, greet: bytes = settings()) -> None:
        self.lost: list[Connection] = []
        self.connection = Connection(self.lost.append)
        self.transport = Transport()
        self.transport.connection = self.connection
        self.connection.connection_made(self.transport)  # type: ignore[arg-type]
        self.opening = bytes(self.transport.written)
        self.transport.written.clear()
        if greet:
            self.say(greet)
            self.sent()

    def say(self, data: bytes) -> None:
        if not self.transport.closing:
            self.connection.data_received(data)

    def call(self, body: bytes = b"request", seconds: float = 10, head: bytes = HEAD) -> Stream:
        return self.connection.begin(head, body, asyncio.get_running_loop().time() + seconds)

    def sent(self) -> list[Seen]:
        """The frames that the client has sent since this was last asked."""
        data = bytes(self.transport.written)
        self.transport.written.clear()
        found, at = [], 0
        while at < len(data):
            length = int.from_bytes(data[at : at + 3], "big")
            stream = int.from_bytes(data[at + 5 : at + 9], "big")
            found.append(Seen(data[at + 3], data[at + 4], stream, data[at + 9 : at + 9 + length]))
            at += 9 + length
        assert at == len(data), "half a frame"
        return found

    def lose(self, error: Exception | None = None) -> None:
        self.transport.closing = True
        with contextlib.suppress(Exception):
            self.connection.ready.exception()
        self.connection.connection_lost(error)
