"""A bundle's handler in its life: imported and started off the event loop, watched, asked, stopped.

    imported ─► started ─► compared with the models ─► asked … ─► stopped
       └──────────┴──────────────┴── fails: the check says why, and the service never gets ready

Checks: `handler` (imported, started, not stuck) and `signatures` (the models have what the bundle names). Requests take one
of three ways (`ways.py`).
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapter import memory
from adapter.bundle import loading, prints
from adapter.bundle.api import BadInput, Handler
from adapter.bundle.bodies import BATCH, Body
from adapter.bundle.fit import misfit
from adapter.bundle.hooks import Hooks
from adapter.bundle.interface import Interface
from adapter.bundle.loading import HandlerError
from adapter.bundle.manifest import Manifest
from adapter.bundle.tensors import Misfit
from adapter.bundle.ways import Inline, OneModel, Piped, Threaded, Way
from adapter.bundle.workers import Workers
from adapter.contract.docs import Endpoint
from adapter.errors import CallFailed, Refused, RequestFailed
from adapter.exchange import Exchange
from adapter.inference import tensor
from adapter.inference.plane import DataPlane
from adapter.inference.signatures import Servable
from adapter.inference.turns import LARGE
from adapter.telemetry.traces import Trace

if TYPE_CHECKING:
    from adapter.telemetry.handler_spans import HandlerSpans

log = logging.getLogger(__name__)

Results = Mapping[str, tuple[bool, str]]

# Seconds.
TICK = 0.1
PATIENCE = 30.0
"""How long an import may take before the check says that it hangs."""
BLOCKED = 5.0
"""How long beyond its time limit a call may keep a thread, or the handler's loop be silent."""
_NO_TRACE = nullcontext()


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
        self._hooks = Hooks(directory, self._name, bundle.limits.max_batch)
        self._workers: Workers | None = None
        self._interface: Interface | None = None
        self._problem = f"{self._name} is being imported"
        self._servable = Servable(bundle.models[0].name, bundle.models[0].version)
        self._way: Way | None = None
        self._models: tuple[str, ...] = ()
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
        way, interface = self._way, self._interface
        if way is None or interface is None:
            raise Refused(503, self._problem)
        for model in self._models:
            exchange.ask_for(model)
        exchange.deadline = min(exchange.deadline, self._loop.time() + self._limit)
        try:
            with self._in_its_trace(exchange.trace):
                return await way.answer(exchange, await self._read(interface, exchange, content_type, body))
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
            await self._hooks.end(self._interface.handler)
        if self._workers is not None:
            self._workers.close()
        if self._hooks.loop is not None:
            self._hooks.loop.stop()

    async def _read(self, interface: Interface, exchange: Exchange, content_type: str, body: bytes) -> Body:
        """A body with its long arrays read, unless there is no room for the request anyhow."""
        steps = interface.taking(content_type, body)
        if steps is None:
            return Body(content_type, body)
        if self._workers is not None and not interface.is_pipeline:
            self._workers.check_room()
        taken = await self._plane.turns.done(steps, len(body) >= LARGE, exchange.deadline)
        return Body(content_type, body, taken)

    def _in_its_trace(self, trace: Trace | None) -> AbstractContextManager[None]:
        """Around the handler: spans that it makes belong to the request, where anybody wants them."""
        if self._spans is None or trace is None or not trace.sampled:
            return _NO_TRACE
        return self._spans.around(trace)

    # Its life.

    async def _load(self) -> None:
        try:
            interface = await self._hooks.begin()
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
        model = self._bundle.model(handler.model) if handler.model else self._bundle.models[0]
        if model is None:
            self._problem = f"{self._name} is for model {handler.model!r}, which the bundle does not hold"
            log.error("%s", self._problem)
            return
        self._servable = Servable(model.name, model.version)
        self._models = tuple(self._versions) if interface.is_pipeline else (model.name,)
        self._interface = interface
        self._way = self._way_of(interface, self._workers)
        self.on_loaded(interface.openapi())

    def _way_of(self, interface: Interface, workers: Workers) -> Way:
        """The way that requests take through this handler."""
        if self._hooks.loop is not None and interface.is_pipeline:
            innermost = self._spans.innermost if self._spans is not None else None
            return Piped(interface, self._plane, workers, self._hooks.loop, self._versions, self._directory, innermost)
        handler = type(interface.handler)
        model = OneModel(self._plane, self._servable, handler.signature)
        threaded = Threaded(interface, model, workers)
        return Inline(self._name, interface, model, threaded) if handler.inline else threaded

    def _health(self) -> tuple[bool, str]:
        if self._interface is None or self._workers is None:
            return False, self._problem
        seconds = min(self._limit, 60.0) + BLOCKED
        if self._workers.stuck(seconds) == self._workers.threads:
            return False, f"every thread of {self._name} has been at one call for more than {seconds:g} s"
        if self._hooks.loop is not None and (blocked := self._hooks.loop.blocked()) > BLOCKED:
            return (
                False,
                f"{self._name} has blocked its event loop for {blocked:.0f} s (ctx.run is for what takes time)",
            )
        return True, f"{self._name} is imported and started"

    async def _compare(self) -> bool:
        """Whether models and bundle could be compared; the check `signatures` says whether they fit."""
        deadline = self._loop.time() + 1.0
        try:
            problem = await misfit(self._plane, self._bundle, self._for_one_model(), self._servable, deadline)
        except RequestFailed:  # TensorFlow Serving is not there yet
            self._tell({"signatures": (False, "not yet compared with the models")})
            return False
        if problem is not None:
            log.error("%s", problem)
        self._tell({"signatures": (problem is None, problem or "the models have what the bundle names")})
        return True

    def _for_one_model(self) -> type[Handler[Any, Any]] | None:
        """The handler's class, where it has come and is for one of the bundle's models."""
        if self._interface is None or self._interface.is_pipeline:
            return None
        return type(self._interface.handler)

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


def _place(error: BadInput) -> str:
    """`instances[2].image: ` as far as it is known."""
    place = f"{BATCH}[{error.index}]" if error.index is not None else ""
    place += f".{error.field}" if error.field and place else error.field
    return f"{place}: " if place else ""
