"""A handler's import, `startup` and `shutdown`, each in a thread of its own: what hangs there keeps nobody from anything."""

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from adapter.bundle import loading
from adapter.bundle.api import Handler
from adapter.bundle.interface import Interface
from adapter.bundle.loading import HandlerError
from adapter.bundle.pipeline import HandlersLoop

log = logging.getLogger(__name__)

T = TypeVar("T")

GOODBYE = 5.0
"""Seconds that `shutdown` may take."""


class Hooks:
    """Those of the handler `name` below `directory`; `loop` is the event loop of its own, once it needs one."""

    def __init__(self, directory: Path, name: str, max_batch: int) -> None:
        self._directory = directory
        self._name = name
        self._max_batch = max_batch
        self.loop: HandlersLoop | None = None

    async def begin(self) -> Interface:
        """The handler, imported and started. Raises HandlerError."""
        return await _in_a_thread(self._begun)

    async def end(self, handler: Handler[Any, Any]) -> None:
        """Run its `shutdown`."""
        stop = asyncio.create_task(_in_a_thread(lambda: self._awaited(handler.shutdown())))
        done, _ = await asyncio.wait({stop}, timeout=GOODBYE)
        if not done:
            log.warning("%s: shutdown has not come back for %g s", self._name, GOODBYE)
        elif (error := stop.exception()) is not None:
            log.error("%s: shutdown failed", self._name, exc_info=error)

    def _begun(self) -> Interface:
        handler = loading.load(self._directory, self._name)
        interface = Interface(handler, self._max_batch)
        if interface.is_pipeline:
            self.loop = HandlersLoop()
        try:
            self._awaited(handler.startup())
        except BaseException as error:
            raise HandlerError(f"{self._name}: startup fails: {loading.sentence(error, self._directory)}") from error
        return interface

    def _awaited(self, begun: Any) -> None:
        """What a hook returned, awaited if it is `async`."""
        if begun is None:
            return
        if self.loop is None:
            self.loop = HandlersLoop()
        self.loop.run_from_thread(begun)


async def _in_a_thread(function: Callable[[], T]) -> T:
    """Its result, from a daemon thread: not even the end of the process waits for it."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        result, error = None, None
        try:
            result = function()
        except BaseException as raised:
            error = raised if isinstance(raised, Exception) else RuntimeError(repr(raised))
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_settle, future, result, error)

    threading.Thread(target=run, name="handler-life", daemon=True).start()
    return await future


def _settle(future: "asyncio.Future[Any]", result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
