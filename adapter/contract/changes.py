"""`/changes/current` and `/changes`: what runs, since when, and what ran before.

The history is Consul's, kept by all instances together (`history.py`); what was read last is served on while Consul is
away, and says so. Without Consul there is this instance's own release, and the page says that this is all.
"""

import asyncio
import hashlib
import logging
import time
from typing import Any
from urllib.parse import urlencode

import orjson

from adapter.contract.health import rfc3339
from adapter.contract.history import History, Release, changed
from adapter.contract.release import Running
from adapter.errors import Refused
from adapter.exchange import Exchange, response
from adapter.group.consul import ConsulFailed
from adapter.group.state import Group
from adapter.http.answer import Answer

FRESH_SECONDS = 1.0
RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
LOOK_SECONDS = 0.2
PAGE, LARGEST_PAGE = 20, 100
NO_CONSUL = "No Consul is configured: this instance knows of its own release alone"

log = logging.getLogger(__name__)


class Changes:
    """The two resources, and the record of this instance's own activation.

    `running` is the release and the instance that this process is.
    """

    def __init__(self, group: Group, running: Running, history: History | None) -> None:
        self._group = group
        self._running = running
        self._history = history
        self._started = time.time()
        self._known: list[Release] = []
        self._read_at: float | None = None
        self._looked_at = 0.0
        self._problem = "not read yet"
        self._activated: str | None = None
        self._reading: asyncio.Task[None] | None = None
        self.recorded: bool | None = None if history is None else False
        """Whether Consul holds this release; None: there is no Consul."""

    async def run(self) -> None:
        """Record the activation once the group is ready; returns when it is recorded."""
        await self._running.look()
        while not self._group.was_ready:  # noqa: ASYNC110 - the state machine knows of no loop and no events
            await asyncio.sleep(LOOK_SECONDS)
        if self._history is None:
            return
        attempt = 0
        while not self.recorded:
            try:
                first = await self._history.record(self._activation())
                self.recorded = True
                attributes = {"event.name": "tandem.release.recorded" if first else "tandem.release.known"}
                log.info("Release %s %s", self._running.release["id"], "recorded" if first else "is recorded already",
                         extra={"attributes": attributes})  # fmt: skip
            except ConsulFailed as error:
                if attempt == 0:
                    log.warning("The release is not recorded yet: %s", error)
                await asyncio.sleep(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)])
                attempt += 1

    async def current(self, _: Exchange) -> Answer:
        """What runs now."""
        group = self._group
        body = {
            **self._running.release,
            "instance": self._running.instance,
            "started_at": rfc3339(self._started),
            "activated_at": self._activated_at(),
            "recorded": self.recorded,
            "state": group.state,
            "history": [
                {"from": t.before, "to": t.after, "reason": t.reason, "at": rfc3339(t.at)} for t in group.history
            ],
        }
        headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
        return response(200, orjson.dumps(body), headers)

    async def releases(self, exchange: Exchange) -> Answer:
        """A page of the history. Raises Refused (400) for a page that cannot be."""
        limit, after = _page(exchange)
        known, said = await self._releases()
        begin = 0
        if after is not None:
            begin = next((number for number, one in enumerate(known, 1) if one["id"] == after), -1)
            if begin < 0:
                raise Refused(400, f"after: no release {after[:128]!r} is known here")
        page = known[begin : begin + limit]
        rest = begin + limit < len(known)
        content = {
            **said,
            "total": len(known),
            "releases": [
                {**one, "changed": changed(one, known[number + 1] if number + 1 < len(known) else None)}
                for number, one in enumerate(page, begin)
            ],
            "next": _next(limit, page[-1]["id"]) if rest else None,
        }
        # Of the content alone: when it was read does not make it another. So weak (RFC 9110 §8.8.1).
        tag = f'W/"{hashlib.sha256(orjson.dumps(content)).hexdigest()[:32]}"'
        headers = {"Content-Type": "application/json", "Cache-Control": "no-cache", "ETag": tag}
        if rest:
            headers["Link"] = f'<{content["next"]}>; rel="next"'
        body = orjson.dumps({**content, "as_of": rfc3339(self._read_at) if self._read_at else None})
        if _matches(",".join(exchange.request.headers.getall("If-None-Match", ())), tag):
            return response(304, body, headers)
        return response(200, body, headers)

    async def _releases(self) -> tuple[list[Release], dict[str, Any]]:
        """The releases that are known, and how they are."""
        service = self._running.service
        own = [self._activation()] if self._group.was_ready else []
        if self._history is None:
            return own, {"service": service, "source": "instance", "stale": False, "note": NO_CONSUL}
        if time.monotonic() - self._looked_at > FRESH_SECONDS:
            # One reader for all who ask at this moment, not ended by one of them who leaves.
            if self._reading is None or self._reading.done():
                self._reading = asyncio.create_task(self._read(self._history))
            await asyncio.shield(self._reading)
        stale = bool(self._problem)
        known = self._known
        if stale and own and own[0]["id"] not in {one["id"] for one in known}:
            known = own + known
        return known, {"service": service, "source": "consul", "stale": stale, "note": self._problem or None}

    async def _read(self, history: History) -> None:
        try:
            self._known = await history.releases()
            self._read_at = time.time()
            self._problem = ""
        except ConsulFailed as error:
            self._problem = str(error)
        self._looked_at = time.monotonic()

    def _activation(self) -> Release:
        running = self._running
        return {**running.release, "activated_at": self._activated_at(), "first_instance": running.instance}

    def _activated_at(self) -> str | None:
        """When this instance was ready for the first time."""
        if self._activated is None and self._group.was_ready:
            first = next((t.at for t in self._group.history if t.after == "ready"), time.time())
            self._activated = rfc3339(first)
        return self._activated


def _page(exchange: Exchange) -> tuple[int, str | None]:
    query = exchange.request.query
    if set(query) - {"limit", "after"}:  # not named: what is in a query may be a secret
        raise Refused(400, "There are only the parameters limit and after")
    text = query.get("limit", str(PAGE))
    limit = int(text) if text.isascii() and text.isdigit() and len(text) < 4 else 0
    if not 1 <= limit <= LARGEST_PAGE:
        raise Refused(400, f"limit: expected a number from 1 to {LARGEST_PAGE}, found {text[:32]!r}")
    return limit, query.get("after")


def _next(limit: int, after: str) -> str:
    """Relative to `/changes`, so that it works under any path prefix."""
    return f"changes?{urlencode({'limit': limit, 'after': after})}"


def _matches(condition: str, tag: str) -> bool:
    """RFC 9110 §13.1.2, by weak comparison."""
    return condition.strip() == "*" or tag.removeprefix("W/") in {
        one.strip().removeprefix("W/") for one in condition.split(",")
    }
