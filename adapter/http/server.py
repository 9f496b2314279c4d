"""Listens, and keeps the connections: how many there are, which have been idle for too long, how all of them end."""

import asyncio
import contextlib
import socket
import ssl

from adapter.http.connection import Connection, Handler, Registry

KEEP_ALIVE = 75.0
"""Seconds that a connection may be idle. Longer than proxies keep theirs, so that they close first."""
_SWEEP = 5.0
_BACKLOG = 1024
# Seconds that a request which is cut off has to note that it was.
_LAST_WORDS = 0.5


class Server:
    """Gives every request to `handler`; at most `most_unsent` bytes of answers wait for clients to read them.

    A head may take `head_timeout` seconds from its first byte to its last.
    """

    def __init__(self, handler: Handler, most_unsent: int, head_timeout: float = 30.0) -> None:
        self._head_timeout = head_timeout
        self._registry = Registry(handler, most_unsent)
        self._listener: asyncio.Server | None = None
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
        """The same on a socket that listens already."""
        loop = asyncio.get_running_loop()
        return self._listens(await loop.create_server(self, sock=listening, ssl=tls, backlog=_BACKLOG))

    def _listens(self, listener: asyncio.Server) -> tuple[str, int]:
        self._listener = listener
        self._sweeper = asyncio.get_running_loop().call_later(_SWEEP, self._sweep)
        name = listener.sockets[0].getsockname()
        return str(name[0]), int(name[1])

    async def stop(self) -> None:
        """Accept no further connection."""
        if self._listener is not None:
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
