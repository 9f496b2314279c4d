"""Who was turned away: counted each, logged in sums, since whoever is refused must not fill the log."""

import asyncio
import logging

from adapter.telemetry.metrics import ACCESS_DENIED

SUM_SECONDS = 60.0

log = logging.getLogger(__name__)


class Denials:
    """Counts refusals by reason. Of those by address, one line a minute tells the number and one of the addresses."""

    def __init__(self) -> None:
        self._by_address = ACCESS_DENIED.labels("address")
        self._unsaid = 0
        self._timer: asyncio.TimerHandle | None = None

    def address(self, client: str) -> None:
        """Count a refusal by address: the first is said at once, those of the next minute in one line at its end."""
        self._by_address.inc()
        self._unsaid += 1
        self._last = client
        if self._timer is None:
            self._say()
            self._timer = asyncio.get_running_loop().call_later(SUM_SECONDS, self._minute)

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
