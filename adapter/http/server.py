"""Listens, and keeps the connections: how many there are, which have been idle for too long, how all of them end."""

import asyncio
import contextlib
import ctypes
import os
import socket
import ssl
import struct

from adapter.errors import Refused
from adapter.http.answer import Answer
from adapter.http.connection import Connection, Handler, Refuse, Registry
from adapter.http.request import Request

KEEP_ALIVE = 75.0
"""Seconds that a connection may be idle. Longer than proxies keep theirs, so that they close first."""
_SWEEP = 5.0
_BACKLOG = 1024
# Seconds that a request which is cut off has to note that it was.
_LAST_WORDS = 0.5
# Seconds for handshakes that have begun, and turns of a loop that was busy for as long, each of which accepts all that wait.
_HANDSHAKE_SECONDS = 0.05
_TURNS_TO_ACCEPT = 3
_SO_ATTACH_FILTER = 26  # asm-generic/socket.h


class Server:
    """Gives every request to `handler`; at most `most_unsent` bytes of answers wait for clients to read them.

    A head may take `head_timeout` seconds from its first byte to its last; `refuse` words the answer to one that cannot be
    read.
    """

    def __init__(
        self, handler: Handler, most_unsent: int, head_timeout: float = 30.0, refuse: Refuse | None = None
    ) -> None:
        self._head_timeout = head_timeout
        self._registry = Registry(handler, most_unsent, refuse or _without_words)
        self._listener: asyncio.Server | None = None
        self._handed_on = False
        self._sweeper: asyncio.TimerHandle | None = None

    def __call__(self) -> Connection:
        """The protocol of one more connection."""
        return Connection(self._registry)

    def connections(self) -> int:
        """How many are open."""
        return len(self._registry.open)

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> tuple[str, int]:
        """Accept connections from now on; returns the address."""
        loop = asyncio.get_running_loop()
        return self._listens(await loop.create_server(self, host, port, ssl=tls, backlog=_BACKLOG, reuse_address=True))

    async def listen_on(self, listening: socket.socket, tls: ssl.SSLContext | None = None) -> tuple[str, int]:
        """The same on a socket that listens already, and goes on listening for another process when this one stops."""
        self._handed_on = True
        loop = asyncio.get_running_loop()
        return self._listens(await loop.create_server(self, sock=listening, ssl=tls, backlog=_BACKLOG))

    def _listens(self, listener: asyncio.Server) -> tuple[str, int]:
        self._listener = listener
        self._sweeper = asyncio.get_running_loop().call_later(_SWEEP, self._sweep)
        name = listener.sockets[0].getsockname()
        return str(name[0]), int(name[1])

    async def stop(self) -> None:
        """Accept no further connection, but each that a client takes for accepted: the kernel resets what waits at the end."""
        if self._listener is None or not self._listener.is_serving():
            return
        if not self._handed_on:
            for listening in self._listener.sockets:
                _drop_newcomers(listening.fileno())
            await asyncio.sleep(_HANDSHAKE_SECONDS)
            for _ in range(_TURNS_TO_ACCEPT):
                await asyncio.sleep(0)
        self._listener.close()

    def pre_shutdown(self) -> None:
        """Close idle connections; the busy ones close after their answer."""
        for connection in list(self._registry.open):
            connection.close()

    async def shutdown(self, timeout: float | None) -> None:
        """Wait until requests in flight are answered and the answers have left, then cut off; None: wait without end."""
        tasks = [connection.task for connection in self._registry.open if connection.task is not None]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                if tasks:
                    await asyncio.wait(tasks)
                await self._all_left()
        for connection in list(self._registry.open):
            connection.cut_off()
        if tasks:
            await asyncio.wait(tasks, timeout=_LAST_WORDS)

    async def _all_left(self) -> None:
        """An answer that is given may still wait in its transport for the client to read."""
        self.pre_shutdown()
        while self._registry.open:
            self._registry.one_less.clear()
            await self._registry.one_less.wait()

    async def close(self) -> None:
        """Listen no more and end what is left."""
        await self.stop()
        if self._sweeper is not None:
            self._sweeper.cancel()
        await self.shutdown(0)

    def _sweep(self) -> None:
        now = asyncio.get_running_loop().time()
        for connection in list(self._registry.open):
            late = connection.head_since and now - connection.head_since > self._head_timeout
            if late or (connection.task is None and now - connection.since > KEEP_ALIVE):
                connection.close()
        self._sweeper = asyncio.get_running_loop().call_later(_SWEEP, self._sweep)


def _without_words(_: Request, refusal: Refused) -> Answer:
    return Answer(refusal.status, b"", {})


def _drop_newcomers(listening: int) -> None:
    """From now on the kernel drops the first packet of a connection on this socket, and no other.

    Its client sends it again after a second (RFC 6298 §2.1), when nobody listens any more, and learns that it is refused
    before it has sent a request. The filter is classic BPF on the TCP header (Linux Documentation/networking/filter.rst;
    net/ipv4/tcp_ipv4.c, tcp_filter). Where it cannot be attached, such as under gVisor, the rest is as it was without.
    """
    program = b"".join(
        struct.pack("=HBBI", *instruction)
        for instruction in (
            (0x30, 0, 0, 13),  # load byte 13: the flags (RFC 9293 §3.1)
            (0x54, 0, 0, 0x12),  # of which SYN and ACK
            (0x15, 0, 1, 0x02),  # SYN alone?
            (0x06, 0, 0, 0),  # drop
            (0x06, 0, 0, 0xFFFFFFFF),  # keep
        )
    )
    code = ctypes.create_string_buffer(program)
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(listening)) as same:
        same.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HxxxxxxP", 5, ctypes.addressof(code)))
