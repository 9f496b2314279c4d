"""The data plane: tensors in, tensors out, whichever REST face they came by. Knows servables, not HTTP."""

from collections.abc import Callable
from functools import lru_cache

from adapter.errors import CallFailed
from adapter.inference import wire
from adapter.inference.calls import PREDICT, Calls
from adapter.inference.coalesce import Coalescer, Prediction, Tensors
from adapter.inference.signatures import Servable, Signatures
from adapter.inference.tensor import Signature


class DataPlane:
    """Predictions by the TensorFlow Serving behind `calls`; requests for models that `coalesces` names share calls."""

    def __init__(self, calls: Calls, coalesces: Callable[[str], bool]) -> None:
        self.calls = calls
        self.signatures = Signatures(calls)
        self._coalesces = coalesces
        self._coalescer = Coalescer()

    async def predict(self, servable: Servable, signature: Signature, inputs: Tensors, deadline: float) -> Prediction:
        """Run `signature` of `servable` on `inputs`, by `deadline` in the event loop's time.

        Raises:
            CallFailed: TensorFlow Serving's status and words.
            Refused: 503 when too many calls wait already.
        """
        spec = _spec(servable, signature.name)

        async def send(tensors: Tensors, until: float) -> Prediction:
            answer = await self.calls.call(PREDICT, wire.predict_request(spec, tensors), until)
            return Prediction(*wire.predict_response(answer))

        try:
            if self._coalesces(servable.model):
                prediction = await self._coalescer.predict((servable, signature.name), inputs, deadline, send)
            else:
                prediction = await send(inputs, deadline)
        except CallFailed as error:
            if error.status < 500:
                self.signatures.doubt(servable)
            raise
        self.signatures.seen(servable, prediction.version)
        return prediction


@lru_cache(maxsize=1024)
def _spec(servable: Servable, signature: str) -> bytes:
    return wire.model_spec(servable.model, servable.version, servable.label, signature)
