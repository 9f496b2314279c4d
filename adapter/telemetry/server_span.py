"""The server span of a request that is sampled (OpenTelemetry's semantic conventions, HTTP server)."""

from adapter.exchange import Exchange


def export(exchange: Exchange, status: int, end: float) -> None:
    """It is answered, with `status`, at `end` (`time.perf_counter()`)."""
    request, trace = exchange.request, exchange.trace
    if trace is None:
        return
    method = request.method[:32]
    transport = request.transport
    secure = transport is not None and transport.get_extra_info("sslcontext") is not None
    attributes = {
        "http.request.method": method,
        "url.path": request.path[:256],
        "url.scheme": "https" if secure else "http",
        "http.route": exchange.route,
        "http.response.status_code": status,
        "network.protocol.version": "1.0" if request.head.old else "1.1",
        "user_agent.original": request.headers.get("User-Agent", "")[:256] or None,
        "client.address": exchange.client or request.remote,
        "http.request.id": exchange.request_id,
        **exchange.attributes,
    }
    error = str(status) if status >= 500 else None
    trace.tracer.finish(trace, f"{method} {exchange.route}", exchange.started, end, exchange.laps, attributes, error)
