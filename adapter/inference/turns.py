"""Heavy work on the event loop, a piece at a time: so that a small request never waits long behind a large one.

Parsing and rendering a large body takes tens of milliseconds of processor time. The codecs offer it as generators that
yield every few milliseconds; here one of them runs at a time, and between its pieces everything else has its turn.
"""

import asyncio
import math
from collections.abc import Generator
from typing import TypeVar

from adapter.errors import too_late

T = TypeVar("T")

# Bodies from this size on take turns; below, a whole body costs less than about a millisecond.
LARGE = 1 << 16
# Turns of the event loop between two pieces. A small request needs about ten from its socket and back, its call included;
# with one turn between pieces it met a piece at each, and waited 20 ms where it now waits 6. An idle turn costs microseconds.
GIVE_WAY = 10


class Turns:
    """Runs steps one after the other, in order of arrival. One instance serves a process."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def take(self, steps: Generator[None, None, T], deadline: float = math.inf) -> T:
        """The generator's result, other tasks having run between its pieces; its exceptions are raised.

        Nothing is done any more once the task is cancelled, or the deadline, in the event loop's time, has passed.

        Raises:
            CallFailed: DEADLINE_EXCEEDED, as if TensorFlow Serving had not answered in time.
        """
        now = asyncio.get_running_loop().time
        async with self._lock:
            while True:
                if now() > deadline:
                    raise too_late()
                try:
                    next(steps)
                except StopIteration as stop:
                    result: T = stop.value
                    return result
                for _ in range(GIVE_WAY):
                    await asyncio.sleep(0)

    async def done(self, steps: Generator[None, None, T], large: bool, deadline: float) -> T:
        """The same where there is much to read or to write, else without giving way to anybody."""
        return await self.take(steps, deadline) if large else at_once(steps)


def at_once(steps: Generator[None, None, T]) -> T:
    """The result of steps that are known to be few, without giving way to anybody."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result
