"""`/v1`: TensorFlow Serving's own REST API. The paths, statuses and bodies are TFS's (model_servers/http_rest_api_handler.cc,
util/json_tensor.cc); `docs/differences.md` lists where this one deliberately answers otherwise.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote

import orjson
from google.protobuf.json_format import MessageToDict

from adapter.encoding import encoded, worth_encoding
from adapter.errors import CallFailed, Refused, no_such_method, tfs_headers
from adapter.exchange import Bodies, Exchange, response
from adapter.http.answer import Answer
from adapter.http.prefer import preferred
from adapter.http.request import Request
from adapter.inference import examples, json_in, json_out
from adapter.inference.calls import CLASSIFY, METADATA, REGRESS, STATUS
from adapter.inference.plane import DataPlane
from adapter.inference.signatures import DEFAULT_SIGNATURE, Servable
from adapter.inference.turns import LARGE
from adapter.pb import serving_pb2
from adapter.telemetry.traces import Trip

# http_rest_api_util.cc. TFS matches them against path, query and fragment together: what comes after a name is a part of it.
_POST = re.compile(
    r"(?i:/v1/models)/(?P<model>[^/:]+)(?:/(?i:versions)/(?P<version>\d+)|/(?i:labels)/(?P<label>[^/:]+))?"
    r":(?P<verb>classify|regress|predict)",
    re.ASCII,
)
_GET = re.compile(
    r"(?i:/v1/models)(?:/(?P<model>[^/:]+))?(?:/(?i:versions)/(?P<version>\d+)|/(?i:labels)/(?P<label>[^/:]+))?"
    r"(?P<verb>/(?i:metadata))?",
    re.ASCII,
)
# A query or a fragment goes no further: it may hold a secret, and names are logged.
_QUERY = re.compile(r"[?#].*", re.DOTALL)
_NO_QUERY = "?(no query is accepted here)"
# All that TFS's HTTP server is told to allow (net_http/server/internal/evhttp_server.cc). libevent answers 501 to any other,
# before anyone looks at the path (http.c, evhttp_handle_request).
_METHODS = ("GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH")
# A path, a query and a fragment as libevent takes them (http.c, end_of_path): TFS asks it to parse strictly and answers 400
# where it can't (net_http/server/internal/evhttp_request.cc, ParsedEvRequest::decode).
_PART = r"[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2}"
_URI = re.compile(rf"(?:{_PART})*+(?:\?(?:{_PART}|\?)*+)?(?:#(?:{_PART}|\?)*+)?")
_INT64_MAX = (1 << 63) - 1
_EXAMPLES = {
    "classify": (CLASSIFY, examples.classify_results),
    "regress": (REGRESS, examples.regress_results),
}


@dataclass(frozen=True, slots=True)
class Target:
    """What a `/v1` path asks for: `verb` is predict, classify, regress, status or metadata."""

    servable: Servable
    verb: str
    route: str


@lru_cache(maxsize=1024)
def parse(method: str, path: str) -> Target:
    """The target of a request line; `path` is raw, with its query.

    Raises:
        Refused: 501 for a method that TFS does not allow, and 400 for every path under /v1 that is not one of its own.
    """
    if method not in _METHODS:
        raise no_such_method()
    _check_characters(path)
    match = {"POST": _POST, "GET": _GET}[method].fullmatch(path) if method in ("POST", "GET") else None
    if match is None:
        raise Refused(400, f"Malformed request: {method} {_QUERY.sub('', path)[:1024]}")
    if match["model"] is None:
        raise Refused(400, "Missing model name in request.")
    version = None
    if match["version"] is not None:
        # Digits beyond int64's 19 are not worth converting.
        version = int(match["version"]) if len(match["version"].lstrip("0")) <= 19 else _INT64_MAX + 1
        if version > _INT64_MAX:
            raise Refused(400, f"Failed to convert version: {match['version'][:64]} to numeric.")
    label = None if match["label"] is None else _name(match["label"])
    # TFS matches any case and then compares exactly: what is not `metadata` is a status (HttpRestApiHandler::ProcessRequest).
    verb = match["verb"] if method == "POST" else "metadata" if match["verb"] == "/metadata" else "status"
    separator = ":" if method == "POST" else "/"
    route = "/v1/models/{model}" + ("" if verb == "status" else f"{separator}{verb}")
    return Target(Servable(_name(match["model"]), version, label), verb, route)


def _name(raw: str) -> str:
    """The name of a model or label in a path; one with a query behind it is of none that there is, and says so."""
    return unquote(_QUERY.sub(_NO_QUERY, raw))


def _check_characters(path: str) -> None:
    """Raises Refused (400) where a path, with its query, is no URL."""
    if _URI.fullmatch(path) is None:
        raise Refused(
            400, "Malformed request: the path has a character that no URL has, or a % without two hex digits after it"
        )


class V1:
    """The face of the data plane that speaks TensorFlow Serving's REST."""

    def __init__(self, plane: DataPlane, bodies: Bodies, cors: bool) -> None:
        self._plane = plane
        self._bodies = bodies
        self._headers = tfs_headers(cors)

    async def __call__(self, exchange: Exchange) -> Answer:
        """Answer any request under `/v1`. Raises RequestFailed and BadInput, which the chain puts into TFS's envelope."""
        request = exchange.request
        if request.method == "OPTIONS":
            return self._preflight(request)
        target = parse(request.method, request.raw_path)
        exchange.route = target.route
        exchange.ask_for(target.servable.model)
        exchange.honour_timeout()
        nonfinite = _nonfinite(exchange)
        if target.verb == "predict":
            body = await self._predict(exchange, target.servable, nonfinite)
        elif target.verb == "status":
            body = await self._status(target.servable, exchange)
        elif target.verb == "metadata":
            body = await self._metadata(target.servable, exchange)
        else:
            body = await self._examples(exchange, target, nonfinite)
        headers = self._headers
        if nonfinite != "tfs":
            headers = {**headers, "Preference-Applied": f"nonfinite={nonfinite}"}
        if worth_encoding(request.headers.get("Accept-Encoding", ""), body):
            return await encoded(request.headers, body, headers)
        return Answer(200, body, headers)

    async def _predict(self, exchange: Exchange, servable: Servable, nonfinite: json_out.NonFinite) -> bytes:
        plane = self._plane
        body = await self._bodies.read(exchange)
        exchange.lap("read")
        large = len(body) >= LARGE
        if large:
            parsed = await plane.turns.take(json_in.parse_in_steps(body), exchange.deadline)
        else:
            parsed = json_in.parse(body)
        try:
            endpoint = await plane.endpoint(servable, parsed.signature_name, exchange.deadline)
        except CallFailed as error:
            if error.status == 404:  # a body that is not JSON comes first (json_tensor.cc, FillPredictRequestFromJson)
                await self._plane.turns.done(parsed.check_in_steps(), len(body) >= LARGE, exchange.deadline)
            raise
        if large:
            inputs = await plane.turns.take(parsed.tensors_in_steps(endpoint.signature), exchange.deadline)
        else:
            inputs = parsed.tensors(endpoint.signature)
        exchange.lap("parse")
        exchange.attributes["tandem.signature"] = parsed.signature_name[:128] or DEFAULT_SIGNATURE
        prediction = await plane.predict(endpoint, inputs, exchange.deadline, exchange.trace)
        exchange.rode(prediction.trip)
        exchange.served_by(servable.model, prediction.version)
        outputs = prediction.outputs
        if json_out.size(outputs.values()) < LARGE:
            answer = json_out.predictions(outputs, parsed.row, nonfinite)
        else:
            steps = json_out.predictions_in_steps(outputs, parsed.row, nonfinite)
            answer = await plane.turns.take(steps, exchange.deadline)
        exchange.lap("render")
        return answer

    async def _status(self, servable: Servable, exchange: Exchange) -> bytes:
        """TFS reads no label here: a labelled status is that of every version (get_model_status_impl.cc)."""
        asked = Servable(servable.model, servable.version)
        request = serving_pb2.GetModelStatusRequest(model_spec=asked.spec())
        answer = await self._ask(STATUS, request.SerializeToString(), exchange)
        status = serving_pb2.GetModelStatusResponse.FromString(answer)
        return _json(MessageToDict(status, always_print_fields_with_no_presence=True, preserving_proto_field_name=True))

    async def _metadata(self, servable: Servable, exchange: Exchange) -> bytes:
        request = serving_pb2.GetModelMetadataRequest(model_spec=servable.spec(), metadata_field=["signature_def"])
        return metadata_json(await self._ask(METADATA, request.SerializeToString(), exchange))

    async def _ask(self, path: str, request: bytes, exchange: Exchange) -> bytes:
        return await self._plane.calls.call(path, request, exchange.deadline, Trip((exchange.trace,)))

    async def _examples(self, exchange: Exchange, target: Target, nonfinite: json_out.NonFinite) -> bytes:
        """Classify and regress."""
        path, decode = _EXAMPLES[target.verb]
        body = await self._bodies.read(exchange)
        exchange.lap("read")
        request = await self._plane.turns.done(
            examples.request(body, target.servable.spec()), len(body) >= LARGE, exchange.deadline
        )
        exchange.lap("parse")
        trip = Trip((exchange.trace,))
        results = await self._plane.calls.call(path, request, exchange.deadline, trip)
        exchange.rode(trip)
        answer = await self._plane.turns.done(decode(results, nonfinite), len(results) >= LARGE, exchange.deadline)
        exchange.lap("render")
        return answer

    def _preflight(self, request: Request) -> Answer:
        """OPTIONS: TFS answers any origin that is a URL and refuses the rest, both without a body."""
        _check_characters(request.raw_path)
        headers = {k: v for k, v in self._headers.items() if k != "Content-Type"}
        return response(200 if re.search("https?://", request.headers.get("Origin", "")) else 400, b"", headers)


def metadata_json(answer: bytes) -> bytes:
    """The JSON of an encoded GetModelMetadataResponse (http_rest_api_util.cc, ToJsonString)."""
    metadata = serving_pb2.GetModelMetadataResponse.FromString(answer)
    signatures = serving_pb2.SignatureDefMap()
    metadata.metadata["signature_def"].Unpack(signatures)
    spec = metadata.model_spec
    return _json(
        {
            "model_spec": {
                "name": spec.name,
                "signature_name": spec.signature_name,
                "version": str(spec.version.value),
            },
            "metadata": {
                "signature_def": MessageToDict(
                    signatures, always_print_fields_with_no_presence=True, preserving_proto_field_name=True
                )
            },
        }
    )


def _nonfinite(exchange: Exchange) -> json_out.NonFinite:
    """How NaN and infinities are written: as `Prefer: nonfinite=null` or `=string` asks, else as TFS does.

    A value that is neither is no reason to refuse (RFC 7240 §2); the answer's Preference-Applied says what was done.
    """
    found = preferred(exchange.request.headers, "nonfinite")
    return "null" if found == "null" else "string" if found == "string" else "tfs"


def _json(value: object) -> bytes:
    return orjson.dumps(value)
