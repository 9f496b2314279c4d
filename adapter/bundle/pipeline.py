"""`async def predict`: run on an event loop of its own, in a thread, so that code which blocks there blocks only the handler.

service's loop                          handler's loop
  run(predict) ───────────────────────►   await handler.predict(ctx, requests)
  plane.predict ◄── ctx.infer(model) ──     tensors made there
                ──  outputs  ─────────►     arrays taken there
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from adapter.bundle import tensors
from adapter.bundle.api import Context
from adapter.bundle.tensors import Misfit
from adapter.bundle.workers import Workers
from adapter.inference.plane import DataPlane
from adapter.inference.signatures import Servable
from adapter.inference.tensor import Array
from adapter.telemetry.traces import Trace

P = ParamSpec("P")
T = TypeVar("T")


class HandlersLoop:
    """An event loop in a daemon thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_log)
        self._asked = 0.0
        threading.Thread(target=self._loop.run_forever, name="handler-loop", daemon=True).start()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result, run over there; cancelled there if the caller gives up."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def run_from_thread(self, work: Coroutine[Any, Any, T]) -> T:
        """The same for a thread without a loop, which waits."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def blocked(self) -> float:
        """Seconds for which the loop has not answered; asks it again."""
        if self._asked:
            return time.monotonic() - self._asked
        self._asked = time.monotonic()
        self._loop.call_soon_threadsafe(self._answered)
        return 0.0

    def stop(self) -> None:
        """End the thread, once it is done with what it does now."""
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _answered(self) -> None:
        self._asked = 0.0


class Call(Context):
    """The context of one request. `served` collects the versions that answered, by model."""

    def __init__(
        self,
        plane: DataPlane,
        workers: Workers,
        versions: Mapping[str, int],
        request_id: str,
        files: Path,
        deadline: float,
    ) -> None:
        self._plane = plane
        self._workers = workers
        self._versions = versions
        self._deadline = deadline
        self._service = asyncio.get_running_loop()
        self.request_id = request_id
        self.files = files
        self.served: dict[str, int] = {}
        self.trace: Trace | None = None
        """The request's, of which each inference is a part."""
        self.innermost: Callable[[Trace], Trace] | None = None
        """Where in its trace a sampled request is now: in the span that its handler has begun."""

    async def infer(self, model: str, inputs: Mapping[str, Any], *, signature: str = "") -> dict[str, Array]:
        """Run one of the bundle's models."""
        version = self._versions.get(model)
        if version is None:
            raise Misfit(f"ctx.infer: the bundle has no model {model!r}, only {', '.join(self._versions)}")
        servable = Servable(model, version)
        endpoint = self._plane.known(servable, signature)
        if endpoint is None:
            endpoint = await self._over_there(self._plane.endpoint(servable, signature, self._deadline))
        try:
            given = tensors.to_tensors(inputs, endpoint.signature, 0)
        except Misfit as error:
            raise Misfit(f"ctx.infer({model!r}): {error}") from None
        trace = self.trace
        if trace is not None and trace.sampled and self.innermost is not None:
            trace = self.innermost(trace)
        prediction = await self._over_there(self._plane.predict(endpoint, given, self._deadline, trace))
        self.served[model] = prediction.version
        return tensors.to_arrays(prediction.outputs)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in one of the handler's threads."""
        return await self._over_there(self._workers.run(lambda: function(*args, **kwargs)))

    @property
    def remaining(self) -> float:
        return max(0.0, self._deadline - self._service.time())

    async def _over_there(self, work: Coroutine[Any, Any, T]) -> T:
        """On the service's own loop."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._service))


def _log(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    logging.getLogger("handler").error("%s", context.get("message", "Unexpected failure"), exc_info=error)
