"""A few threads for the handler's own code, so that the event loop waits for none of it.

A call goes to the first thread that is free, in order of arrival; what the threads have done comes back together, one
wake of the event loop for all that was ready. A call that hangs keeps its thread: Python cannot end it. The threads are
few and known, so that is told (`stuck`), and the process can end in spite of them.
"""

import asyncio
import contextvars
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

from adapter.errors import Refused

T = TypeVar("T")


class _Job(NamedTuple):
    future: "asyncio.Future[Any]"
    context: contextvars.Context
    function: Callable[..., Any]
    arguments: tuple[Any, ...]


class Workers:
    """`threads` of them, started with the first call; `max_queue` calls may wait. For one event loop."""

    def __init__(self, threads: int, max_queue: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._threads = threads
        self._max_queue = max_queue
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._done: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._waking = False
        self._since = [0.0] * threads  # when each thread began its call; 0 = it has none
        self._started = 0
        self._pending = 0

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """The function's result, from a thread; if the caller gives up before it has begun, it never does.

        Raises:
            Refused: 503 when too many calls wait already.
        """
        self.check_room()
        future: asyncio.Future[T] = self._loop.create_future()
        self._pending += 1
        if self._started < min(self._pending, self._threads):
            threading.Thread(target=self._work, args=(self._started,), name="handler", daemon=True).start()
            self._started += 1
        self._jobs.put(_Job(future, contextvars.copy_context(), function, arguments))
        return await future

    def check_room(self) -> None:
        """Raises Refused (503) when too many calls wait already."""
        if self._pending >= self._max_queue + self._threads:
            raise Refused(503, f"{self._pending} requests are waiting for the handler already")

    def stuck(self, seconds: float) -> int:
        """How many threads have been at one call for longer than that."""
        before = time.monotonic() - seconds
        return sum([0 < since < before for since in self._since])

    @property
    def threads(self) -> int:
        return self._threads

    def close(self) -> None:
        """Let idle threads end; busy ones are left behind."""
        for _ in range(self._started):
            self._jobs.put(None)

    def _work(self, number: int) -> None:
        while (job := self._jobs.get()) is not None:
            result, error = None, None
            if not job.future.cancelled():
                self._since[number] = time.monotonic()
                try:
                    result = job.context.run(job.function, *job.arguments)
                except BaseException as raised:
                    error = raised
                self._since[number] = 0.0
            self._done.append((job.future, result, error))
            del job
            if not self._waking:
                self._waking = True
                try:
                    self._loop.call_soon_threadsafe(self._deliver)
                except RuntimeError:  # the loop is closed: nobody waits any more
                    return

    def _deliver(self) -> None:
        self._waking = False
        while self._done:
            future, result, error = self._done.popleft()
            self._pending -= 1
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            elif isinstance(error, Exception) and not isinstance(error, StopIteration):
                future.set_exception(error)
            else:  # SystemExit and the like end no service
                wrapped = RuntimeError(f"{type(error).__name__} was raised")
                wrapped.__cause__ = error
                future.set_exception(wrapped)
