"""How many calls at one time: a limit with a short queue in order of arrival, which gives way when the server is overloaded.

Additive increase, multiplicative decrease (Chiu and Jain, 1989), as TCP does it: a call that is refused for overload
takes a third off the limit, a full limit whose calls succeed ten times over gains one. It never passes its ceiling.
"""

import asyncio
from collections import deque

from grpc import StatusCode

from adapter.errors import CallFailed, Refused

DECREASE = 2 / 3
INCREASE = 0.1


class Limit:
    """At most `ceiling` calls at one time, `max_queue` waiting. For one event loop."""

    def __init__(self, ceiling: int, max_queue: int) -> None:
        self._ceiling = ceiling
        self._max_queue = max_queue
        self._limit = float(ceiling)
        self._waiters: deque[asyncio.Future[None]] = deque()
        self.in_flight = 0

    @property
    def limit(self) -> int:
        """Calls that may be in flight now."""
        return int(self._limit)

    @property
    def waiting(self) -> int:
        return len(self._waiters)

    async def acquire(self, deadline: float) -> None:
        """Wait for a place, by `deadline` in the event loop's time; `release` gives it back.

        Raises:
            Refused: 503 when `max_queue` are waiting already.
            CallFailed: DEADLINE_EXCEEDED when no place came free in time.
        """
        if self.in_flight < int(self._limit) and not self._waiters:
            self.in_flight += 1
            return
        if len(self._waiters) >= self._max_queue:
            raise Refused(503, f"{len(self._waiters)} requests are waiting for TensorFlow Serving already")
        place = asyncio.get_running_loop().create_future()
        self._waiters.append(place)
        try:
            async with asyncio.timeout_at(deadline):
                await place
        except BaseException as error:
            if place.done() and not place.cancelled():  # it came free as we left: the next one's
                self.in_flight -= 1
            else:
                self._waiters.remove(place)
            self._wake()
            if isinstance(error, TimeoutError):
                raise CallFailed(StatusCode.DEADLINE_EXCEEDED, "Deadline passed while waiting for a call") from None
            raise

    def release(self, overloaded: bool = False) -> None:
        """Give the place back; `overloaded`: the server refused the call for want of room."""
        if overloaded:
            self._limit = max(1.0, self._limit * DECREASE)
        elif self.in_flight >= int(self._limit):
            self._limit = min(float(self._ceiling), self._limit + INCREASE / self._limit)
        self.in_flight -= 1
        self._wake()

    def _wake(self) -> None:
        while self._waiters and self.in_flight < int(self._limit):
            place = self._waiters.popleft()
            if not place.done():
                place.set_result(None)
                self.in_flight += 1


def overloaded(error: CallFailed) -> bool:
    """Whether TensorFlow Serving refused for want of room: its threads (gRPC), or its batching queue."""
    if error.code is StatusCode.RESOURCE_EXHAUSTED:
        return True
    return error.code is StatusCode.UNAVAILABLE and "queue to which this task was submitted is full" in error.message
