"""`/v2`: the Open Inference Protocol (KServe v2), REST, with the binary tensor data extension.

The resources are the specification's (kserve/open-inference-protocol, specification/protocol/inference_rest.md). What it
leaves open: `parameters.signature_name` names the signature, else it is serving_default; a query string is ignored; not
ready is 503. An error is a problem document with the member `error` that the protocol asks for. Left out, and refused
where a request asks for it: classification, shared memory and sequences of requests, which are Triton's own.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import unquote

import orjson

from adapter.encoding import encoded
from adapter.errors import RETRY_AFTER_SECONDS, Refused
from adapter.exchange import Bodies, Exchange, response
from adapter.http.answer import Answer
from adapter.inference import json_out, v2_in, v2_out
from adapter.inference.calls import STATUS
from adapter.inference.plane import DataPlane
from adapter.inference.signatures import DEFAULT_SIGNATURE, Servable
from adapter.inference.tensor import TensorSpec
from adapter.inference.turns import LARGE
from adapter.joining import STEP
from adapter.pb import serving_pb2

_PATH = re.compile(
    r"/v2(?:/|/health/(?P<health>live|ready)"
    r"|/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?(?:/(?P<verb>ready|infer))?)?"
)
_INT64_MAX = (1 << 63) - 1
_AVAILABLE = serving_pb2.ModelVersionStatus.AVAILABLE
_JSON = {"Content-Type": "application/json"}


class Target(NamedTuple):
    """What a `/v2` path asks for: `verb` is server, live, ready, model, model_ready or infer."""

    verb: str
    servable: Servable
    route: str


@lru_cache(maxsize=1024)
def parse(path: str) -> Target:
    """The target of a raw path without its query.

    Raises:
        Refused: 404 when there is no such resource, 400 when a version is no number.
    """
    match = _PATH.fullmatch(path)
    if match is None:
        raise Refused(404, f"No such resource: {path[:256]}")
    if match["model"] is None:
        health = match["health"]
        return Target(health or "server", Servable(""), f"/v2/health/{health}" if health else "/v2")
    version = None
    if match["version"] is not None:
        version = int(match["version"]) if re.fullmatch("[0-9]{1,19}", match["version"]) else _INT64_MAX + 1
        if version > _INT64_MAX:
            raise Refused(400, f"Version: expected a number up to {_INT64_MAX}, found {match['version'][:64]!r}")
    route = "/v2/models/{model}" + ("/versions/{version}" if version is not None else "")
    verb = match["verb"]
    verbs = {None: "model", "ready": "model_ready", "infer": "infer"}
    return Target(verbs[verb], Servable(unquote(match["model"]), version), f"{route}/{verb}" if verb else route)


class V2:
    """The face of the data plane that speaks the Open Inference Protocol, of the server called `name` in `version`."""

    def __init__(self, plane: DataPlane, bodies: Bodies, ready: Callable[[], bool], name: str, version: str) -> None:
        self._plane = plane
        self._bodies = bodies
        self._ready = ready
        self._server = _body({"name": name, "version": version, "extensions": ["binary_tensor_data"]})

    async def __call__(self, exchange: Exchange) -> Answer:
        """Answer any request under `/v2`. Raises RequestFailed and BadInput, which the chain makes problems of."""
        verb, servable, exchange.route = parse(exchange.request.raw_path.partition("?")[0])
        allowed = ("POST",) if verb == "infer" else ("GET", "HEAD")
        if exchange.request.method not in allowed:
            names = ", ".join(allowed)
            raise Refused(405, f"{exchange.request.method[:32]} is not offered here, only {names}", {"Allow": names})
        if verb == "server":
            return response(200, self._server, _JSON)
        if verb == "live":
            return response(200, _body({"live": True}), _JSON)
        if verb == "ready":
            return _readiness({}, self._ready())
        exchange.ask_for(servable.model)
        exchange.honour_timeout()
        if verb == "infer":
            return await self._infer(exchange, servable)
        if verb == "model":
            return response(200, _body(await self._metadata(servable, exchange.deadline)), _JSON)
        versions = await self._available(servable, exchange.deadline)
        return _readiness({"name": servable.model}, bool(versions))

    async def _infer(self, exchange: Exchange, servable: Servable) -> Answer:
        headers = exchange.request.headers
        received = await self._bodies.read(exchange)
        exchange.lap("read")
        parsing = v2_in.parse(received, headers.get(v2_in.HEADER_LENGTH), headers.get("Content-Type", ""))
        request = await self._plane.turns.done(parsing, len(received) >= LARGE, exchange.deadline)
        endpoint = await self._plane.endpoint(servable, request.signature_name, exchange.deadline)
        wanted = request.outputs(endpoint.signature)
        large = request.text_size >= LARGE
        inputs = await self._plane.turns.done(request.tensors_in_steps(endpoint.signature), large, exchange.deadline)
        exchange.lap("parse")
        exchange.attributes["tandem.signature"] = request.signature_name[:128] or DEFAULT_SIGNATURE
        prediction = await self._plane.predict(endpoint, inputs, exchange.deadline, exchange.trace)
        exchange.rode(prediction.trip)
        exchange.served_by(servable.model, prediction.version)
        outputs = [(name, prediction.outputs[name], binary) for name, binary in wanted]
        steps = v2_out.response_in_steps(servable.model, prediction.version, request.id, outputs)
        text_size = json_out.size([tensor for _, tensor, binary in outputs if tensor.dtype.is_string or not binary])
        large = text_size >= LARGE or json_out.size([tensor for _, tensor, _ in outputs]) > STEP
        body, json_length = await self._plane.turns.done(steps, large, exchange.deadline)
        exchange.lap("render")
        about: Mapping[str, str] = _JSON
        if json_length is not None:
            about = {"Content-Type": "application/octet-stream", v2_in.HEADER_LENGTH: str(json_length)}
        return await encoded(headers, body, about)

    async def _metadata(self, servable: Servable, deadline: float) -> dict[str, Any]:
        """The model as its default signature has it."""
        endpoint = await self._plane.endpoint(servable, "", deadline)
        versions = await self._available(Servable(servable.model), deadline)
        return {
            "name": servable.model,
            "versions": [str(version) for version in versions],
            "platform": "tensorflow_savedmodel",
            "inputs": [_described(spec) for spec in endpoint.signature.inputs.values()],
            "outputs": [_described(spec) for spec in endpoint.signature.outputs.values()],
        }

    async def _available(self, servable: Servable, deadline: float) -> list[int]:
        """The versions of the servable that can be asked now."""
        request = serving_pb2.GetModelStatusRequest(model_spec=servable.spec())
        answer = await self._plane.calls.call(STATUS, request.SerializeToString(), deadline)
        status = serving_pb2.GetModelStatusResponse.FromString(answer).model_version_status
        return sorted(version.version for version in status if version.state == _AVAILABLE)


def _described(spec: TensorSpec) -> dict[str, Any]:
    """A tensor's metadata. A shape of unknown rank is written as one free dimension: the protocol has no word for it."""
    return {
        "name": spec.name,
        "datatype": v2_in.name_of(spec.dtype),
        "shape": [-1] if spec.shape is None else spec.shape,
    }


def _readiness(about: Mapping[str, str], ready: bool) -> Answer:
    if ready:
        return response(200, _body({**about, "ready": True}), _JSON)
    return response(503, _body({**about, "ready": False}), {**_JSON, "Retry-After": str(RETRY_AFTER_SECONDS)})


def _body(value: object) -> bytes:
    return orjson.dumps(value)
