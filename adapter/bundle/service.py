"""A bundle's handler in its life: imported and started off the event loop, watched, asked, stopped.

    imported ─► started ─► compared with the models ─► asked … ─► stopped
       └──────────┴──────────────┴── fails: the check says why, and the service never gets ready

Checks: `handler` (imported, started, not stuck) and `signatures` (the models have what the bundle names). Requests take one
of three ways: `inline` on the event loop, in threads (`workers.py`), or `async def predict` on a loop of its own
(`pipeline.py`); docs/decisions/060 says why.
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapter import memory
from adapter.bundle import loading, prints, tensors
from adapter.bundle.api import BadInput
from adapter.bundle.bodies import BATCH, Batch
from adapter.bundle.interface import Interface
from adapter.bundle.loading import HandlerError
from adapter.bundle.manifest import Manifest
from adapter.bundle.pipeline import Call, HandlersLoop
from adapter.bundle.tensors import Misfit
from adapter.bundle.workers import Workers
from adapter.contract.docs import Endpoint
from adapter.errors import CallFailed, Refused, RequestFailed
from adapter.exchange import Exchange
from adapter.inference import tensor
from adapter.inference.plane import DataPlane
from adapter.inference.signatures import Servable
from adapter.inference.tensor import Signature, Tensor
from adapter.telemetry.traces import Trace

if TYPE_CHECKING:
    from adapter.telemetry.handler_spans import HandlerSpans

log = logging.getLogger(__name__)

Way = Callable[[Interface, Exchange, str, bytes], Awaitable[bytes]]
Results = Mapping[str, tuple[bool, str]]

# Seconds.
TICK = 0.1
PATIENCE = 30.0
"""How long an import may take before the check says that it hangs."""
BLOCKED = 5.0
"""How long beyond its time limit a call may keep a thread, or the handler's loop be silent."""
GOODBYE = 5.0
_NO_TRACE = nullcontext()
# An inline step that takes longer than `SLOW` seconds is a strike, a fast one takes a hundredth off; three are out.
SLOW = 0.005
STRIKES = 3.0
FORGIVEN = 0.01


