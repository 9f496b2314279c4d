"""Who was turned away: counted each, logged in sums where they could fill the log, and slowed down where they flood."""

import asyncio
import logging

from adapter.telemetry.metrics import ACCESS_DENIED

SUM_SECONDS = 60.0
# A client that asks again the moment it is refused costs as much as one that is served. So beyond so many refusals a
# second, answers wait: that many clients at most, since each wait holds a connection.
FREE_PER_SECOND = 10
WAIT_SECONDS = 0.25
MAX_WAITING = 512

log = logging.getLogger(__name__)


class Denials:
    """Counts refusals by reason. Of those by address, one line a minute tells the number and one of the addresses."""

    def __init__(self) -> None:
        self._unsaid = 0
        self._last = ""
        self._timer: asyncio.TimerHandle | None = None
        self._second = 0
        self._in_second = 0
        self._waiting = 0

    def address(self, client: str) -> None:
        """Count a refusal by address: the first is said at once, those of the next minute in one line at its end."""
        ACCESS_DENIED.labels("address").inc()
        self._unsaid += 1
        self._last = client
        if self._timer is None:
            self._say()
            self._timer = asyncio.get_running_loop().call_later(SUM_SECONDS, self._minute)

    async def count(self, reason: str) -> None:
        """Count a refusal for `reason`, and wait a moment if there are many."""
        ACCESS_DENIED.labels(reason).inc()
        second = int(asyncio.get_running_loop().time())
        if second != self._second:
            self._second, self._in_second = second, 0
        self._in_second += 1
        if self._in_second > FREE_PER_SECOND and self._waiting < MAX_WAITING:
            self._waiting += 1
            try:
                await asyncio.sleep(WAIT_SECONDS)
            finally:
                self._waiting -= 1

    def _minute(self) -> None:
        self._timer = None
        if self._unsaid:
            self._say()
            self._timer = asyncio.get_running_loop().call_later(SUM_SECONDS, self._minute)

    def _say(self) -> None:
        attributes = {"event.name": "tandem.denied", "tandem.denied": self._unsaid, "client.address": self._last[:64]}
        log.warning(
            "Refused by address: %d requests, the last from %s",
            self._unsaid,
            self._last[:64],
            extra={"attributes": attributes},
        )
        self._unsaid = 0
