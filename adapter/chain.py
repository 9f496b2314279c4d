"""The way of every request, top to bottom: request id → route → gate → handler → error body → metrics → access record.

Nothing calls back up. Routes are a table of exact paths plus the beginnings of those that route themselves (`/v1/`).
"""

import asyncio
import copy
import logging
import random
import time
from collections.abc import Callable, Mapping

import aiohttp
from aiohttp.web import RequestPayloadError

from adapter.access.audit import Audit
from adapter.access.gate import Gate
from adapter.errors import Refused, RequestFailed, problem, tfs_envelope, tfs_headers
from adapter.exchange import Exchange, Handler, response
from adapter.group.state import Group
from adapter.http.answer import Answer
from adapter.http.connection import CUT_OFF
from adapter.http.request import Request
from adapter.inference.tensor import BadInput, Unserved
from adapter.settings import Settings
from adapter.telemetry import server_span
from adapter.telemetry.access_log import AccessLog
from adapter.telemetry.logs import REQUEST, LogStream
from adapter.telemetry.metrics import ACTIVE_REQUESTS, observe_phases, observe_request
from adapter.telemetry.traces import Tracer

log = logging.getLogger(__name__)

Routes = Mapping[str, Mapping[str, Handler]]
"""path → method → handler"""


class Chain:
    """Answers requests by `routes` (exact paths) and `faces` (first four characters of a path); `headers` go on every answer."""

    def __init__(
        self,
        routes: Routes,
        faces: Mapping[str, Handler],
        settings: Settings,
        group: Group,
        stream: LogStream,
        headers: Mapping[str, str],
        gate: Gate | None = None,
        audit: Audit | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._routes = routes
        self._faces = faces
        # Kept: asking asyncio for the running loop costs a system call in Python 3.11 (getpid).
        self._now = asyncio.get_running_loop().time
        self._timeout = settings.request_timeout
        self._max_connections = settings.max_connections
        self._group = group
        self._headers = dict(headers)
        self._v1_headers = tfs_headers(settings.cors)
        self._gate = gate
        self._audit = audit
        self._access_log = AccessLog(stream) if settings.access_log else None
        self._access_log_sample = settings.access_log_sample
        self._begin_trace = (tracer or Tracer()).begin
        self.active = 0
        ACTIVE_REQUESTS.set_function(lambda: self.active)
        self.connections: Callable[[], int] = lambda: 0

    async def __call__(self, request: Request) -> Answer:
        exchange = Exchange(request, self._now() + self._timeout)
        exchange.trace = self._begin_trace(request.headers)
        REQUEST.set(exchange)
        self.active += 1
        status, sent = 499, 0
        try:
            answer = await self._answer(exchange)
            status, sent = answer.status, len(answer.sent_body(request.method))
            answer.request_id = exchange.request_id
            if self._headers:
                answer.headers.update(self._headers)
            if exchange.served:
                answer.headers["X-Model-Version"] = exchange.served
            if self._group.stopping:
                answer.close = True
            return answer
        except asyncio.CancelledError as error:
            if error.args == (CUT_OFF,):
                status = 503
                exchange.attributes["error.message"] = "Cut off: the grace period is over"
            raise
        finally:
            self.active -= 1
            if exchange.release is not None:
                exchange.release(exchange.held)
            if self._gate is not None:
                self._gate.leave(exchange, status)
            self._record(exchange, status, sent)
            if self._audit is not None:
                self._audit.record(exchange, status)
            REQUEST.set(None)

    def refuse(self, request: Request, refusal: Refused) -> Answer:
        """The answer to a request whose head cannot be read; of the gate's questions it answers only where it comes from."""
        exchange = Exchange(request, self._now())
        self._handler(exchange)  # for the form that errors have at its path
        if self._gate is not None:
            try:
                self._gate.check_peer(exchange)
            except Refused as denied:
                refusal = denied
        answer = self._failed(exchange, refusal.status, refusal.message, refusal.headers)
        answer.request_id = exchange.request_id
        answer.headers.update(self._headers)
        self._record(exchange, answer.status, len(answer.sent_body(request.method)))
        return answer

    def ungated(self) -> "Chain":
        """The same way for the house's own requests, which come over a connection that nobody else has: without the gate."""
        chain = copy.copy(self)
        chain._gate = None
        return chain

    async def _answer(self, exchange: Exchange) -> Answer:
        try:
            handler = self._handler(exchange)  # first, so that a refusal has the form of errors that its resource has
            if self._gate is not None:
                await self._gate.admit(exchange)
            if self.connections() > self._max_connections:
                raise Refused(503, "Too many connections", {"Connection": "close"})
            if not callable(handler):
                raise handler
            return await handler(exchange)
        except RequestFailed as error:
            return self._failed(exchange, error.status, error.message, error.headers)
        except (BadInput, Unserved) as error:
            return self._failed(exchange, 400, str(error), {})
        except (aiohttp.http.HttpProcessingError, aiohttp.ClientPayloadError, RequestPayloadError) as error:
            return self._failed(exchange, 400, f"Body cannot be read: {error}", {"Connection": "close"})
        except Exception:
            log.exception("Unexpected failure", extra={"attributes": {"http.request.id": exchange.request_id}})
            return self._failed(exchange, 500, f"Internal error; the log names it by {exchange.request_id}", {})

    def _handler(self, exchange: Exchange) -> Handler | Refused:
        """Who answers; where nobody does, the refusal, which is told to nobody whom the gate turns away."""
        path = exchange.request.path
        face = self._faces.get(path[:4].lower())
        if face is not None:
            exchange.route = f"{path[:3].lower()}/{{other}}"
            return face
        methods = self._routes.get(path)
        if methods is None:
            return Refused(404, f"No such resource: {path[:256]}")
        exchange.route = path
        handler = methods.get(exchange.request.method)
        if handler is None:
            allowed = ", ".join(sorted(methods))
            return Refused(
                405, f"{exchange.request.method[:32]} is not offered here, only {allowed}", {"Allow": allowed}
            )
        return handler

    def _failed(self, exchange: Exchange, status: int, message: str, headers: Mapping[str, str]) -> Answer:
        exchange.attributes["error.message"] = message[:512]
        if exchange.route.startswith("/v1"):
            return response(status, tfs_envelope(message), {**self._v1_headers, **headers})
        # Clients of the Open Inference Protocol look for `error`, which RFC 9457 lets a document carry beside its own.
        extension = {"error": message} if exchange.route.startswith("/v2") else {}
        return response(
            status, problem(status, message, **extension), {"Content-Type": "application/problem+json", **headers}
        )

    def _record(self, exchange: Exchange, status: int, sent: int) -> None:
        trace = exchange.trace
        end = time.perf_counter()
        seconds = end - exchange.started
        observe_request(exchange.request.method, exchange.route, status, seconds, trace)
        if exchange.laps:
            observe_phases(exchange.started, exchange.laps)
        sampled = trace is not None and trace.sampled
        if sampled:
            server_span.export(exchange, status, end)
        if self._access_log is None or exchange.quiet or (exchange.route.startswith("/health") and status == 200):
            return
        if self._access_log_sample < 1 and status < 400 and not sampled and random.random() >= self._access_log_sample:  # noqa: S311
            return
        self._access_log.record(exchange, status, seconds, sent)
