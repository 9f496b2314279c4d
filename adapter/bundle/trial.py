"""A handler without a server, for its author's tests: bodies in, answers out, models as plain functions.

    trial = Trial(Halves, models={"half_plus_two": lambda inputs: {"y": inputs["x"] / 2 + 2}})
    assert trial.predict({"x": 1.0}) == {"y": 2.5}

All that the service does with a body and an answer is done here too: validation, batches, files, shapes of answers.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from adapter.bundle.api import Context, Handler
from adapter.bundle.bodies import Body
from adapter.bundle.interface import Interface
from adapter.inference.tensor import Array
from adapter.inference.turns import at_once

P = ParamSpec("P")
T = TypeVar("T")

Model = Callable[[dict[str, Any]], Mapping[str, Any]]
"""Inputs by name → outputs by name."""


class Trial:
    """A started `handler`; `models` stand for the bundle's, `files` is where the bundle's files lie."""

    def __init__(
        self,
        handler: type[Handler[Any, Any]],
        models: Mapping[str, Model] | None = None,
        files: Path | str = ".",
        max_batch: int = 1024,
    ) -> None:
        self._models = dict(models or {})
        instance = handler()
        instance.files = Path(files)
        self._interface = Interface(instance, max_batch)
        begun = instance.startup()
        if begun is not None:
            asyncio.run(_finish(begun))

    def predict(self, request: Any, content_type: str = "application/json") -> Any:
        """The answer, parsed. `request` is a body, or what its JSON says.

        Raises:
            BadInput: the handler's, or of `adapter.inference.tensor` where the body is not what the request's struct says.
        """
        body = request if isinstance(request, bytes) else json.dumps(request).encode()
        steps = self._interface.taking(content_type, body)
        batch = self._interface.read(Body(content_type, body, at_once(steps) if steps is not None else None))
        handler = self._interface.handler
        if self._interface.is_pipeline:
            answers = asyncio.run(_finish(handler.predict(_Context(self._models, handler.files), batch.requests)))
            return json.loads(self._interface.encoded(answers, batch, "predict"))
        inputs = dict(handler.preprocess(batch.requests))
        model = self._models[handler.model] if handler.model else next(iter(self._models.values()))
        answers = handler.postprocess(dict(model(inputs)), batch.requests)
        return json.loads(self._interface.encoded(answers, batch, "postprocess"))


class _Context(Context):
    request_id = "trial"
    remaining = 3600.0

    def __init__(self, models: Mapping[str, Model], files: Path) -> None:
        self._models = models
        self.files = files

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, Any],
        *,
        signature: str = "",  # noqa: ARG002 - models stand for one
    ) -> dict[str, Array]:
        return dict(self._models[model](dict(inputs)))

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.to_thread(function, *args, **kwargs)


async def _finish(begun: Any) -> Any:
    return await begun
