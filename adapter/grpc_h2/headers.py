"""Header blocks of gRPC calls: requests written without a table, answers read without one, so that blocks can be kept.

Both directions are stateless (HPACK, RFC 7541): a request's fields are literals that are never indexed, and our SETTINGS
allow the server a dynamic table of no bytes. The same block then always means the same, and a server repeats a few.
Fields: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, "Requests", "Responses".
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

import hpack

from adapter.grpc_h2.frames import COMPRESSION_ERROR, ENHANCE_YOUR_CALM, ProtocolError

MAX_HEADER_LIST = 65_536
"""Bytes of one answer's headers or trailers, decoded: TensorFlow Serving's words may be long."""
_KEPT = 1024  # bytes of a block that is kept
_NAME = re.compile(r"[0-9a-z_.-]+")
_VALUE = re.compile(r"[\x20-\x7e]*")
# A header of HTTP/1 (RFC 9113 §8.2.2) makes a message malformed.
_OF_HTTP_1 = frozenset({b"connection", b"transfer-encoding", b"keep-alive", b"proxy-connection", b"upgrade"})


class Malformed(Exception):
    """A header block that HTTP/2 forbids: an error of its stream."""


class Head(NamedTuple):
    """What a header block says to a gRPC client. `http` is None in trailers; `status` None where there is none."""

    http: int | None
    is_grpc: bool
    status: int | None
    message: str


class RequestHead:
    """The header blocks of calls to `path` at `authority`, all but the deadline and metadata encoded once."""

    def __init__(self, path: str, authority: str, user_agent: str) -> None:
        self._before = (
            literal(b":method", b"POST")
            + literal(b":scheme", b"http")
            + literal(b":path", path.encode())
            + literal(b":authority", authority.encode())
        )
        self._after = (
            literal(b"te", b"trailers")
            + literal(b"content-type", b"application/grpc")
            + literal(b"user-agent", user_agent.encode())
        )

    def block(self, timeout: float, metadata: Sequence[tuple[str, str]] = ()) -> bytes:
        """The block of one call. Raises ValueError for metadata that gRPC cannot carry."""
        value = b"%dm" % min(int(timeout * 1000) + 1, 99_999_999)
        timed = b"%b\x00\x0cgrpc-timeout%c%b%b" % (self._before, len(value), value, self._after)
        return timed + encoded(metadata) if metadata else timed


def encoded(metadata: Sequence[tuple[str, str]]) -> bytes:
    """Metadata as header fields. Raises ValueError for what gRPC cannot carry (ASCII-Header in its grammar)."""
    for name, value in metadata:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ValueError(f"metadata that gRPC cannot carry: {name[:64]!r}: {value[:64]!r}")
    return b"".join([literal(name.encode(), value.encode()) for name, value in metadata])


def literal(name: bytes, value: bytes) -> bytes:
    """A literal field without indexing, new name, no Huffman code (RFC 7541 §6.2.2)."""
    return b"\x00" + _length(len(name)) + name + _length(len(value)) + value


def _length(value: int) -> bytes:
    """A string's length: an integer with a prefix of seven bits (RFC 7541 §5.1)."""
    if value < 0x7F:
        return bytes((value,))
    value -= 0x7F
    out = bytearray((0x7F,))
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read(block: bytes) -> Head:
    """What a header block of an answer says.

    Raises:
        ProtocolError: it is not HPACK, or needs a table that we do not keep.
        Malformed: it is no header section of an answer.
    """
    return _kept(block) if len(block) <= _KEPT else _read(block)


def _read(block: bytes) -> Head:
    decoder = hpack.Decoder(MAX_HEADER_LIST)
    decoder.max_allowed_table_size = decoder.header_table_size = 0
    try:
        fields = decoder.decode(block, raw=True)
    except hpack.OversizedHeaderListError as error:
        raise ProtocolError(ENHANCE_YOUR_CALM, str(error)) from None
    except hpack.HPACKError as error:
        raise ProtocolError(COMPRESSION_ERROR, str(error)) from None
    http: int | None = None
    is_grpc, status, message = False, None, ""
    regular = False
    for field in fields:
        name, value = bytes(field[0]), bytes(field[1])
        if name.startswith(b":"):
            if name != b":status" or regular or http is not None or not re.fullmatch(rb"[1-5]\d\d", value):
                raise Malformed(f"{name[:32]!r}: {value[:32]!r} among the headers of an answer")
            http = int(value)
            continue
        regular = True
        if name != name.lower() or name in _OF_HTTP_1:
            raise Malformed(f"a header named {name[:32]!r}")
        if name == b"content-type":
            is_grpc = re.match(rb"application/grpc($|[+;])", value) is not None
        elif name == b"grpc-status":
            status = int(value) if re.fullmatch(rb"\d{1,2}", value) else 2  # what cannot be read is UNKNOWN
        elif name == b"grpc-message":
            message = unquote_to_bytes(value).decode("utf-8", "replace")
    return Head(http, is_grpc, status, message)


_kept = lru_cache(256)(_read)
