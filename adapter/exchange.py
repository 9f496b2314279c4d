"""One request and its answer: what every step of the chain knows of it, and how bodies are read within bounds."""

import asyncio
import itertools
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import Any

from adapter.access.limits import Meter
from adapter.access.principal import Principal
from adapter.errors import Refused
from adapter.http.answer import Answer
from adapter.http.inflate import Content
from adapter.http.request import Request
from adapter.joining import joined
from adapter.memory import Trim
from adapter.settings import Settings
from adapter.telemetry.metrics import ACCESS_DENIED, BODY_BYTES
from adapter.telemetry.traces import Trace, Trip

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
# float() and \d know more spellings of digits than these protocols do.
_SECONDS = re.compile(r"(?=[0-9.]{1,32}\Z)(?:[0-9]+\.?[0-9]*|\.[0-9]+)")
_GRPC_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_GRPC_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
# Chunks of a body that are smaller are put together as they come: an object a chunk is much where one is a byte.
_SMALL = 1 << 12
_PREFIX = secrets.token_hex(6)
_COUNTER = itertools.count(1)


class Exchange:
    """A request on its way through the house.

    `route` is the template that metrics and logs name; `attributes` goes into the access record.
    `started` is `time.perf_counter()`. `deadline` is in the event loop's time (uvloop counts milliseconds): the client's
    (`X-Request-Timeout` in seconds, or gRPC's `grpc-timeout`), never later than the service's own.

    The gate sets `client` (its address, where there is an allow-list), `principal` (None: no token was asked for), `tenant`
    ("" = none), `meter` (what that tenant may use), and `quiet` where a request is to leave no access record.
    `served` names the models and versions that made the answer ("" = none did): its X-Model-Version.
    `audited` is whether the audit has chosen it, None before that.

    `received` is the size of its body in bytes: as announced, else as many as have come (decompressed, if it is compressed).
    `held` is how many of them count against all that requests may hold, until its end calls `release`.

    `laps` are the ends of its phases so far (`telemetry.metrics.PHASES`), moments of `time.perf_counter()`; `trace` is its
    place in a trace, if it has one.
    """

    __slots__ = (
        "attributes",
        "audited",
        "client",
        "deadline",
        "held",
        "laps",
        "meter",
        "principal",
        "quiet",
        "received",
        "release",
        "request",
        "request_id",
        "route",
        "served",
        "started",
        "tenant",
        "trace",
    )

    def __init__(self, request: Request, deadline: float) -> None:
        self.request = request
        self.started = time.perf_counter()
        length = request.content_length
        self.received = len(request.body or b"") if length is None else length
        self.held = 0
        self.release: Callable[[int], None] | None = None
        self.route = "other"
        self.attributes: dict[str, Any] = {}
        headers = request.headers
        given = headers.get("X-Request-Id", "")
        self.request_id = given if _REQUEST_ID.fullmatch(given) else f"{_PREFIX}-{next(_COUNTER):x}"
        self.deadline = deadline
        self.client = ""
        self.principal: Principal | None = None
        self.tenant = ""
        self.meter: Meter | None = None
        self.quiet = False
        self.served = ""
        self.audited: bool | None = None
        self.laps: list[tuple[str, float]] = []
        self.trace: Trace | None = None

    def lap(self, phase: str) -> None:
        """The phase of this name ends now, and the next begins."""
        self.laps.append((phase, time.perf_counter()))

    def rode(self, trip: Trip) -> None:
        """It waited for this call to TensorFlow Serving, and had its answer from it."""
        if trip.sent:
            self.laps += (("queue", trip.sent), ("call", trip.returned))

    def ask_for(self, model: str) -> None:
        """The request is for `model`. Raises Refused (403) where its tenant may not call it."""
        self.attributes["tandem.model"] = model[:128]
        if self.meter is not None and self.meter.quota.models is not None and model not in self.meter.quota.models:
            self.attributes["tandem.denied"] = "tenant"
            ACCESS_DENIED.labels("tenant").inc()
            raise Refused(403, f"Tenant {self.meter.name} may not call model {model[:128]}")

    def served_by(self, model: str, version: int) -> None:
        """This version of this model, as TensorFlow Serving reported it, made the answer, or a part of it."""
        served = _served(model, version)
        self.served = f"{self.served}, {served}" if self.served else served
        self.attributes["tandem.model_version"] = version

    def honour_timeout(self) -> None:
        """Take the client's deadline where it is sooner. Raises Refused (400) when it cannot be read."""
        headers = self.request.headers
        seconds = headers.get("X-Request-Timeout")
        grpc = headers.get("grpc-timeout")
        if seconds is None and grpc is None:
            return
        now = asyncio.get_running_loop().time()
        if seconds is not None:
            limit = float(seconds) if _SECONDS.fullmatch(seconds) else -1.0
            if not 0 < limit < 1e6:
                raise Refused(400, f"X-Request-Timeout: expected seconds above 0, found {seconds[:32]!r}")
            self.deadline = min(self.deadline, now + limit)
        if grpc is not None:
            match = _GRPC_TIMEOUT.fullmatch(grpc)
            if match is None:
                raise Refused(400, f"grpc-timeout: expected digits and a unit (H M S m u n), found {grpc[:32]!r}")
            self.deadline = min(self.deadline, now + int(match[1]) * _GRPC_UNITS[match[2]])


