"""Leaving without losing a request: unready at once, serve on while others still hold our address, close the port,
finish what is in flight, within the grace period. A second signal forces.

Under Nomad the service leaves Consul before SIGTERM comes (group `shutdown_delay`), and TensorFlow Serving dies only after
this process (leader task), so nothing here waits for either.
"""

import asyncio
import logging
from typing import Protocol

log = logging.getLogger(__name__)

# Seconds. Not 0, which aiohttp takes for "without end" (helpers.py, ceil_timeout).
AT_ONCE = 0.05


class Port(Protocol):
    """The listening side of the server."""

    async def stop(self) -> None:
        """Accept no further connection."""


class Connections(Protocol):
    """The accepted side: aiohttp's low-level server."""

    def pre_shutdown(self) -> None:
        """Close idle connections; the busy ones close after their answer."""

    async def shutdown(self, timeout: float) -> None:
        """Wait for requests in flight, then cut them off."""


class Drain:
    """Whether it has begun, why, and how much time requests in flight have (seconds)."""

    def __init__(self, grace: float) -> None:
        self.reason = ""
        self.grace = grace
        self.begun = asyncio.Event()
        self._forced = asyncio.Event()

    def begin(self, reason: str, grace: float | None = None) -> None:
        """Start it; a second time forces it."""
        if self.begun.is_set():
            self._forced.set()
            return
        self.reason = reason
        if grace is not None:
            self.grace = grace
        self.begun.set()

    async def finish(self, port: Port, connections: Connections, delay: float) -> bool:
        """Close `port` after `delay` seconds and wait for the answers; False if a second signal cut requests off."""
        try:
            async with asyncio.timeout(delay):
                await self._forced.wait()
        except TimeoutError:
            pass
        await port.stop()
        connections.pre_shutdown()
        answered = asyncio.create_task(connections.shutdown(max(self.grace, AT_ONCE)))
        forced = asyncio.create_task(self._forced.wait())
        await asyncio.wait({answered, forced}, return_when=asyncio.FIRST_COMPLETED)
        forced.cancel()
        if answered.done():
            answered.result()
            return True
        log.warning("Forced: requests in flight are cut off", extra={"attributes": {"event.name": "tandem.forced"}})
        answered.cancel()
        await connections.shutdown(AT_ONCE)
        return False
