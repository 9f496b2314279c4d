"""The three ways of a request through a handler: inline on the event loop, in threads, or on a loop of the handler's own.

docs/decisions/060 says why there are three. Each takes the body of a `/predict` and gives the body of its answer.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Protocol

from adapter.bundle.bodies import Batch, Body
from adapter.bundle.interface import Interface
from adapter.bundle.pipeline import Call, HandlersLoop
from adapter.bundle.workers import Workers
from adapter.errors import RequestFailed
from adapter.exchange import Exchange
from adapter.inference.plane import DataPlane
from adapter.inference.signatures import Endpoint, Servable
from adapter.inference.tensor import Signature, Tensor
from adapter.telemetry.traces import Trace

log = logging.getLogger(__name__)

# An inline step that takes longer than `SLOW` seconds is a strike, a fast one takes a hundredth off; three are out.
SLOW = 0.005
STRIKES = 3.0
FORGIVEN = 0.01


class Way(Protocol):
    """One of the three."""

    async def answer(self, exchange: Exchange, body: Body) -> bytes:
        """Raises what the handler raises, Refused, CallFailed, and RequestFailed (504) when the deadline passes."""


class OneModel:
    """The model's part of the way, for handlers that are for one."""

    def __init__(self, plane: DataPlane, servable: Servable, signature: str) -> None:
        self._plane = plane
        self._servable = servable
        self._signature = signature

    async def endpoint(self, deadline: float) -> Endpoint:
        """What the handler's arrays are for. Raises Refused and CallFailed as the plane does."""
        known = self._plane.known(self._servable, self._signature)
        return known if known is not None else await self._plane.endpoint(self._servable, self._signature, deadline)

    async def predict(self, endpoint: Endpoint, inputs: dict[str, Tensor], exchange: Exchange) -> Mapping[str, Tensor]:
        """The model's outputs; the exchange takes note of the call. Raises likewise."""
        prediction = await self._plane.predict(endpoint, inputs, exchange.deadline, exchange.trace)
        exchange.rode(prediction.trip)
        exchange.served_by(self._servable.model, prediction.version)
        return prediction.outputs


class Threaded:
    """In `workers`, two trips for a request."""

    def __init__(self, interface: Interface, model: OneModel, workers: Workers) -> None:
        self._interface = interface
        self._model = model
        self._workers = workers

    async def answer(self, exchange: Exchange, body: Body) -> bytes:
        """See Way."""
        return await _in_time(exchange, self._answer(exchange, body))

    async def _answer(self, exchange: Exchange, body: Body) -> bytes:
        endpoint = await self._model.endpoint(exchange.deadline)
        batch, inputs = await self._workers.run(self._before, body, endpoint.signature)
        exchange.lap("pre")
        outputs = await self._model.predict(endpoint, inputs, exchange)
        answer = await self._workers.run(self._interface.answer, outputs, batch)
        exchange.lap("post")
        return answer

    def _before(self, body: Body, signature: Signature) -> tuple[Batch, dict[str, Tensor]]:
        batch = self._interface.read(body)
        return batch, self._interface.tensors(batch, signature)


class Inline:
    """On the event loop, for a handler that says it is fast; one that is not goes by `otherwise` from then on."""

    def __init__(self, name: str, interface: Interface, model: OneModel, otherwise: Way) -> None:
        self._name = name
        self._interface = interface
        self._model = model
        self._otherwise = otherwise
        self._strikes = 0.0

    async def answer(self, exchange: Exchange, body: Body) -> bytes:
        """See Way; only the call keeps the deadline, since nothing can interrupt the rest."""
        if self._strikes > STRIKES:
            return await self._otherwise.answer(exchange, body)
        endpoint = await self._model.endpoint(exchange.deadline)
        started = time.perf_counter()
        batch = self._interface.read(body)
        inputs = self._interface.tensors(batch, endpoint.signature)
        took = time.perf_counter() - started
        exchange.lap("pre")
        outputs = await self._model.predict(endpoint, inputs, exchange)
        started = time.perf_counter()
        answer = self._interface.answer(outputs, batch)
        exchange.lap("post")
        self._mind_time(max(took, time.perf_counter() - started))
        return answer

    def _mind_time(self, took: float) -> None:
        if self._strikes > STRIKES:  # it is out; this one was still on the way
            return
        if took <= SLOW:
            self._strikes = max(0.0, self._strikes - FORGIVEN)
            return
        self._strikes += 1
        if self._strikes > STRIKES:
            log.warning(
                "%s says inline, but a step took %.0f ms: it goes to threads from now on", self._name, took * 1e3
            )


class Piped:
    """By `async def predict`, on the handler's own loop."""

    def __init__(
        self,
        interface: Interface,
        plane: DataPlane,
        workers: Workers,
        loop: HandlersLoop,
        versions: Mapping[str, int],
        files: Path,
        innermost: Callable[[Trace], Trace] | None,
    ) -> None:
        self._interface = interface
        self._plane = plane
        self._workers = workers
        self._loop = loop
        self._versions = versions
        self._files = files
        self._innermost = innermost

    async def answer(self, exchange: Exchange, body: Body) -> bytes:
        """See Way."""
        return await _in_time(exchange, self._answer(exchange, body))

    async def _answer(self, exchange: Exchange, body: Body) -> bytes:
        call = Call(self._plane, self._workers, self._versions, exchange.request_id, self._files, exchange.deadline)
        call.trace = exchange.trace
        call.innermost = self._innermost

        async def predict() -> bytes:
            return await self._interface.predict(call, self._interface.read(body))

        answer = await self._loop.run(predict())
        exchange.lap("handler")
        for model in sorted(call.served):
            exchange.served_by(model, call.served[model])
        return answer


async def _in_time(exchange: Exchange, answer: Coroutine[Any, Any, bytes]) -> bytes:
    limit = asyncio.timeout_at(exchange.deadline)
    try:
        async with limit:
            return await answer
    except TimeoutError:
        if not limit.expired():
            raise
        raise RequestFailed(504, "The handler did not answer in time") from None
