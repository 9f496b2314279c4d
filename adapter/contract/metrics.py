"""`/metrics`: the page that Prometheus scrapes, the adapter's figures and TensorFlow Serving's on one.

Both get the labels that Prometheus gives to the target they came from, and `target_info` holds the rest of who they are.
"""

from adapter.exchange import Exchange, response
from adapter.http.answer import Answer
from adapter.inference.turns import Turns
from adapter.telemetry import exposition, metrics
from adapter.telemetry.scrape import Scraper


class Metrics:
    """The page; `scraper` is None where TensorFlow Serving has no monitoring page."""

    def __init__(self, scraper: Scraper | None) -> None:
        self._scraper = scraper
        self._turns = Turns()

    async def __call__(self, exchange: Exchange) -> Answer:
        """Prometheus text, or OpenMetrics where `Accept` asks for it."""
        content_type = exposition.chosen(",".join(exchange.request.headers.getall("Accept", ())))
        theirs = await self._scraper.families() if self._scraper else ()
        body = metrics.page(content_type)  # after the scrape, whose figures are on it
        body += await self._turns.take(exposition.render(theirs, content_type))
        if content_type == exposition.OPENMETRICS:
            body += b"# EOF\n"
        return response(200, body, {"Content-Type": content_type, "Cache-Control": "no-store"})