class Service:
    """The handler of `bundle`, unpacked at `directory`, over `plane`. `tell` takes the checks, `end` stops the service.

    With `spans`, those that the handler makes join its request's trace.
    """

    def __init__(
        self,
        directory: Path,
        bundle: Manifest,
        plane: DataPlane,
        *,
        max_queue: int,
        max_memory: int,
        tell: Callable[[Results], None],
        end: Callable[[str], None],
        spans: "HandlerSpans | None" = None,
    ) -> None:
        self._directory = directory
        self._bundle = bundle
        self._plane = plane
        self._max_queue = max_queue
        self._max_memory = max_memory
        self._blanking = prints.capture(os.environ) if bundle.handler else None
        self._tell = tell
        self._end = end
        self._spans = spans
        self._name = bundle.handler or ""
        self._versions = {model.name: model.version for model in bundle.models}
        self._limit = bundle.limits.timeout or float("inf")
        self._loop = asyncio.get_running_loop()
        self._handlers_loop: HandlersLoop | None = None
        self._workers: Workers | None = None
        self._interface: Interface | None = None
        self._problem = f"{self._name} is being imported"
        self._servable = Servable(bundle.models[0].name, bundle.models[0].version)
        self._signature = ""
        self._inline = False
        self._models: tuple[str, ...] = ()
        self._strikes = 0.0
        self.on_loaded: Callable[[Endpoint], None] = lambda _: None

    async def run(self) -> None:
        """Import, start, compare, and then watch, until cancelled."""
        since = time.monotonic()
        loading_it = asyncio.create_task(self._load()) if self._name else None
        compared = False
        while True:
            if loading_it is not None:
                if not loading_it.done() and time.monotonic() - since > PATIENCE:
                    self._problem = f"{self._name} has not come back from its import or startup for {PATIENCE:g} s"
                self._tell({"handler": self._health()})
            if not compared and (self._interface is not None or loading_it is None):
                compared = await self._compare()
            self._mind_memory()
            await asyncio.sleep(1.0 if compared else TICK)

    async def answer(self, exchange: Exchange, content_type: str, body: bytes) -> bytes:
        """The body of the answer to a `/predict`.

        Raises:
            RequestFailed: the client's mistake (4xx), the handler's (500), TensorFlow Serving's; 503 before it is loaded,
                504 when its time limit passes.
            BadInput (the codecs'): the body is not what the handler's request asks for.
        """
        interface = self._interface
        if interface is None:
            raise Refused(503, self._problem)
        for model in self._models:
            exchange.ask_for(model)
        exchange.deadline = min(exchange.deadline, self._loop.time() + self._limit)
        try:
            with self._in_its_trace(exchange.trace):
                if self._inline:
                    return await self._inlined(interface, exchange, content_type, body)
                return await self._in_time(
                    self._piped if interface.is_pipeline else self._threaded, interface, exchange, content_type, body
                )
        except BadInput as error:
            raise Refused(error.status, _place(error) + error.message) from None
        except CallFailed as error:
            if error.status >= 500 or error.status == 429:
                raise
            raise self._failed(exchange, Misfit(f"the model refused its inputs: {error.message}")) from None
        except (RequestFailed, tensor.BadInput):
            raise
        except Exception as error:
            raise self._failed(exchange, error) from None

    async def close(self) -> None:
        """Run the handler's `shutdown`, and let its threads go."""
        if self._interface is not None:
            stop = asyncio.create_task(self._off_the_loop(self._interface.handler.shutdown))
            done, _ = await asyncio.wait({stop}, timeout=GOODBYE)
            if not done:
                log.warning("%s: shutdown has not come back for %g s", self._name, GOODBYE)
            elif (error := stop.exception()) is not None:
                log.error("%s: shutdown failed", self._name, exc_info=error)
        if self._workers is not None:
            self._workers.close()
        if self._handlers_loop is not None:
            self._handlers_loop.stop()

    # The three ways.

    def _in_its_trace(self, trace: Trace | None) -> AbstractContextManager[None]:
        """Around the handler: spans that it makes belong to the request, where anybody wants them."""
        if self._spans is None or trace is None or not trace.sampled:
            return _NO_TRACE
        return self._spans.around(trace)

    async def _in_time(
        self, way: Way, interface: Interface, exchange: Exchange, content_type: str, body: bytes
    ) -> bytes:
        limit = asyncio.timeout_at(exchange.deadline)
        try:
            async with limit:
                return await way(interface, exchange, content_type, body)
        except TimeoutError:
            if not limit.expired():
                raise
            raise RequestFailed(504, "The handler did not answer in time") from None

    async def _inlined(self, interface: Interface, exchange: Exchange, content_type: str, body: bytes) -> bytes:
        endpoint = self._plane.known(self._servable, self._signature)
        if endpoint is None:
            endpoint = await self._plane.endpoint(self._servable, self._signature, exchange.deadline)
        started = time.perf_counter()
        batch = interface.read(content_type, body)
        inputs = interface.tensors(batch, endpoint.signature)
        took = time.perf_counter() - started
        exchange.lap("pre")
        prediction = await self._plane.predict(endpoint, inputs, exchange.deadline, exchange.trace)
        exchange.rode(prediction.trip)
        exchange.served_by(self._servable.model, prediction.version)
        started = time.perf_counter()
        answer = interface.answer(prediction.outputs, batch)
        exchange.lap("post")
        self._mind_time(max(took, time.perf_counter() - started))
        return answer

    async def _threaded(self, interface: Interface, exchange: Exchange, content_type: str, body: bytes) -> bytes:
        workers = self._workers
        assert workers is not None  # noqa: S101 - made with the interface
        endpoint = self._plane.known(self._servable, self._signature)
        if endpoint is None:
            endpoint = await self._plane.endpoint(self._servable, self._signature, exchange.deadline)
        batch, inputs = await workers.run(_before, interface, content_type, body, endpoint.signature)
        exchange.lap("pre")
        prediction = await self._plane.predict(endpoint, inputs, exchange.deadline, exchange.trace)
        exchange.rode(prediction.trip)
        exchange.served_by(self._servable.model, prediction.version)
        answer = await workers.run(interface.answer, prediction.outputs, batch)
        exchange.lap("post")
        return answer

    async def _piped(self, interface: Interface, exchange: Exchange, content_type: str, body: bytes) -> bytes:
        assert self._workers is not None  # noqa: S101 - made with the interface
        assert self._handlers_loop is not None  # noqa: S101 - likewise
        call = Call(self._plane, self._workers, self._versions, exchange.request_id, self._directory, exchange.deadline)
        call.trace = exchange.trace
        call.innermost = self._spans.innermost if self._spans is not None else None

        async def predict() -> bytes:
            return await interface.predict(call, interface.read(content_type, body))

        answer = await self._handlers_loop.run(predict())
        exchange.lap("handler")
        for model in sorted(call.served):
            exchange.served_by(model, call.served[model])
        return answer

    # Its life.

    async def _load(self) -> None:
        try:
            interface = await self._off_the_loop(self._made)
        except HandlerError as error:
            self._problem = self._blanking.blanked(str(error)) if self._blanking else str(error)
            log.error("%s", self._problem, exc_info=error.__cause__)
            return
        leaked = self._blanking.leaked if self._blanking is not None else set()
        if leaked:
            self._problem = f"{self._name} printed the value of {', '.join(sorted(leaked))} while it was imported"
            log.error("%s", self._problem)
            return
        handler = type(interface.handler)
        self._workers = Workers(handler.threads, self._max_queue)
        self._signature = handler.signature
        model = self._bundle.model(handler.model) if handler.model else self._bundle.models[0]
        if model is None:
            self._problem = f"{self._name} is for model {handler.model!r}, which the bundle does not hold"
            log.error("%s", self._problem)
            return
        self._servable = Servable(model.name, model.version)
        self._inline = handler.inline
        self._models = tuple(self._versions) if interface.is_pipeline else (model.name,)
        self._interface = interface
        self.on_loaded(interface.openapi())

    def _made(self) -> Interface:
        """In a thread: the handler, imported and started. Raises HandlerError."""
        handler = loading.load(self._directory, self._name)
        interface = Interface(handler, self._bundle.limits.max_batch)
        if interface.is_pipeline:
            self._handlers_loop = HandlersLoop()
        try:
            self._awaited(handler.startup())
        except BaseException as error:
            raise HandlerError(f"{self._name}: startup fails: {loading.sentence(error, self._directory)}") from error
        return interface

    def _awaited(self, begun: Any) -> None:
        """In a thread: what a hook returned, awaited if it is `async`."""
        if begun is None:
            return
        if self._handlers_loop is None:
            self._handlers_loop = HandlersLoop()
        self._handlers_loop.run_from_thread(begun)

    async def _off_the_loop(self, function: Callable[[], Any]) -> Any:
        """In a daemon thread of its own: what hangs there keeps nobody, not even the end of the process."""
        future: asyncio.Future[Any] = self._loop.create_future()

        def run() -> None:
            result, error = None, None
            try:
                result = function()
                if function.__name__ == "shutdown":
                    self._awaited(result)
            except BaseException as raised:
                error = raised if isinstance(raised, Exception) else RuntimeError(repr(raised))
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(_settle, future, result, error)

        threading.Thread(target=run, name="handler-life", daemon=True).start()
        return await future

    def _health(self) -> tuple[bool, str]:
        if self._interface is None or self._workers is None:
            return False, self._problem
        seconds = min(self._limit, 60.0) + BLOCKED
        if self._workers.stuck(seconds) == self._workers.threads:
            return False, f"every thread of {self._name} has been at one call for more than {seconds:g} s"
        if self._handlers_loop is not None and (blocked := self._handlers_loop.blocked()) > BLOCKED:
            return (
                False,
                f"{self._name} has blocked its event loop for {blocked:.0f} s (ctx.run is for what takes time)",
            )
        return True, f"{self._name} is imported and started"

    async def _compare(self) -> bool:
        """Whether models and bundle could be compared; the check `signatures` says whether they fit."""
        deadline = self._loop.time() + 1.0
        try:
            problem = await self._misfit(deadline)
        except RequestFailed:  # TensorFlow Serving is not there yet
            self._tell({"signatures": (False, "not yet compared with the models")})
            return False
        if problem is not None:
            log.error("%s", problem)
        self._tell({"signatures": (problem is None, problem or "the models have what the bundle names")})
        return True

    async def _misfit(self, deadline: float) -> str | None:
        for model in self._bundle.models:
            for name in model.signatures:
                problem = await self._missing(Servable(model.name, model.version), name, "bundle.toml", deadline)
                if problem is not None:
                    return problem
        if self._interface is None or self._interface.is_pipeline:
            return None
        handler = type(self._interface.handler)
        problem = await self._missing(self._servable, handler.signature, self._name, deadline)
        if problem is not None:
            return problem
        signature = (await self._plane.endpoint(self._servable, handler.signature, deadline)).signature
        differs = tensors.mismatch(handler.inputs, signature.inputs, "input") or tensors.mismatch(
            handler.outputs, signature.outputs, "output"
        )
        return f"{self._name} declares {differs}" if differs else None

    async def _missing(self, servable: Servable, signature: str, who: str, deadline: float) -> str | None:
        try:
            await self._plane.endpoint(servable, signature, deadline)
        except Refused as error:
            if error.status != 400:
                raise
            return f"{who} uses signature {signature!r} of model {servable.model} {servable.version}, which has none of that name"
        return None

    def _mind_time(self, took: float) -> None:
        """Off the event loop with a handler that is not as fast as it says."""
        if took <= SLOW:
            self._strikes = max(0.0, self._strikes - FORGIVEN)
            return
        self._strikes += 1
        if self._strikes > STRIKES:
            self._inline = False
            log.warning(
                "%s says inline, but a step took %.0f ms: it goes to threads from now on", self._name, took * 1e3
            )

    def _mind_memory(self) -> None:
        held = memory.resident()
        if self._max_memory and held > self._max_memory:
            reason = f"{held >> 20} MiB of memory are held, {self._max_memory >> 20} are allowed; {self._name} may leak"
            log.error("%s", reason)
            self._end(reason)

    def _failed(self, exchange: Exchange, error: BaseException) -> RequestFailed:
        """The handler's own fault: all of it to the log, to the client only where to look."""
        attributes = {"http.request.id": exchange.request_id, "event.name": "tandem.handler_failed"}
        log.error(
            "%s failed: %s",
            self._name,
            loading.sentence(error, self._directory),
            exc_info=error,
            extra={"attributes": attributes},
        )
        return RequestFailed(500, f"The handler failed; the log names it by {exchange.request_id}")


def _before(
    interface: Interface, content_type: str, body: bytes, signature: Signature
) -> tuple[Batch, dict[str, Tensor]]:
    batch = interface.read(content_type, body)
    return batch, interface.tensors(batch, signature)


def _place(error: BadInput) -> str:
    """`instances[2].image: ` as far as it is known."""
    place = f"{BATCH}[{error.index}]" if error.index is not None else ""
    place += f".{error.field}" if error.field and place else error.field
    return f"{place}: " if place else ""


def _settle(future: "asyncio.Future[Any]", result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
