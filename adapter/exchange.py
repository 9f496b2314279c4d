"""One request and its answer: what every step of the chain knows of it, and how bodies are read within bounds."""

import asyncio
import itertools
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import StreamReader, web

from adapter.access.principal import Principal
from adapter.answer import Answer
from adapter.errors import Refused
from adapter.memory import Trim
from adapter.settings import Settings
from adapter.telemetry.metrics import BODY_BYTES

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_GRPC_TIMEOUT = re.compile(r"(\d{1,8})([HMSmun])")
_GRPC_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_PREFIX = secrets.token_hex(6)
_COUNTER = itertools.count(1)


class Exchange:
    """A request on its way through the house.

    `route` is the template that metrics and logs name; `attributes` goes into the access record.
    `started` is `time.perf_counter()`. `deadline` is in the event loop's time (uvloop counts milliseconds): the client's
    (`X-Request-Timeout` in seconds, or gRPC's `grpc-timeout`), never later than the service's own.

    The gate sets `client` (its address, where there is an allow-list), `principal` (None: no token was asked for), `tenant`
    ("" = none), and `quiet` where a request is to leave no access record.
    """

    __slots__ = (
        "attributes",
        "client",
        "deadline",
        "principal",
        "quiet",
        "request",
        "request_id",
        "route",
        "started",
        "tenant",
    )

    def __init__(self, request: web.BaseRequest, deadline: float) -> None:
        self.request = request
        self.started = time.perf_counter()
        self.route = "other"
        self.attributes: dict[str, Any] = {}
        headers = request.headers
        given = headers.get("X-Request-Id", "")
        self.request_id = given if _REQUEST_ID.fullmatch(given) else f"{_PREFIX}-{next(_COUNTER):x}"
        self.deadline = deadline
        self.client = ""
        self.principal: Principal | None = None
        self.tenant = ""
        self.quiet = False

    def honour_timeout(self) -> None:
        """Take the client's deadline where it is sooner. Raises Refused (400) when it cannot be read."""
        headers = self.request.headers
        seconds = headers.get("X-Request-Timeout")
        grpc = headers.get("grpc-timeout")
        if seconds is None and grpc is None:
            return
        now = asyncio.get_running_loop().time()
        if seconds is not None:
            try:
                limit = float(seconds)
            except ValueError:
                limit = -1.0
            if not 0 < limit < 1e6:
                raise Refused(400, f"X-Request-Timeout: expected seconds above 0, found {seconds[:32]!r}")
            self.deadline = min(self.deadline, now + limit)
        if grpc is not None:
            match = _GRPC_TIMEOUT.fullmatch(grpc)
            if match is None:
                raise Refused(400, f"grpc-timeout: expected digits and a unit (H M S m u n), found {grpc[:32]!r}")
            self.deadline = min(self.deadline, now + int(match[1]) * _GRPC_UNITS[match[2]])


Handler = Callable[[Exchange], Awaitable[web.StreamResponse]]


class Bodies:
    """Reads request bodies within the limits: bytes of one, bytes of all at one time, and the time it may take."""

    def __init__(self, settings: Settings) -> None:
        self._one = settings.max_body
        self._all = settings.max_body_total
        self._held = 0
        self._trim = Trim()
        BODY_BYTES.set_function(lambda: self._held)

    async def read(self, exchange: Exchange) -> bytes:
        """The whole body, decompressed.

        Raises:
            Refused: 413 beyond `max_body`, 408 when it has not come by the deadline, 503 when the bodies held by all
                requests are beyond `max_body_total`, 400 when it is not what its Content-Encoding says.
        """
        request = exchange.request
        if (request.content_length or 0) > self._one:
            raise Refused(413, f"Body of {request.content_length} bytes: at most {self._one} are accepted")
        if not request.can_read_body:
            return b""
        if request.content.is_eof():
            return self._received(request.content)
        if request.headers.get("Expect", "").lower() == "100-continue":  # RFC 9110 §10.1.1
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        return await self._receive(exchange)

    def _received(self, content: StreamReader) -> bytes:
        """A body that is here in full, as small ones are, without the way through `BaseRequest.read`."""
        body = content.read_nowait()
        while not content.at_eof():
            body += content.read_nowait()
        self._check(len(body))
        return body

    async def _receive(self, exchange: Exchange) -> bytes:
        chunks = bytearray()
        try:
            async with asyncio.timeout_at(exchange.deadline):
                async for chunk in exchange.request.content.iter_any():
                    self._hold(len(chunk))
                    chunks += chunk
                    self._check(len(chunks))
        except TimeoutError:
            raise Refused(408, f"Body not complete by the deadline: {len(chunks)} bytes came") from None
        finally:
            self._hold(-len(chunks))
            self._trim.after(len(chunks))
        return bytes(chunks)

    def _check(self, size: int) -> None:
        if size > self._one:
            raise Refused(413, f"Body too large: at most {self._one} bytes are accepted")

    def _hold(self, size: int) -> None:
        if size > 0 and self._held + size > self._all:
            raise Refused(503, "Too many bytes of request bodies are held at this moment")
        self._held += size


def response(status: int, body: bytes, headers: Mapping[str, str]) -> web.Response:
    """An answer of `body`; `headers` includes its Content-Type."""
    return Answer(status, body, headers)
