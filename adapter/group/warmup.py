"""The bundle's warm-up requests, sent through the whole way of a request before the group is ready.

They go over a connection of their own, a socket pair whose far end the server takes like one that it accepted: parsed,
routed, answered and recorded like every other request, on no port that anybody else could reach.
"""

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adapter.bundle.manifest import Manifest
from adapter.http.server import Server

QUOTED = 300


@dataclass(frozen=True, slots=True)
class WarmUpRequest:
    """One request of the bundle: POST `body` to `path`."""

    name: str
    path: str
    content_type: str
    body: bytes


def requests(directory: Path, bundle: Manifest) -> list[WarmUpRequest]:
    """Those of the examples of the bundle unpacked at `directory` that are to be sent before ready."""
    return [
        WarmUpRequest(
            example.name, bundle.path_of(example), example.content_type, (directory / example.request).read_bytes()
        )
        for example in bundle.examples
        if example.warmup
    ]


class WarmUp:
    """Sends `requests` to `server`, one after the other; `timeout` seconds for each."""

    def __init__(self, requests: Sequence[WarmUpRequest], server: Server, timeout: float) -> None:
        self._requests = requests
        self._server = server
        self._timeout = timeout

    @property
    def size(self) -> int:
        """How many requests there are."""
        return len(self._requests)

    async def run(self) -> str | None:
        """None if every request is answered with 2xx; otherwise which one is not, and with what."""
        for request in self._requests:
            try:
                async with asyncio.timeout(self._timeout):
                    status, body = await self._send(request)
            except TimeoutError:
                return f"{request.name}: no answer within {self._timeout:g} s"
            except (OSError, ValueError, EOFError) as error:
                return f"{request.name}: no answer ({error or type(error).__name__})"
            if not 200 <= status < 300:
                text = body[:QUOTED].decode("utf-8", "replace")
                return f"{request.name}: POST {request.path} answered {status}: {text}"
        return None

    async def _send(self, request: WarmUpRequest) -> tuple[int, bytes]:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        await asyncio.get_running_loop().connect_accepted_socket(self._server, theirs)
        reader, writer = await asyncio.open_connection(sock=ours)
        try:
            writer.write(
                f"POST {request.path} HTTP/1.1\r\nHost: warm-up\r\nConnection: close\r\n"
                f"Content-Type: {request.content_type}\r\nContent-Length: {len(request.body)}\r\n\r\n".encode()
            )
            writer.write(request.body)
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            writer.close()
        if not head:
            raise EOFError("connection closed")
        return int(head.split(b" ", 2)[1]), body
