"""A channel over one HTTP/2 connection at a time: opened by the first call, and again by the first after it is lost.

no connection ── call ──► connecting ── SETTINGS ──► usable ── GOAWAY, lost, out of ids ──► no connection
                              └─ failed ─► backing off (50 to 200 ms: calls fail at once) ──► no connection
"""

import asyncio
import contextlib
import random
import re
import socket

from grpc import StatusCode

from adapter import __version__
from adapter.errors import CallFailed
from adapter.grpc_h2.connection import Connection
from adapter.grpc_h2.headers import RequestHead
from adapter.inference.channel import Metadata

BACKOFF_SECONDS = 0.05
LONGEST_BACKOFF_SECONDS = 0.2
# From connecting to the server's SETTINGS; a TensorFlow Serving that hangs accepts connections and says nothing.
HANDSHAKE_SECONDS = 5.0
# Until the kernel gives up a TCP connection whose other end is silently gone.
_TCP_SECONDS = 20
# Bytes that the kernel may hold for a unix socket; it cuts this to what the host allows (net.core.wmem_max).
_SEND_BUFFER = 4 << 20


class H2Channel:
    """Unary calls to `target` (`unix:///path` or `host:port`). For one event loop."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._authority = "localhost" if target.startswith("unix:") else target
        self._now = asyncio.get_running_loop().time
        self._heads: dict[str, RequestHead] = {}
        self._connection: Connection | None = None
        self._open: set[Connection] = set()  # with those that only finish what they have
        self._connecting: asyncio.Task[None] | None = None
        self._backoff = 0.0
        self._not_before = 0.0
        self._why = ""
        self._closed = False
        self._gone = asyncio.Event()  # one that was established was lost

    async def unary(self, path: str, request: bytes, timeout: float, metadata: Metadata = ()) -> bytes:
        """See `adapter.inference.channel.Channel`."""
        deadline = self._now() + timeout
        head = self._heads.get(path)
        if head is None:
            head = self._heads[path] = RequestHead(path, self._authority, f"grpc-python-tandem/{__version__}")
        connection = self._connection
        if connection is None or not connection.usable:
            connection = await self._connected(deadline)
            timeout = deadline - self._now()
        if timeout <= 0:
            raise CallFailed(StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
        stream = connection.begin(head.block(timeout, metadata), request, deadline)
        try:
            return await stream.answer
        except asyncio.CancelledError:
            connection.cancel(stream)
            raise

    async def lost(self) -> None:
        """See `adapter.inference.channel.Channel`."""
        self._gone.clear()
        while not self._gone.is_set():
            try:
                await self._connected(self._now() + HANDSHAKE_SECONDS)
            except CallFailed:
                pause = max(BACKOFF_SECONDS, self._not_before - self._now())
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._gone.wait(), pause)
            else:
                await self._gone.wait()

    async def close(self) -> None:
        """Close the connection; calls still in flight fail."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        for connection in list(self._open):
            connection.close("the channel is closed")

    async def _connected(self, deadline: float) -> Connection:
        """A usable connection, by `deadline`. Raises CallFailed."""
        if self._closed:
            raise CallFailed(StatusCode.UNAVAILABLE, "the channel is closed")
        if self._connecting is None:
            if self._now() < self._not_before:
                raise CallFailed(StatusCode.UNAVAILABLE, self._why)
            self._connecting = asyncio.create_task(self._connect())
        try:
            async with asyncio.timeout_at(deadline):
                await asyncio.wait([self._connecting])
        except TimeoutError:
            raise CallFailed(StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded") from None
        connection = self._connection
        if connection is None or not connection.usable:
            raise CallFailed(StatusCode.UNAVAILABLE, self._why)
        return connection

    async def _connect(self) -> None:
        """One attempt; it leaves a connection, or why there is none and for how long none is tried."""
        loop = asyncio.get_running_loop()
        connection = Connection(self._lost)
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                if self._target.startswith("unix:"):
                    path = re.sub("^unix:(//)?", "", self._target)
                    transport, _ = await loop.create_unix_connection(lambda: connection, path)
                    _take_whole_messages(transport.get_extra_info("socket"))
                else:
                    host, _, port = self._target.rpartition(":")
                    transport, _ = await loop.create_connection(lambda: connection, host.strip("[]"), int(port))
                    _give_up_dead_ends(transport.get_extra_info("socket"))
                self._open.add(connection)
                await connection.ready
        except OSError as error:  # TimeoutError too
            why = str(error) or f"no answer within {HANDSHAKE_SECONDS:g} s"
            self._why = f"failed to connect to {self._target}: {why}"
            self._backoff = min(LONGEST_BACKOFF_SECONDS, self._backoff * 2 or BACKOFF_SECONDS)
            self._not_before = self._now() + self._backoff * random.uniform(0.8, 1.0)  # noqa: S311 - jitter, not a secret
            if connection in self._open:
                connection.close(self._why)
        else:
            self._connection = connection
            self._backoff = 0.0
        finally:
            self._connecting = None

    def _lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        if connection.established:
            self._gone.set()
        if self._connection is connection:
            self._connection = None
            self._why = connection.why


def _take_whole_messages(sock: socket.socket) -> None:
    """A larger message otherwise leaves in pieces of what fits (200 kB by default), each after a turn of the event loop."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)


def _give_up_dead_ends(sock: socket.socket) -> None:
    """The kernel finds out that the other end is gone, and the transport then says that the connection is lost."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _TCP_SECONDS // 2)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _TCP_SECONDS * 1000)
