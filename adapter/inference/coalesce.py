"""Many requests, one call: concurrent requests for the same work ride together along the batch dimension.

A lane is one servable, signature and set of inner shapes. A request that finds its lane idle goes out at once; those
that arrive while a call is in flight leave together when it returns, so load sets the batch size and an idle service
adds no wait. Only two things go by the clock: deadlines, and the head of a lane that has waited for `MAX_AGE` seconds,
which no longer waits for the call in flight.

    arrive ──idle──► call alone ──returns──► who waits? ── nobody ──► idle
       └──busy──► wait in lane ◄──────────────── rows ≤ MAX_ROWS, bytes ≤ MAX_BYTES ──► one call, split, again

Only for models whose rows do not know of each other: the bundle (or ADAPTER_COALESCE) says so. A batch that is refused
is sent again one by one, so nobody pays for a stranger's bad input.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from grpc import StatusCode

from adapter.errors import CallFailed
from adapter.inference.signatures import Endpoint
from adapter.inference.tensor import Tensor
from adapter.telemetry.metrics import BATCH_REQUESTS
from adapter.telemetry.traces import Trace, Trip

MAX_ROWS = 1024
MAX_BYTES = 4 << 20
MAX_AGE = 0.05
SWEEP = 0.02
# Turns of the event loop between two calls: a request takes that many from its socket to its lane.
TURNS = 3

Tensors = Mapping[str, Tensor]
Traces = Sequence[Trace | None]


class Prediction(NamedTuple):
    """Outputs by name, the model version that gave all of them, and the call that brought them."""

    outputs: Tensors
    version: int
    trip: Trip = Trip()


Send = Callable[[Endpoint, Tensors, float, Traces], Awaitable[Prediction]]
"""One call to the endpoint with these inputs, by this deadline in the event loop's time, for requests of these traces."""


@dataclass(slots=True, eq=False)
class _Waiting:
    inputs: Tensors
    rows: int
    deadline: float
    since: float
    trace: Trace | None
    answer: asyncio.Future[Prediction]


@dataclass(slots=True, eq=False)
class _Lane:
    endpoint: Endpoint
    waiting: deque[_Waiting] = field(default_factory=deque)
    calls: int = 0


