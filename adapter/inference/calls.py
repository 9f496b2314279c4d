"""Calls to TensorFlow Serving: bytes in, bytes out, bounded in number and in time, tried again where that is safe.

One long-lived channel (`grpc.aio`), no per-call stubs: messages are encoded and decoded by the codecs. TensorFlow Serving
refuses calls beyond its `--grpc_max_threads` with RESOURCE_EXHAUSTED, so calls wait here instead, in order of arrival
(`limits.py`); one slot is kept for the group's own questions (`ask`), which must never stand in a queue of predictions.
"""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Protocol

import grpc
import grpc.aio

from adapter.errors import CallFailed
from adapter.inference.limits import Limit
from adapter.pb import serving_pb2
from adapter.telemetry.metrics import CALL_SECONDS, CALLS_WAITING, RETRIES

_PREDICTION = serving_pb2.DESCRIPTOR.services_by_name["PredictionService"].full_name
_MODEL = serving_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name
PREDICT = f"/{_PREDICTION}/Predict"
CLASSIFY = f"/{_PREDICTION}/Classify"
REGRESS = f"/{_PREDICTION}/Regress"
METADATA = f"/{_PREDICTION}/GetModelMetadata"
STATUS = f"/{_MODEL}/GetModelStatus"

# Tensors may be as large as TensorFlow Serving takes (server.cc: int32 max); the HTTP side bounds them.
_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.use_local_subchannel_pool", 1),
)

ATTEMPTS = 4
BACKOFF_SECONDS = 0.05
# Retries may be at most this share of recent calls, so that a dying server is not buried (gRFC A6, retry throttling).
BUDGET_TOKENS = 100.0
BUDGET_PER_SUCCESS = 0.2

Stub = Callable[..., grpc.aio.UnaryUnaryCall]


class Calls(Protocol):
    """What the data plane needs of a connection to TensorFlow Serving."""

    async def call(self, path: str, request: bytes, deadline: float) -> bytes:
        """One unary call; `deadline` is in the event loop's time. Raises CallFailed or Refused."""


class Connection:
    """The channel to TensorFlow Serving at `target` (`unix:///path` or `host:port`), `max_calls` in flight at most."""

    def __init__(self, target: str, max_calls: int, max_queue: int) -> None:
        self._channel = grpc.aio.insecure_channel(target.replace("unix://", "unix:", 1), _CHANNEL_OPTIONS)
        self._stubs: dict[str, Stub] = {
            path: self._channel.unary_unary(path) for path in (PREDICT, CLASSIFY, REGRESS, METADATA, STATUS)
        }
        self._limit = Limit(max(1, max_calls - 1), max_queue)
        self._now = asyncio.get_running_loop().time
        self._budget = BUDGET_TOKENS
        CALLS_WAITING.set_function(lambda: self._limit.waiting)
        self.on_unavailable: Callable[[], None] = lambda: None

    async def call(self, path: str, request: bytes, deadline: float) -> bytes:
        """Answer of `path` to `request`, both encoded messages.

        UNAVAILABLE and RESOURCE_EXHAUSTED are tried again with jitter while the deadline and the retry budget allow: a
        unary answer has not begun when the call fails, and predictions have no side effects.

        Raises:
            CallFailed: with TensorFlow Serving's status and words, or UNAVAILABLE, or DEADLINE_EXCEEDED.
            Refused: 503 when too many calls are waiting already.
        """
        await self._limit.acquire(deadline)
        try:
            return await self._attempt(path, request, deadline)
        finally:
            self._limit.release()

    async def ask(self, path: str, request: bytes, timeout: float) -> bytes:
        """One attempt on the slot kept for the group's own questions. Raises CallFailed."""
        try:
            answer: bytes = await self._stubs[path](request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            raise _failure(error) from None
        return answer

    async def close(self) -> None:
        """Close the channel; calls still in flight are cancelled."""
        await self._channel.close()

    async def _attempt(self, path: str, request: bytes, deadline: float) -> bytes:
        now = self._now
        stub = self._stubs[path]
        observe = CALL_SECONDS[path]
        for attempt in range(ATTEMPTS):
            left = deadline - now()
            if left <= 0:
                break
            started = time.perf_counter()
            try:
                answer: bytes = await stub(request, timeout=left)
            except grpc.aio.AioRpcError as error:
                observe(error.code().name, time.perf_counter() - started)
                failure = _failure(error)
            else:
                observe("OK", time.perf_counter() - started)
                self._budget = min(BUDGET_TOKENS, self._budget + BUDGET_PER_SUCCESS)
                return answer
            if failure.code is grpc.StatusCode.UNAVAILABLE:
                self.on_unavailable()
            elif failure.code is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise failure
            pause = BACKOFF_SECONDS * 2**attempt * random.uniform(0.5, 1.5)  # noqa: S311 - jitter, not a secret
            if attempt + 1 == ATTEMPTS or self._budget < 1 or now() + pause >= deadline:
                raise failure
            self._budget -= 1
            RETRIES.inc()
            await asyncio.sleep(pause)
        raise CallFailed(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline exceeded")


def _failure(error: grpc.aio.AioRpcError) -> CallFailed:
    return CallFailed(error.code(), error.details() or error.code().name)
