"""A JWK set behind a URL: fetched in the background, kept through its server's outages, asked again for an unknown key.

No request ever fetches. One that brings an unknown key waits for the fetch that is under way, `PATIENCE` at most, and
however many such come, there are `APART` seconds between two fetches.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import aiohttp

from adapter.access.files import Unusable
from adapter.access.keys import KeySet, read_set
from adapter.telemetry.metrics import JWKS_AGE, JWKS_FETCHES

APART = 5.0
PATIENCE = 2.0
TIMEOUT = 5.0
MAX_BYTES = 1 << 20

# Uncompressed: the bound is on what comes over the wire.
_ASKED = {"Accept": "application/json", "Accept-Encoding": "identity"}

log = logging.getLogger(__name__)


class JwksUrl:
    """The keys at `url`, which `changed` is called after every change of; every `refresh` seconds they are fetched anew."""

    def __init__(self, url: str, refresh: float, changed: Callable[[], None]) -> None:
        self.keys: KeySet | None = None
        self._url = url
        self._place = urlsplit(url).netloc.rpartition("@")[2]
        self._refresh = refresh
        self._changed = changed
        self._content = b""
        self._asked = asyncio.Event()
        self._fetched = asyncio.Condition()
        self._rounds = 0
        self._began = float("-inf")
        self._fetching = True
        self._failed = ""
        self._had = 0.0
        JWKS_AGE.set_function(lambda: time.monotonic() - self._had if self._had else float("inf"))

    async def unknown(self, _: str | None) -> None:
        """Have the keys fetched again, unless that was just done, and wait for it a moment."""
        now = asyncio.get_running_loop().time()
        if not self._fetching:
            if now - self._began < APART:
                return
            self._asked.set()
        try:
            async with asyncio.timeout(PATIENCE), self._fetched:
                rounds = self._rounds
                await self._fetched.wait_for(lambda: self._rounds != rounds)
        except TimeoutError:
            return

    async def run(self) -> None:
        """Fetch for ever."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT)
        async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session:
            while True:
                self._began = asyncio.get_running_loop().time()
                self._fetching = True
                failure = await self._fetch(session)
                async with self._fetched:
                    self._fetching = False
                    self._rounds += 1
                    self._asked.clear()
                    self._fetched.notify_all()
                self._tell(failure)
                try:
                    async with asyncio.timeout(APART if failure else self._refresh):
                        await self._asked.wait()
                except TimeoutError:
                    pass

    async def _fetch(self, session: aiohttp.ClientSession) -> str:
        """Why the keys could not be had; empty when they could."""
        try:
            async with session.get(self._url, allow_redirects=False, headers=_ASKED) as answer:
                if answer.status != 200:
                    return f"status {answer.status}"
                content = bytearray()
                async for chunk in answer.content.iter_any():
                    content += chunk
                    if len(content) > MAX_BYTES:
                        return f"more than {MAX_BYTES} bytes"
            if content != self._content or self.keys is None:
                self.keys = read_set(bytes(content))
                self._content = bytes(content)
                self._changed()
        except Unusable as error:
            return str(error)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return f"{type(error).__name__}: {error}"[:256]
        self._had = time.monotonic()
        return ""

    def _tell(self, failure: str) -> None:
        JWKS_FETCHES.labels("failed" if failure else "fetched").inc()
        if failure and failure != self._failed:
            kept = "those before stay in force" if self.keys else "no token can be checked until they can"
            log.error("Keys for tokens cannot be had from %s (%s): %s", self._place, failure, kept)
        elif not failure and self._failed:
            log.info("Keys for tokens can be had from %s again", self._place)
        self._failed = failure


class JwksFile:
    """The keys in a rendered file."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self.keys: KeySet | None = None
        self._changed = changed

    def take(self, content: bytes) -> None:
        """Use these from now on. Raises Unusable."""
        self.keys = read_set(content)
        self._changed()

    async def unknown(self, _: str | None) -> None:
        """A file that changes is read by itself."""
