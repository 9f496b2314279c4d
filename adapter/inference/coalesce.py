"""Many requests, one call: concurrent requests for the same work ride together along the batch dimension.

A lane is one servable, signature and set of inner shapes. A request that finds its lane idle goes out at once; those
that arrive while a call is in flight leave together when it returns, so load sets the batch size and an idle service
adds no wait. As many as fit one call leave too, whatever is in flight. Only two things go by the clock: deadlines, and the
head of a lane that has waited for `MAX_AGE` seconds, which no longer waits for the call in flight.

    arrive ──idle──► call alone ──returns──► who waits? ── nobody ──► idle
       └──busy──► wait in lane ◄──────────────── rows ≤ MAX_ROWS, bytes ≤ MAX_BYTES ──► one call, split, again

Only for models whose rows do not know of each other: the bundle (or ADAPTER_COALESCE) says so. A batch that fails is
sent again one by one, so nobody pays for a stranger's bad input; a call that nobody waits for any more is cancelled.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence

import numpy as np
from grpc import StatusCode

from adapter.errors import CallFailed, Refused, RequestFailed, too_late
from adapter.inference.lanes import MAX_ROWS, Call, Lane, Prediction, Tensors, Waiting, lane_of
from adapter.inference.signatures import Endpoint
from adapter.inference.tensor import Tensor
from adapter.telemetry.metrics import BATCH_REQUESTS
from adapter.telemetry.traces import Trace

MAX_AGE = 0.05
SWEEP = 0.02
# Turns of the event loop between two calls: a request takes that many from its socket to its lane.
TURNS = 3
# Lanes remembered for outputs that cannot be split; clients choose shapes, so there may be any number.
MAX_UNSPLITTABLE = 1024

Traces = Sequence[Trace | None]
Send = Callable[[Endpoint, Tensors, float, Traces], Awaitable[Prediction]]
"""One call to the endpoint with these inputs, by this deadline in the event loop's time, for requests of these traces."""


class Coalescer:
    """Lanes over `send`. One instance serves a process; it must be used on one event loop."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._lanes: dict[Hashable, Lane] = {}
        self._riding: set[Waiting] = set()
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
        rows, size, key = lane_of(endpoint, inputs)
        if not 0 < rows <= MAX_ROWS or key in self._unsplittable:
            return await self._send(endpoint, inputs, deadline, (trace,))
        lane = self._lanes.get(key)
        if lane is not None:
            waiting = Waiting(inputs, rows, size, deadline, self._loop.time(), trace, self._loop.create_future())
            return await self._ride(key, lane, waiting)
        lane = self._lanes[key] = Lane(endpoint, calls=1)
        BATCH_REQUESTS.observe(1)
        try:
            return await self._send(endpoint, inputs, deadline, (trace,))
        finally:
            self._returned(key, lane)

    async def _ride(self, key: Hashable, lane: Lane, waiting: Waiting) -> Prediction:
        self._riding.add(waiting)
        lane.add(waiting)
        while lane.full:
            self._next(key, lane)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(SWEEP, self._sweep)
        try:
            return await waiting.answer
        finally:
            self._riding.discard(waiting)
            call = waiting.call
            if call is not None:
                call.riders -= 1
                if call.riders == 0 and call.task is not None:
                    call.task.cancel()  # nobody is left; a call that is over takes no notice

    def _returned(self, key: Hashable, lane: Lane, turns: int = TURNS) -> None:
        """A call is over: who is on the way through the loop already still rides in the next one."""
        if turns:
            self._loop.call_soon(self._returned, key, lane, turns - 1)
        else:
            lane.calls -= 1
            self._next(key, lane)

    def _next(self, key: Hashable, lane: Lane) -> None:
        """Send who waits, or leave the lane."""
        batch = lane.take()
        if batch:
            lane.calls += 1
            call = Call(len(batch))
            for waiting in batch:
                waiting.call = call
            call.task = task = self._loop.create_task(self._carry(key, lane, batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif lane.calls == 0:
            del self._lanes[key]

    def _sweep(self) -> None:
        """One timer for all: deadlines that have passed, and heads that have waited long enough."""
        now = self._loop.time()
        for waiting in self._riding:
            if now >= waiting.deadline and not waiting.answer.done():
                waiting.answer.set_exception(too_late())
        for key, lane in list(self._lanes.items()):
            while lane.waiting and now - lane.waiting[0].since >= MAX_AGE:
                self._next(key, lane)
        self._sweeper = self._loop.call_later(SWEEP, self._sweep) if self._riding else None

    async def _carry(self, key: Hashable, lane: Lane, batch: list[Waiting]) -> None:
        try:
            await self._send_together(key, lane.endpoint, batch)
        finally:
            for waiting in batch:
                if not waiting.answer.done():
                    waiting.answer.cancel()
            self._returned(key, lane)

    async def _send_together(self, key: Hashable, endpoint: Endpoint, batch: list[Waiting]) -> None:
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
            if isinstance(error, RequestFailed) and _meets_each_alike(error):
                for waiting in batch:
                    if not waiting.answer.done():
                        waiting.answer.set_exception(_another(error))
            else:
                await self._one_by_one(endpoint, batch)
            return
        if any(t.data.ndim == 0 or len(t.data) != sum(w.rows for w in batch) for t in prediction.outputs.values()):
            if len(self._unsplittable) >= MAX_UNSPLITTABLE:
                self._unsplittable.clear()
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

    async def _one_by_one(self, endpoint: Endpoint, batch: list[Waiting]) -> None:
        for waiting in batch:
            await self._send_alone(endpoint, waiting)

    async def _send_alone(self, endpoint: Endpoint, waiting: Waiting) -> None:
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


def _meets_each_alike(error: RequestFailed) -> bool:
    """Whether it has to do with the server or the way to it, and not with what a row holds or how many rows there are.

    RESOURCE_EXHAUSTED is gRPC's for want of a thread (grpcpp server_cc.cc, "Server Threadpool Exhausted"; Python's
    "Concurrent RPC limit exceeded!"), and TensorFlow's for want of memory ("OOM when allocating tensor …").
    """
    if not isinstance(error, CallFailed):
        return True  # ours, for want of room
    if error.code is StatusCode.RESOURCE_EXHAUSTED:
        return "OOM" not in error.message
    return error.code in (StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED)


def _another(error: RequestFailed) -> RequestFailed:
    """The same again: an exception that is raised for several requests would gather the tracebacks of all."""
    if isinstance(error, CallFailed):
        return CallFailed(error.code, error.message)
    return Refused(error.status, error.message, error.headers)
