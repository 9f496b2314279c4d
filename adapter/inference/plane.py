"""The data plane: tensors in, tensors out, whichever REST face they came by. Knows servables, not HTTP."""

from collections.abc import Mapping, Set

from adapter.errors import CallFailed
from adapter.inference import wire
from adapter.inference.calls import PREDICT, Calls
from adapter.inference.coalesce import Coalescer, Traces
from adapter.inference.lanes import Prediction, Tensors
from adapter.inference.limits import Limit, overloaded
from adapter.inference.signatures import Endpoint, Servable, Signatures
from adapter.inference.turns import LARGE, Turns
from adapter.telemetry.metrics import CALLS_LIMIT, MODEL_CALLS_WAITING
from adapter.telemetry.traces import Trace, Trip

# Models with series of their own, as many as the scrape of TensorFlow Serving's page knows.
MAX_LABELLED = 256


class DataPlane:
    """Predictions by the TensorFlow Serving behind `calls`; requests for the models in `coalesced` share calls.

    One model may have three quarters of `max_calls` in flight, or as few as `model_calls` says of it, and `max_queue` requests
    waiting for them.
    """

    def __init__(
        self,
        calls: Calls,
        coalesced: Set[str],
        max_calls: int,
        max_queue: int,
        model_calls: Mapping[str, int] | None = None,
    ) -> None:
        self.calls = calls
        self._model_calls = model_calls or {}
        self._ceiling = max(1, max_calls * 3 // 4)
        self._max_queue = max_queue
        self._limits: dict[str, Limit] = {}
        self.turns = Turns()
        self._signatures = Signatures(calls)
        self._coalesced = coalesced
        self._coalescer = Coalescer(self._send)

    async def endpoint(self, servable: Servable, signature: str, deadline: float) -> Endpoint:
        """What `servable` offers under the name `signature` ("" = serving_default).

        Raises:
            Refused: 400 when it has no such signature.
            CallFailed: whatever TensorFlow Serving says of the servable.
        """
        known = self._signatures.known(servable, signature)
        return known if known is not None else await self._signatures.get(servable, signature, deadline)

    def known(self, servable: Servable, signature: str) -> Endpoint | None:
        """The same if it is cached: the way of almost every request, without an await."""
        return self._signatures.known(servable, signature)

    async def predict(
        self, endpoint: Endpoint, inputs: Tensors, deadline: float, trace: Trace | None = None
    ) -> Prediction:
        """Run `endpoint` on `inputs`, by `deadline` in the event loop's time, for a request of this trace.

        Raises:
            CallFailed: TensorFlow Serving's status and words.
            Unserved: an output is of a type that has no tensor here, whatever the inputs are.
            Refused: 503 when too many calls wait already.
        """
        servable = endpoint.servable
        try:
            if servable.model in self._coalesced:
                prediction = await self._coalescer.predict(endpoint, inputs, deadline, trace)
            else:
                prediction = await self._send(endpoint, inputs, deadline, (trace,))
        except CallFailed as error:
            if error.status < 500:
                self._signatures.doubt(servable)
            raise
        self._signatures.seen(servable, prediction.version)
        return prediction

    async def _send(self, endpoint: Endpoint, inputs: Tensors, deadline: float, traces: Traces) -> Prediction:
        limit = self._limit(endpoint.servable.model)
        await limit.acquire(deadline)
        full = False
        trip = Trip(traces)
        try:
            if wire.is_large(inputs):
                request = await self.turns.take(wire.predict_request_in_steps(endpoint.spec, inputs), deadline)
            else:
                request = wire.predict_request(endpoint.spec, inputs)
            answer = await self.calls.call(PREDICT, request, deadline, trip)
        except CallFailed as error:
            full = overloaded(error)
            raise
        finally:
            limit.release(full)
        if len(answer) < LARGE:
            outputs, version = wire.predict_response(answer)
        else:
            outputs, version = await self.turns.take(wire.predict_response_in_steps(answer), deadline)
        if len(outputs) > 1:  # TensorFlow Serving's order changes from call to call
            outputs = {name: outputs[name] for name in sorted(outputs)}
        return Prediction(outputs, version, trip)

    def _limit(self, model: str) -> Limit:
        """The model's own: a slow model's queue is not in the way of another's. Only models that exist have one."""
        limit = self._limits.get(model)
        if limit is None:
            ceiling = min(self._ceiling, self._model_calls.get(model, self._ceiling))
            limit = self._limits[model] = Limit(ceiling, self._max_queue)
            if len(self._limits) <= MAX_LABELLED:
                CALLS_LIMIT.labels(model).set_function(lambda: limit.limit)
                MODEL_CALLS_WAITING.labels(model).set_function(lambda: limit.waiting)
        return limit
