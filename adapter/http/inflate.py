"""Compressed bodies, unpacked piece by piece as they are read (RFC 9110 §8.4): never more at once than a piece.

A body must be whole: a gzip's checksum and length, which stand at its end, are compared. TensorFlow Serving takes any
name of a coding and reads what it does not know as if it were not there; so does this, but for codings that are known
to be some: what is in brotli is no JSON.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Protocol

from aiohttp import StreamReader
from multidict import CIMultiDictProxy

from adapter.errors import Refused

ACCEPTED = "gzip, deflate"
# zlib's container formats.
_GZIP, _ZLIB, _BARE = 31, 15, -15
_READ = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}
# The rest of IANA's registry of HTTP content codings.
_NOT_READ = frozenset({"aes128gcm", "br", "compress", "dcb", "dcz", "exi", "pack200-gzip", "x-compress", "zstd"})
_PIECE = 1 << 18
# Each may be twenty bytes and mean nothing; files that are made of many have 64 KiB in each.
_MOST_MEMBERS = 4096


class Content(Protocol):
    """A body, bit by bit."""

    def iter_any(self) -> AsyncIterator[bytes]:
        """Whatever has come, as it comes."""


def decoded(content: StreamReader, headers: CIMultiDictProxy[str]) -> Content:
    """The body without the codings that its headers name."""
    named = ",".join(headers.getall("Content-Encoding")).lower().split(",")
    codings = [name.strip() for name in named if name.strip() in _READ or name.strip() in _NOT_READ]
    if not codings:
        return content
    known = _READ.get(codings[0]) if len(codings) == 1 else None
    return _Unpacked(content, known) if known is not None else _Locked(", ".join(codings)[:128])


class _Locked:
    """What cannot be unpacked; whoever does not read it need not care."""

    def __init__(self, codings: str) -> None:
        self._codings = codings

    def iter_any(self) -> AsyncIterator[bytes]:
        what = f"Content-Encoding {self._codings} is not read here: send gzip, deflate or the plain body"
        raise Refused(415, what, {"Accept-Encoding": ACCEPTED})


class _Unpacked:
    def __init__(self, content: StreamReader, coding: str) -> None:
        self._content = content
        self._coding = coding

    async def iter_any(self) -> AsyncIterator[bytes]:
        """Raises Refused (400) where it is not what its coding says, or ends too soon."""
        inflater = _Inflater(self._coding)
        async for packed in self._content.iter_any():
            for piece in inflater.pieces(packed):
                if piece:
                    yield piece
                if inflater.more:
                    await asyncio.sleep(0)  # others get their turn
        inflater.end()


class _Inflater:
    """Unpacks one body. `more`: there is more in what has come than the pieces so far."""

    def __init__(self, coding: str) -> None:
        self.more = False
        self._coding = coding
        self._stream: zlib._Decompress | None = None
        self._members = 0

    def pieces(self, packed: bytes) -> Iterator[bytes]:
        """What this much means."""
        self.more = bool(packed)
        while self.more:
            stream = self._stream or self._member(packed)
            try:
                piece = stream.decompress(packed, _PIECE)
            except zlib.error:
                raise _unreadable(f"it is not the {self._coding} that it is said to be, or was damaged") from None
            packed = stream.unused_data if stream.eof else stream.unconsumed_tail
            self.more = bool(packed) or (len(piece) == _PIECE and not stream.eof)
            self._stream = None if stream.eof else stream
            yield piece

    def end(self) -> None:
        """Nothing more comes."""
        if self._stream is not None:
            raise _unreadable(f"its {self._coding} breaks off before its checksum")

    def _member(self, packed: bytes) -> "zlib._Decompress":
        self._members += 1
        if self._members > (_MOST_MEMBERS if self._coding == "gzip" else 1):
            raise _unreadable(f"there is more after the end of its {self._coding}")
        return zlib.decompressobj(_format(self._coding, packed))


def _unreadable(why: str) -> Refused:
    return Refused(400, f"Body cannot be read: {why}")


def _format(coding: str, packed: bytes) -> int:
    """What HTTP calls deflate is zlib's format, but some send the bare stream (RFC 9110 §8.4.1.2)."""
    return _GZIP if coding == "gzip" else _ZLIB if packed[0] & 15 == 8 else _BARE
