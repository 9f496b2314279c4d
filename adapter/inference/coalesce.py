"""Many requests, one call: concurrent requests for the same work ride together along the batch dimension.

A lane is one servable, signature and set of inner shapes. A request that finds its lane idle goes out at once; those
that arrive while a call is in flight leave together when it returns, so load sets the batch size and an idle service
adds no wait. No timer is involved but for `MAX_AGE`: the head of a lane that has waited that long no longer waits for
the call in flight.

    arrive ──idle──► call alone ──returns──► who waits? ── nobody ──► idle
       └──busy──► wait in lane ◄──────────────── rows ≤ MAX_ROWS, bytes ≤ MAX_BYTES ──► one call, split, again

Only for models whose rows do not know of each other: the bundle (or ADAPTER_COALESCE) says so. A batch that is refused
is sent again one by one, so nobody pays for a stranger's bad input.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass, field

import numpy as np
from grpc import StatusCode

from adapter.errors import CallFailed
from adapter.inference.tensor import Tensor
from adapter.telemetry.metrics import BATCH_REQUESTS

MAX_ROWS = 1024
MAX_BYTES = 4 << 20
MAX_AGE = 0.05

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Prediction:
    """Outputs by name, and the model version that gave all of them."""

    outputs: Tensors
    version: int


Send = Callable[[Tensors, float], Awaitable[Prediction]]
"""One call with these inputs, by this deadline in the event loop's time."""


@dataclass(slots=True, eq=False)
class _Waiting:
    inputs: Tensors
    rows: int
    size: int
    deadline: float
    since: float
    answer: asyncio.Future[Prediction]


@dataclass(slots=True, eq=False)
class _Lane:
    waiting: deque[_Waiting] = field(default_factory=deque)
    calls: int = 0
    timer: asyncio.TimerHandle | None = None


class Coalescer:
    """Lanes by key. One instance serves a process; it must be used on one event loop."""

    def __init__(self) -> None:
        self._lanes: dict[Hashable, _Lane] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._unsplittable: set[Hashable] = set()

    async def predict(self, key: Hashable, inputs: Tensors, deadline: float, send: Send) -> Prediction:
        """The answer to `inputs`, from a call of its own or a shared one; `key` names servable and signature.

        Raises:
            CallFailed, Refused: as `send` does. TimeoutError never: a passed deadline is CallFailed.
        """
        rows = _rows(inputs)
        if rows is None:
            return await send(inputs, deadline)
        key = (key, tuple((name, tensor.dtype.number, tensor.shape[1:]) for name, tensor in inputs.items()))
        if key in self._unsplittable:
            return await send(inputs, deadline)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane()
        if lane.calls == 0 and not lane.waiting:
            BATCH_REQUESTS.observe(1)
            lane.calls += 1
            try:
                return await send(inputs, deadline)
            finally:
                lane.calls -= 1
                self._next(key, lane, send)
        return await self._ride(key, lane, inputs, rows, deadline, send)

    async def _ride(
        self, key: Hashable, lane: _Lane, inputs: Tensors, rows: int, deadline: float, send: Send
    ) -> Prediction:
        loop = asyncio.get_running_loop()
        size = sum(tensor.data.nbytes for tensor in inputs.values())
        waiting = _Waiting(inputs, rows, size, deadline, loop.time(), loop.create_future())
        lane.waiting.append(waiting)
        if lane.timer is None:
            lane.timer = loop.call_later(MAX_AGE, self._aged, key, lane, send)
        timer = loop.call_at(deadline, _expire, waiting)
        try:
            return await waiting.answer
        finally:
            timer.cancel()

    def _next(self, key: Hashable, lane: _Lane, send: Send) -> None:
        """Send who waits, or leave the lane."""
        batch = _take(lane)
        if batch:
            lane.calls += 1
            task = asyncio.create_task(self._carry(key, lane, batch, send))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif lane.calls == 0:
            if lane.timer is not None:
                lane.timer.cancel()
            self._lanes.pop(key, None)

    def _aged(self, key: Hashable, lane: _Lane, send: Send) -> None:
        lane.timer = None
        while lane.waiting and asyncio.get_running_loop().time() - lane.waiting[0].since >= MAX_AGE:
            self._next(key, lane, send)
        if lane.waiting:
            head = lane.waiting[0].since + MAX_AGE
            lane.timer = asyncio.get_running_loop().call_at(head, self._aged, key, lane, send)

    async def _carry(self, key: Hashable, lane: _Lane, batch: list[_Waiting], send: Send) -> None:
        try:
            await self._send_together(key, batch, send)
        finally:
            for waiting in batch:
                if not waiting.answer.done():
                    waiting.answer.cancel()
            lane.calls -= 1
            self._next(key, lane, send)

    async def _send_together(self, key: Hashable, batch: list[_Waiting], send: Send) -> None:
        BATCH_REQUESTS.observe(len(batch))
        if len(batch) == 1:
            await _send_alone(batch[0], send)
            return
        inputs = {
            name: Tensor(tensor.dtype, np.concatenate([waiting.inputs[name].data for waiting in batch]))
            for name, tensor in batch[0].inputs.items()
        }
        try:
            prediction = await send(inputs, max(waiting.deadline for waiting in batch))
        except Exception as error:
            if isinstance(error, CallFailed) and not _may_be_one_rows_fault(error):
                for waiting in batch:
                    if not waiting.answer.done():
                        waiting.answer.set_exception(CallFailed(error.code, error.message))
                return
            await _one_by_one(batch, send)
            return
        if any(t.data.ndim == 0 or len(t.data) != sum(w.rows for w in batch) for t in prediction.outputs.values()):
            self._unsplittable.add(key)
            await _one_by_one(batch, send)
            return
        start = 0
        for waiting in batch:
            stop = start + waiting.rows
            if not waiting.answer.done():
                outputs = {n: Tensor(t.dtype, t.data[start:stop]) for n, t in prediction.outputs.items()}
                waiting.answer.set_result(Prediction(outputs, prediction.version))
            start = stop


def _rows(inputs: Tensors) -> int | None:
    """Size of the batch dimension that all inputs share; None if there is no such thing."""
    rows = {tensor.data.shape[0] if tensor.data.ndim else -1 for tensor in inputs.values()}
    if len(rows) != 1:
        return None
    (size,) = rows
    return size if 0 < size <= MAX_ROWS else None


def _take(lane: _Lane) -> list[_Waiting]:
    """The longest run from the head of the lane that fits one call; those who gave up are left out."""
    batch: list[_Waiting] = []
    rows = size = 0
    while lane.waiting:
        head = lane.waiting[0]
        if batch and (rows + head.rows > MAX_ROWS or size + head.size > MAX_BYTES):
            break
        lane.waiting.popleft()
        if not head.answer.done():
            batch.append(head)
            rows, size = rows + head.rows, size + head.size
    return batch


def _may_be_one_rows_fault(error: CallFailed) -> bool:
    """False for failures of the server or the way to it, which would meet each request again."""
    return error.status < 500 and error.status != 429


async def _one_by_one(batch: list[_Waiting], send: Send) -> None:
    for waiting in batch:
        await _send_alone(waiting, send)


async def _send_alone(waiting: _Waiting, send: Send) -> None:
    if waiting.answer.done():
        return
    try:
        prediction = await send(waiting.inputs, waiting.deadline)
    except Exception as error:
        if not waiting.answer.done():
            waiting.answer.set_exception(error)
    else:
        if not waiting.answer.done():
            waiting.answer.set_result(prediction)


def _expire(waiting: _Waiting) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(CallFailed(StatusCode.DEADLINE_EXCEEDED, "Deadline exceeded"))
