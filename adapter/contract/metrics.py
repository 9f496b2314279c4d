"""`/metrics`: the page that Prometheus scrapes."""

from aiohttp import web

from adapter.exchange import Exchange, response
from adapter.telemetry import metrics


async def page(exchange: Exchange) -> web.StreamResponse:
    """Prometheus text, or OpenMetrics where `Accept` asks for it."""
    body, content_type = metrics.page(exchange.request.headers.get("Accept", ""))
    return response(200, body, {"Content-Type": content_type})
