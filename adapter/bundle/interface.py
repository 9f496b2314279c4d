"""What a handler class takes and gives, as bytes and as tensors: the steps of a `/predict` between its I/O.

    taking        long arrays out of a body's JSON       long_arrays.py
    read          body → requests                        bodies.py
    tensors       preprocess, its arrays as tensors      tensors.py
    answer        postprocess, its answers as JSON

Each step is a plain function: run in a thread, inline, or by a test; but for the first, which is the event loop's.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from adapter.bundle import arrays, tensors
from adapter.bundle.api import BadInput, Context, Handler
from adapter.bundle.bodies import BATCH, Batch, Bodies
from adapter.bundle.loading import HandlerError, check
from adapter.bundle.tensors import Misfit
from adapter.contract.docs import Endpoint
from adapter.inference.tensor import Signature, Tensor

ANSWERS = "predictions"
# An author's `Error` is not the contract's.
_PREFIX = "bundle."


class Interface:
    """The steps of `handler`, at most `max_batch` requests at one time. Raises HandlerError where its class breaks the rules."""

    def __init__(self, handler: Handler[Any, Any], max_batch: int) -> None:
        self.handler = handler
        self.request, self.answer_type = check(type(handler))
        self.is_pipeline = type(handler).predict is not Handler.predict
        try:
            bodies = Bodies(self.request, max_batch)
            self._schemas, self._components = msgspec.json.schema_components(
                [self.request, self.answer_type],
                schema_hook=arrays.schema,
                ref_template=f"#/components/schemas/{_PREFIX}{{name}}",
            )
        except (TypeError, NotImplementedError) as error:
            raise HandlerError(f"{type(handler).__name__}: {error}") from None
        self.taking = bodies.taking
        self.read = bodies.read
        self._bytes_fields = bodies.bytes_fields
        self._encode = msgspec.json.Encoder(enc_hook=arrays.encode).encode

    def tensors(self, batch: Batch, signature: Signature) -> dict[str, Tensor]:
        """The model's inputs. Raises whatever `preprocess` raises, and Misfit for what it should not have returned."""
        given = _asked(batch, self.handler.preprocess, batch.requests)
        if not isinstance(given, Mapping):
            raise Misfit(f"preprocess gave {type(given).__name__}, expected a dict of arrays")
        try:
            return tensors.to_tensors(given, signature, len(batch.requests))
        except Misfit as error:
            raise Misfit(f"preprocess: {error}") from None

    def answer(self, outputs: Mapping[str, Tensor], batch: Batch) -> bytes:
        """The body of the answer. Raises likewise."""
        answers = _asked(batch, self.handler.postprocess, tensors.to_arrays(outputs), batch.requests)
        return self.encoded(answers, batch, "postprocess")

    async def predict(self, call: Context, batch: Batch) -> bytes:
        """The body of the answer by `predict`. Raises likewise."""
        try:
            answers = await self.handler.predict(call, batch.requests)
        except BadInput as error:
            raise _placed(error, batch) from None
        return self.encoded(answers, batch, "predict")

    def encoded(self, answers: Sequence[Any], batch: Batch, step: str) -> bytes:
        """The body of these answers, which `step` gave: one for each request."""
        if not isinstance(answers, list | tuple):
            raise Misfit(f"{step} gave {type(answers).__name__}, expected a list of {self.answer_type.__name__}")
        if len(answers) != len(batch.requests):
            raise Misfit(f"{step} gave {len(answers)} answers for {len(batch.requests)} requests")
        for answer in answers:
            if not isinstance(answer, self.answer_type):
                raise Misfit(f"{step} gave {type(answer).__name__}, expected {self.answer_type.__name__}")
        try:
            return self._encode({ANSWERS: answers} if batch.many else answers[0])
        except (TypeError, ValueError, NotImplementedError, msgspec.MsgspecError) as error:
            raise Misfit(f"{step} gave an answer that is no JSON: {error}") from None

    def openapi(self) -> Endpoint:
        """The endpoint as the document describes it."""
        one, answer = self._schemas
        several = {"type": "array", "items": one, "minItems": 1}
        request: dict[str, Any] = {"application/json": {"schema": {"anyOf": [one, _of(BATCH, several)]}}}
        if self._bytes_fields:
            request["multipart/form-data"] = {"schema": self._form()}
        if len(self._bytes_fields) == 1:
            request["application/octet-stream"] = {"schema": {}}
            request["image/*"] = {"schema": {}}
        answers = {"type": "array", "items": answer}
        return Endpoint(
            request,
            {"application/json": {"schema": {"anyOf": [answer, _of(ANSWERS, answers)]}}},
            schemas={f"{_PREFIX}{name}": schema for name, schema in self._components.items()},
        )

    def _form(self) -> dict[str, Any]:
        """The request as a form: fields of bytes are files there, not base64 (OpenAPI 3.1, Considerations for File Uploads)."""
        form = dict(self._components[self.request.__name__])
        form["properties"] = dict(form["properties"]) | {
            name: {k: v for k, v in form["properties"][name].items() if k not in ("type", "contentEncoding")}
            | {"contentMediaType": "application/octet-stream"}
            for name in self._bytes_fields
        }
        return form


def _asked(batch: Batch, function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except BadInput as error:
        raise _placed(error, batch) from None


def _placed(error: BadInput, batch: Batch) -> BadInput:
    """A request that came alone has no place in a batch that anybody sees."""
    if not batch.many:
        error.index = None
    return error


def _of(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {name: schema}, "required": [name], "additionalProperties": False}
