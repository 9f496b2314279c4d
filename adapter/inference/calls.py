"""Calls to TensorFlow Serving: bytes in, bytes out, bounded in number and in time, tried again where that is safe.

Messages are encoded and decoded by the codecs and carried by a channel (`channel.py`). TensorFlow Serving refuses calls
beyond its `--grpc_max_threads` with RESOURCE_EXHAUSTED, so calls wait here instead, in order of arrival (`limits.py`); one
slot is kept for the group's own questions (`ask`), which must never stand in a queue of predictions.
"""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Protocol

from grpc import StatusCode

from adapter.errors import CallFailed, too_late
from adapter.inference.channel import Channel
from adapter.inference.limits import Limit
from adapter.pb import serving_pb2
from adapter.telemetry.metrics import CALL_SECONDS, CALLS_WAITING, RETRIES
from adapter.telemetry.traces import Trip

_PREDICTION = serving_pb2.DESCRIPTOR.services_by_name["PredictionService"].full_name
_MODEL = serving_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name
PREDICT = f"/{_PREDICTION}/Predict"
CLASSIFY = f"/{_PREDICTION}/Classify"
REGRESS = f"/{_PREDICTION}/Regress"
METADATA = f"/{_PREDICTION}/GetModelMetadata"
STATUS = f"/{_MODEL}/GetModelStatus"

ATTEMPTS = 4
BACKOFF_SECONDS = 0.05
# Retries may be at most this share of recent calls, so that a dying server is not buried (gRFC A6, retry throttling).
BUDGET_TOKENS = 100.0
BUDGET_PER_SUCCESS = 0.2


class Calls(Protocol):
    """What the data plane needs of a connection to TensorFlow Serving."""

    async def call(self, path: str, request: bytes, deadline: float, trip: Trip | None = None) -> bytes:
        """One unary call; `deadline` is in the event loop's time. Raises CallFailed or Refused."""


class Connection:
    """Calls over `channel`, `max_calls` in flight at most, `max_queue` waiting."""

    def __init__(self, channel: Channel, max_calls: int, max_queue: int) -> None:
        self._channel = channel
        self._limit = Limit(max(1, max_calls - 1), max_queue)
        self._now = asyncio.get_running_loop().time
        self._budget = BUDGET_TOKENS
        CALLS_WAITING.set_function(lambda: self._limit.waiting)
        self.on_unavailable: Callable[[], None] = lambda: None
        """Called when a call fails for want of a server."""
        self.on_lost: Callable[[], None] = lambda: None
        """Called, while `watch` runs, when an established connection is lost."""
        self.hung = False
        """Whether TensorFlow Serving is known to answer nobody: then calls fail at once, not at their deadline."""

    async def call(self, path: str, request: bytes, deadline: float, trip: Trip | None = None) -> bytes:
        """Answer of `path` to `request`, both encoded messages; `trip` says for whom, and is told when.

        UNAVAILABLE and RESOURCE_EXHAUSTED are tried again with jitter while the deadline and the retry budget allow: a
        unary answer has not begun when the call fails, and predictions have no side effects.

        Raises:
            CallFailed: with TensorFlow Serving's status and words, or UNAVAILABLE, or DEADLINE_EXCEEDED.
            Refused: 503 when too many calls are waiting already.
        """
        if self.hung:
            raise CallFailed(StatusCode.UNAVAILABLE, "TensorFlow Serving does not answer")
        await self._limit.acquire(deadline)
        try:
            return await self._attempt(path, request, deadline, trip or Trip())
        finally:
            self._limit.release()

    async def ask(self, path: str, request: bytes, timeout: float) -> bytes:
        """One attempt on the slot kept for the group's own questions. Raises CallFailed."""
        return await self._channel.unary(path, request, timeout)

    async def watch(self) -> None:
        """Tell `on_lost` at once whenever the connection goes; runs until cancelled."""
        while True:
            await self._channel.lost()
            self.on_lost()

    async def close(self) -> None:
        """Close the channel; calls still in flight are cancelled."""
        await self._channel.close()

    async def _attempt(self, path: str, request: bytes, deadline: float, trip: Trip) -> bytes:
        now = self._now
        observe = CALL_SECONDS[path]
        for attempt in range(ATTEMPTS):
            left = deadline - now()
            if left <= 0:
                break
            started = trip.sent = time.perf_counter()
            ids, metadata = trip.depart() if trip.riders else (None, ())
            try:
                answer = await self._channel.unary(path, request, left, metadata)
            except CallFailed as error:
                trip.returned = time.perf_counter()
                observe(error.code.name, trip.returned - started)
                trip.arrive(path, ids, error.code.name, attempt)
                failure = error
            else:
                trip.returned = time.perf_counter()
                observe("OK", trip.returned - started)
                trip.arrive(path, ids, "OK", attempt)
                self._budget = min(BUDGET_TOKENS, self._budget + BUDGET_PER_SUCCESS)
                return answer
            if failure.code is StatusCode.UNAVAILABLE:
                self.on_unavailable()
            elif failure.code is not StatusCode.RESOURCE_EXHAUSTED:
                raise failure
            pause = BACKOFF_SECONDS * 2**attempt * random.uniform(0.5, 1.5)  # noqa: S311 - jitter, not a secret
            if attempt + 1 == ATTEMPTS or self._budget < 1 or now() + pause >= deadline:
                raise failure
            self._budget -= 1
            RETRIES.inc()
            await asyncio.sleep(pause)
        raise too_late()
