"""An answer that is complete when it is made: its head and body leave in one write.

aiohttp's own `Response` can also stream, compress and set cookies, and asks about all that for every answer, which costs
more than the rest of the adapter's HTTP. What is here sends the same bytes, less the `Server` header.
"""

import time
from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache

from aiohttp import HttpVersion10, web
from aiohttp.abc import AbstractStreamWriter

# Larger bodies are not copied to stand behind their heads.
_ONE_WRITE = 1 << 16


class Answer(web.Response):
    """`web.Response` for a body of bytes; `Connection: close` among its headers closes the connection."""

    def __init__(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        super().__init__(status=status, headers=headers)
        self._whole = body
        self._head = b""
        self._writer: AbstractStreamWriter | None = None

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Called by aiohttp, once: make the head."""
        headers = self.headers
        version = request.version
        self._keep_alive = self._keep_alive is None and request.keep_alive and headers.get("Connection") != "close"
        lines = [f"HTTP/{version.major}.{version.minor} {self._status} {self._reason}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines.append(f"Content-Length: {len(self._whole)}")
        lines.append(f"Date: {_date(int(time.time()))}")
        if not self._keep_alive:
            if "Connection" not in headers:
                lines.append("Connection: close")
        elif version == HttpVersion10:
            lines.append("Connection: keep-alive")
        head = "\r\n".join(lines)
        if not head.count("\r") == head.count("\n") == len(lines) - 1:
            raise ValueError("a header of the answer has a line break in it")
        self._head = b"%b\r\n\r\n" % head.encode()
        if request.method == "HEAD" or self._status == 304:
            self._whole = b""
        self._writer = request.writer
        return self._writer

    async def write_eof(self, data: bytes = b"") -> None:  # noqa: ARG002 - aiohttp gives none
        """Called by aiohttp, after `prepare`: send all. Waits while the client reads too slowly."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        if len(self._whole) <= _ONE_WRITE:
            await writer.write(self._head + self._whole)
        else:
            await writer.write(self._head)
            await writer.write(self._whole)
        await writer.drain()


@lru_cache(1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