@lru_cache(1024)
def _served(model: str, version: int) -> str:
    """`name@version`, as X-Bundle has it; a name that could break a header is left out."""
    return f"{model}@{version}" if re.fullmatch(r"[!-+\--~]+", model) else f"@{version}"


Handler = Callable[[Exchange], Awaitable[Answer]]


class Bodies:
    """Reads request bodies within the limits: bytes of one, bytes of all at one time, and the time it may take.

    A body counts from its first byte until its request is answered: it, or the tensors made of it, may wait for their
    turn or for TensorFlow Serving for all of that time.
    """

    def __init__(self, settings: Settings) -> None:
        self._one = settings.max_body
        self._all = settings.max_body_total
        self._held = 0
        self._trim = Trim()
        self.on_read: Callable[[Exchange, bytes], Awaitable[None]] | None = None
        """Told of each body that was read."""
        BODY_BYTES.set_function(lambda: self._held)

    async def read(self, exchange: Exchange, most: int | None = None) -> bytes:
        """The whole body, decompressed; `most` is a bound of the resource's own.

        Raises:
            Refused: 413 beyond `max_body`, 408 when it has not come by the deadline, 503 when the bodies held by all
                requests are beyond `max_body_total`, 400 when it is not what its Content-Encoding says.
        """
        request = exchange.request
        limit = self._one if exchange.meter is None else self._limit(exchange.meter)
        if most is not None and most < limit:
            limit = most
        if (request.content_length or 0) > limit:
            raise Refused(413, f"Body of {request.content_length} bytes: at most {limit} are accepted")
        body = request.body
        if body is None:
            if request.headers.get("Expect", "").lower() == "100-continue":
                request.send_continue()
            body = await self._receive(exchange, request.content, limit)
        else:
            _check(len(body), limit)
            self._hold(exchange, len(body))
        if self.on_read is not None:
            await self.on_read(exchange, body)
        return body

    def _limit(self, meter: Meter) -> int:
        """Bytes that a body of this tenant may have: the service's bound, or its own."""
        return self._one if meter.quota.max_body is None else min(self._one, meter.quota.max_body)

    async def _receive(self, exchange: Exchange, content: Content, limit: int) -> bytes:
        parts: list[bytes] = []
        recent = bytearray()
        size = 0
        try:
            async with asyncio.timeout_at(exchange.deadline):
                async for chunk in content.iter_any():
                    self._hold(exchange, len(chunk))
                    size += len(chunk)
                    _check(size, limit)
                    if len(chunk) < _SMALL and len(recent) < _SMALL:
                        recent += chunk
                    else:
                        parts += (bytes(recent), chunk)
                        recent.clear()
        except TimeoutError:
            raise Refused(408, f"Body not complete by the deadline: {size} bytes came") from None
        finally:
            if exchange.request.content_length is None:
                exchange.received = size
        joining = joined([*parts, bytes(recent)])
        while True:
            try:
                next(joining)
            except StopIteration as stop:
                body: bytes = stop.value
                return body
            await asyncio.sleep(0)

    def _hold(self, exchange: Exchange, size: int) -> None:
        if self._held + size > self._all:
            raise Refused(503, "Too many bytes of request bodies are held at this moment")
        self._held += size
        exchange.held += size
        exchange.release = self._release

    def _release(self, size: int) -> None:
        self._held -= size
        self._trim.after(size)


def _check(size: int, limit: int) -> None:
    if size > limit:
        raise Refused(413, f"Body too large: at most {limit} bytes are accepted")


def response(status: int, body: bytes, headers: Mapping[str, str]) -> Answer:
    """An answer of `body`; `headers` includes its Content-Type."""
    return Answer(status, body, headers)
