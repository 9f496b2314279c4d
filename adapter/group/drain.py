"""Leaving without losing a request: unready at once, serve on while others still hold our address, close the port,
finish what is in flight, within the grace period. A second signal forces.

Under Nomad the service leaves Consul before SIGTERM comes (group `shutdown_delay`), and TensorFlow Serving outlives this
process (leader task; in a group's restart, `presence.py`), so nothing here waits for either.
"""

import asyncio
import logging
import time
from typing import Protocol

log = logging.getLogger(__name__)

# Seconds. Not 0, which aiohttp takes for "without end" (helpers.py, ceil_timeout).
AT_ONCE = 0.05


class Port(Protocol):
    """The listening side of the server."""

    async def stop(self) -> None:
        """Accept no further connection."""


class Connections(Protocol):
    """The accepted side."""

    def pre_shutdown(self) -> None:
        """Close idle connections; the busy ones close after their answer."""

    async def shutdown(self, timeout: float | None) -> None:
        """Wait for requests in flight, then cut them off."""


class Drain:
    """Whether it has begun, why, and how much time requests in flight have (seconds).

    `failed`: something of ours broke. `for_good`: this instance is to end, not only this process. `signals`: how many
    came, which is how the platform stops us.
    """

    def __init__(self, grace: float) -> None:
        self.reason = ""
        self.grace = grace
        self.for_good = False
        self.failed = False
        self.signals = 0
        self.begun = asyncio.Event()
        self.signalled = asyncio.Event()
        self._usual_grace = grace
        self._forced = asyncio.Event()
        self._changed = asyncio.Event()
        self._end = float("inf")

    def begin(self, reason: str) -> None:
        """Start it, unless it has begun."""
        if not self.begun.is_set():
            self.reason = reason
            self.begun.set()

    def fail(self, reason: str) -> None:
        """Something of ours broke: better started anew."""
        self.failed = True
        self.begin(reason)

    def signal(self, name: str) -> None:
        """A signal starts it; the second forces it. One that comes after a `/shutdown` bounds its grace: SIGKILL follows."""
        self.signals += 1
        self.signalled.set()
        if self.signals > 1:
            self._forced.set()
            self._limit(0)
        elif self.begun.is_set():
            self._limit(self._usual_grace)
        else:
            self.begin(f"signal {name}")

    def end(self, reason: str, grace: float | None = None) -> None:
        """End this instance for good. Asked for again, it can only become shorter."""
        self.for_good = True
        if not self.begun.is_set():
            self.grace = self._usual_grace if grace is None else grace
            self.begin(reason)
        elif grace is not None:
            self._limit(grace)

    async def finish(self, port: Port, connections: Connections, delay: float) -> bool:
        """Close `port` after `delay` seconds and wait for the answers; False if requests were cut off."""
        try:
            async with asyncio.timeout(delay):
                await self._forced.wait()
        except TimeoutError:
            pass
        await port.stop()
        await asyncio.sleep(AT_ONCE)  # what was accepted last has sent its request, and is idle only until that is read
        connections.pre_shutdown()
        self._end = min(self._end, time.monotonic() + self.grace)
        # Bounded here and not by aiohttp, which would wait as long again for what it has cancelled.
        answered = asyncio.create_task(connections.shutdown(None))
        least = time.monotonic() + AT_ONCE  # what is answered already need not be cut off
        while not answered.done() and (left := max(self._end, least) - time.monotonic()) > 0:
            self._changed.clear()
            changed = asyncio.create_task(self._changed.wait())
            await asyncio.wait({answered, changed}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()
        if answered.done():
            answered.result()
            return True
        why = "a second signal forces" if self._forced.is_set() else "the grace period is over"
        log.warning("Requests in flight are cut off: %s", why, extra={"attributes": {"event.name": "tandem.forced"}})
        answered.cancel()
        await connections.shutdown(AT_ONCE)
        return False

    def _limit(self, grace: float) -> None:
        self.grace = min(self.grace, grace)
        self._end = min(self._end, time.monotonic() + grace)
        self._changed.set()
