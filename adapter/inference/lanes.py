"""Who may share a call: a lane for each servable, signature and set of inner shapes, and what fits one call of it."""

import asyncio
from collections import deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from adapter.inference.signatures import Endpoint
from adapter.inference.tensor import STRING, Tensor, length_of_strings
from adapter.telemetry.traces import Trace, Trip

MAX_ROWS = 1024
MAX_BYTES = 4 << 20

Tensors = Mapping[str, Tensor]


class Prediction(NamedTuple):
    """Outputs by name, the model version that gave all of them, and the call that brought them."""

    outputs: Tensors
    version: int
    trip: Trip = Trip()


@dataclass(slots=True, eq=False)
class Waiting:
    """A request in a lane; `size` is in bytes, `call` is the one that carries it."""

    inputs: Tensors
    rows: int
    size: int
    deadline: float
    since: float
    trace: Trace | None
    answer: asyncio.Future[Prediction]
    call: "Call | None" = None


@dataclass(slots=True, eq=False)
class Call:
    """A shared call, and for how many requests it is still made."""

    riders: int
    task: asyncio.Task[None] | None = None


@dataclass(slots=True, eq=False)
class Lane:
    """Requests that may share a call, in order of arrival, what they add up to, and the calls that are in flight for it."""

    endpoint: Endpoint
    waiting: deque[Waiting] = field(default_factory=deque)
    calls: int = 0
    rows: int = 0
    size: int = 0

    @property
    def full(self) -> bool:
        """Whether as many wait, those who gave up among them, as fit one call: nothing is gained by waiting on."""
        return self.rows >= MAX_ROWS or self.size >= MAX_BYTES

    def add(self, waiting: Waiting) -> None:
        """One more waits."""
        self.waiting.append(waiting)
        self.rows += waiting.rows
        self.size += waiting.size

    def take(self) -> list[Waiting]:
        """The longest run from the head of the lane that fits one call; those who gave up are left out."""
        batch: list[Waiting] = []
        rows = size = 0
        while self.waiting:
            head = self.waiting[0]
            if batch and (rows + head.rows > MAX_ROWS or size + head.size > MAX_BYTES):
                break
            self.waiting.popleft()
            self.rows -= head.rows
            self.size -= head.size
            if not head.answer.done():
                batch.append(head)
                rows, size = rows + head.rows, size + head.size
        return batch


def lane_of(endpoint: Endpoint, inputs: Tensors) -> tuple[int, int, Hashable]:
    """The size of the batch dimension that all inputs share (0: there is none), their bytes, and what names the lane."""
    if len(inputs) == 1:  # the way of most requests
        ((name, tensor),) = inputs.items()
        shape = tensor.data.shape
        return (
            (shape[0], _size(tensor), (endpoint, name, tensor.dtype.number, shape[1:])) if shape else (0, 0, endpoint)
        )
    rows = size = 0
    key: list[Hashable] = [endpoint]
    for name, tensor in inputs.items():
        shape = tensor.data.shape
        if not shape or (rows and shape[0] != rows):
            return 0, 0, endpoint
        rows = shape[0]
        size += _size(tensor)
        key += (name, tensor.dtype.number, shape[1:])
    return rows, size, tuple(key)


def _size(tensor: Tensor) -> int:
    """Bytes of all elements; of strings their own, and not those of the references to them."""
    return length_of_strings(tensor.data) if tensor.dtype is STRING else tensor.data.nbytes
