"""The handler API: what an author writes, and what the service gives them. How it is run is `service.py`'s.

    class Halves(Handler[Request, Answer]):        msgspec structs: what is asked, what is answered
        def preprocess(self, batch): ...           requests → tensors, one row each
        def postprocess(self, outputs, batch): ... tensors → answers, in the same order

or, for several models, `async def predict(self, ctx, batch)` in the place of the two.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, ParamSpec, TypeVar

from adapter.inference.tensor import Array

Request = TypeVar("Request")
Answer = TypeVar("Answer")
P = ParamSpec("P")
T = TypeVar("T")


class BadInput(Exception):
    """The request cannot be answered, and the client can mend that: answered 400 (or another 4xx) with this message.

    `index` is the request's place in the batch and `field` the name of its field, where either is known.
    """

    def __init__(self, message: str, *, field: str = "", index: int | None = None, status: int = 400) -> None:
        super().__init__(message)
        if not 400 <= status <= 499:
            raise ValueError(f"BadInput: expected a status of 400 to 499, got {status}")
        self.message = message
        self.field = field
        self.index = index
        self.status = status


class Context(ABC):
    """One call of `predict`: the way to the models, and what is known of the request."""

    request_id: str
    """As in the answer's X-Request-Id and in the log."""
    files: Path
    """The unpacked bundle."""

    @abstractmethod
    async def infer(self, model: str, inputs: Mapping[str, Any], *, signature: str = "") -> dict[str, Array]:
        """Run one of the bundle's models; several at one time with `asyncio.gather`."""

    @abstractmethod
    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that takes time in a thread of its own, so that nobody waits behind it."""

    @property
    @abstractmethod
    def remaining(self) -> float:
        """Seconds until the request's deadline."""


class Handler(Generic[Request, Answer]):
    """A bundle's code. One instance serves a process; its methods may run in several threads at one time."""

    model: ClassVar[str] = ""
    """The model between `preprocess` and `postprocess`; default: the bundle's first."""
    signature: ClassVar[str] = ""
    """Its signature; default: serving_default."""
    inputs: ClassVar[Mapping[str, str]] = {}
    """What `preprocess` gives, such as `{"image": "float32[?, 8, 8]"}`: compared with the model before ready."""
    outputs: ClassVar[Mapping[str, str]] = {}
    """What `postprocess` takes, likewise."""
    inline: ClassVar[bool] = False
    """Both take well under a millisecond and never wait for anything: run them without the way to a thread and back."""
    threads: ClassVar[int] = 4
    """Threads that `preprocess`, `postprocess` and `ctx.run` share."""

    files: Path
    """The unpacked bundle; set before `startup`."""

    def startup(self) -> Awaitable[None] | None:
        """Called once before the service is ready: load vocabularies here. May be `async`."""

    def shutdown(self) -> Awaitable[None] | None:
        """Called once after the last answer. May be `async`."""

    def preprocess(self, batch: Sequence[Request]) -> Mapping[str, Any]:
        """The model's inputs by name, with one row for each request."""
        raise NotImplementedError

    def postprocess(self, outputs: Mapping[str, Array], batch: Sequence[Request]) -> Sequence[Answer]:
        """One answer for each request, in their order. The outputs' arrays are read-only; strings are `bytes`."""
        raise NotImplementedError

    async def predict(self, ctx: Context, batch: Sequence[Request]) -> Sequence[Answer]:
        """One answer for each request, in their order, by any number of calls to the bundle's models."""
        raise NotImplementedError
