"""TensorFlow Serving's monitoring page, fetched when ours is asked for: nothing is kept in between.

A page that doesn't come within the time, or isn't one, leaves its series out and says so in `tandem_tfs_scrape_up`
(`tandem_tfs_up` is the view over gRPC). It hints that something has changed (`on_failed`); a page that comes proves
nothing, for it is served by other threads than predictions are. However many ask at one time, one fetch serves them all.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Sequence

import aiohttp
from prometheus_client import CollectorRegistry, Gauge

from adapter.inference.turns import Turns
from adapter.telemetry import tfs_metrics, tfs_page
from adapter.telemetry.exposition import Family

SECONDS = 0.8  # of the one that our own page may take
MAX_PAGE = 8 << 20
MAX_MODELS = 256

log = logging.getLogger(__name__)


class Scraper:
    """Fetches `url`. `models` are the bundle's; if empty, a model is known once the page proves that it exists.

    What is known stays known, so that no count moves back from a model to `other`; at most MAX_MODELS are.
    """

    def __init__(self, url: str, models: Collection[str], registry: CollectorRegistry) -> None:
        self._url = url
        self._learns = not models
        self._known = set(models)
        self._session: aiohttp.ClientSession | None = None
        self._running: asyncio.Task[Sequence[Family]] | None = None
        self._turns = Turns()
        self._problem: str | None = None
        self.on_failed: Callable[[], None] = lambda: None
        """Called whenever the page could not be had."""
        self._up = Gauge(
            "tandem_tfs_scrape_up",
            "1 if TensorFlow Serving's monitoring page came in time and its series are on this page.",
            registry=registry,
        )
        self._seconds = Gauge(
            "tandem_tfs_scrape_duration_seconds",
            "Time to fetch and read TensorFlow Serving's monitoring page for this page.",
            registry=registry,
        )
        self._samples = Gauge(
            "tandem_tfs_scrape_samples", "Samples of TensorFlow Serving's on this page.", registry=registry
        )
        self._skipped = Gauge(
            "tandem_tfs_scrape_skipped",
            "Samples of TensorFlow Serving's left out of this page: malformed, or beyond the bound.",
            registry=registry,
        )

    async def families(self) -> Sequence[Family]:
        """What TensorFlow Serving shows now; nothing if it shows nothing. Never raises, never takes longer than SECONDS."""
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._scrape())
        return await asyncio.shield(self._running)  # one caller that goes away doesn't take the page from the others

    async def close(self) -> None:
        """Give up what is under way and close the connection."""
        if self._running is not None:
            self._running.cancel()
        if self._session is not None:
            await self._session.close()

    async def _scrape(self) -> Sequence[Family]:
        started = time.perf_counter()
        result = tfs_metrics.Converted()
        problem = None
        try:
            async with asyncio.timeout(SECONDS):
                result = await self._converted(await self._fetch())
        except TimeoutError:
            problem = f"no answer within {SECONDS} s"
        except (aiohttp.ClientError, OSError, _NotThePage) as error:
            problem = str(error) or type(error).__name__
        self._say(problem)
        if problem is not None:
            self.on_failed()
        self._up.set(0 if problem else 1)
        self._seconds.set(time.perf_counter() - started)
        self._samples.set(result.samples)
        self._skipped.set(result.skipped)
        return result.families

    async def _fetch(self) -> str:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1), trust_env=False)
        async with self._session.get(self._url, allow_redirects=False) as answer:
            if answer.status != 200:
                raise _NotThePage(f"it answered {answer.status}")
            page = bytearray()
            async for chunk in answer.content.iter_any():
                page += chunk
                if len(page) > MAX_PAGE:
                    raise _NotThePage(f"it has more than {MAX_PAGE} bytes")
        return page.decode("utf-8", "replace")

    async def _converted(self, text: str) -> tfs_metrics.Converted:
        page = await self._turns.take(tfs_page.parse(text))
        if self._learns:
            for model in tfs_metrics.models_on(page):
                if len(self._known) < MAX_MODELS:
                    self._known.add(model)
        return await self._turns.take(tfs_metrics.convert(page, self._known))

    def _say(self, problem: str | None) -> None:
        """One record when the page goes, one when it comes back."""
        if problem is not None and self._problem is None:
            log.warning("TensorFlow Serving's monitoring page cannot be had: %s", problem)
        elif problem is None and self._problem is not None:
            log.info("TensorFlow Serving's monitoring page is back")
        self._problem = problem


class _NotThePage(Exception):
    pass