class Coalescer:
    """Lanes over `send`. One instance serves a process; it must be used on one event loop."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._lanes: dict[Hashable, _Lane] = {}
        self._riding: set[_Waiting] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._unsplittable: set[Hashable] = set()

    async def predict(
        self, endpoint: Endpoint, inputs: Tensors, deadline: float, trace: Trace | None = None
    ) -> Prediction:
        """The answer to `inputs`, from a call of its own or a shared one.

        Raises:
            CallFailed, Refused: as `send` does; a deadline that passes on the way is CallFailed too.
        """
        rows, key = _lane_of(endpoint, inputs)
        if not 0 < rows <= MAX_ROWS or key in self._unsplittable:
            return await self._send(endpoint, inputs, deadline, (trace,))
        lane = self._lanes.get(key)
        if lane is not None:
            return await self._ride(lane, inputs, rows, deadline, trace)
        lane = self._lanes[key] = _Lane(endpoint, calls=1)
        BATCH_REQUESTS.observe(1)
        try:
            return await self._send(endpoint, inputs, deadline, (trace,))
        finally:
            self._returned(key, lane)

    async def _ride(self, lane: _Lane, inputs: Tensors, rows: int, deadline: float, trace: Trace | None) -> Prediction:
        loop = self._loop
        waiting = _Waiting(inputs, rows, deadline, loop.time(), trace, loop.create_future())
        lane.waiting.append(waiting)
        self._riding.add(waiting)
        if self._sweeper is None:
            self._sweeper = loop.call_later(SWEEP, self._sweep)
        try:
            return await waiting.answer
        finally:
            self._riding.discard(waiting)

    def _returned(self, key: Hashable, lane: _Lane, turns: int = TURNS) -> None:
        """A call is over: who is on the way through the loop already still rides in the next one."""
        if turns:
            self._loop.call_soon(self._returned, key, lane, turns - 1)
        else:
            lane.calls -= 1
            self._next(key, lane)

    def _next(self, key: Hashable, lane: _Lane) -> None:
        """Send who waits, or leave the lane."""
        batch = _take(lane)
        if batch:
            lane.calls += 1
            task = self._loop.create_task(self._carry(key, lane, batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif lane.calls == 0:
            del self._lanes[key]

    def _sweep(self) -> None:
        """One timer for all: deadlines that have passed, and heads that have waited long enough."""
        now = self._loop.time()
        for waiting in self._riding:
            if now >= waiting.deadline and not waiting.answer.done():
                waiting.answer.set_exception(CallFailed(StatusCode.DEADLINE_EXCEEDED, "Deadline exceeded"))
        for key, lane in list(self._lanes.items()):
            while lane.waiting and now - lane.waiting[0].since >= MAX_AGE:
                self._next(key, lane)
        self._sweeper = self._loop.call_later(SWEEP, self._sweep) if self._riding else None

    async def _carry(self, key: Hashable, lane: _Lane, batch: list[_Waiting]) -> None:
        try:
            await self._send_together(key, lane.endpoint, batch)
        finally:
            for waiting in batch:
                if not waiting.answer.done():
                    waiting.answer.cancel()
            self._returned(key, lane)

    async def _send_together(self, key: Hashable, endpoint: Endpoint, batch: list[_Waiting]) -> None:
        BATCH_REQUESTS.observe(len(batch))
        if len(batch) == 1:
            await self._send_alone(endpoint, batch[0])
            return
        inputs = {
            name: Tensor(tensor.dtype, np.concatenate([waiting.inputs[name].data for waiting in batch]))
            for name, tensor in batch[0].inputs.items()
        }
        try:
            traces = [waiting.trace for waiting in batch]
            prediction = await self._send(endpoint, inputs, max(waiting.deadline for waiting in batch), traces)
        except Exception as error:
            if isinstance(error, CallFailed) and not _may_be_one_rows_fault(error):
                for waiting in batch:
                    if not waiting.answer.done():
                        waiting.answer.set_exception(CallFailed(error.code, error.message))
                return
            await self._one_by_one(endpoint, batch)
            return
        if any(t.data.ndim == 0 or len(t.data) != sum(w.rows for w in batch) for t in prediction.outputs.values()):
            self._unsplittable.add(key)
            await self._one_by_one(endpoint, batch)
            return
        start = 0
        for waiting in batch:
            stop = start + waiting.rows
            if not waiting.answer.done():
                outputs = {n: Tensor(t.dtype, t.data[start:stop]) for n, t in prediction.outputs.items()}
                waiting.answer.set_result(Prediction(outputs, prediction.version, prediction.trip))
            start = stop

    async def _one_by_one(self, endpoint: Endpoint, batch: list[_Waiting]) -> None:
        for waiting in batch:
            await self._send_alone(endpoint, waiting)

    async def _send_alone(self, endpoint: Endpoint, waiting: _Waiting) -> None:
        if waiting.answer.done():
            return
        try:
            prediction = await self._send(endpoint, waiting.inputs, waiting.deadline, (waiting.trace,))
        except Exception as error:
            if not waiting.answer.done():
                waiting.answer.set_exception(error)
        else:
            if not waiting.answer.done():
                waiting.answer.set_result(prediction)


def _lane_of(endpoint: Endpoint, inputs: Tensors) -> tuple[int, Hashable]:
    """The size of the batch dimension that all inputs share (0: there is none), and what names the lane."""
    rows = 0
    key: list[Hashable] = [endpoint]
    for name, tensor in inputs.items():
        shape = tensor.data.shape
        if not shape or (rows and shape[0] != rows):
            return 0, endpoint
        rows = shape[0]
        key += (name, tensor.dtype.number, shape[1:])
    return rows, tuple(key)


def _take(lane: _Lane) -> list[_Waiting]:
    """The longest run from the head of the lane that fits one call; those who gave up are left out."""
    batch: list[_Waiting] = []
    rows = size = 0
    while lane.waiting:
        head = lane.waiting[0]
        head_size = sum([tensor.data.nbytes for tensor in head.inputs.values()])
        if batch and (rows + head.rows > MAX_ROWS or size + head_size > MAX_BYTES):
            break
        lane.waiting.popleft()
        if not head.answer.done():
            batch.append(head)
            rows, size = rows + head.rows, size + head_size
    return batch


def _may_be_one_rows_fault(error: CallFailed) -> bool:
    """False for failures of the server or the way to it, which would meet each request again."""
    return error.status < 500 and error.status != 429
