"""The gRPC face: PredictionService, ModelService and, where asked for, the health service.

Requests arrive as bytes and are parsed here, so that a message that is no message gets the answer of a C++ server
(INTERNAL, no text) and not grpcio's; the same for unknown methods.
"""

import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from deploy.local.model_server import protos as pb
from deploy.local.model_server.core import Core
from deploy.local.model_server.metrics import Metrics, micros_since
from deploy.local.model_server.servable import Servable
from deploy.local.model_server.status import StatusError, require

_MAX_MESSAGE = 1024  # S: util/status_util.cc
_FOREVER = 365 * 86_400.0
_PREDICTION, _MODEL = "/tensorflow.serving.PredictionService/", "/tensorflow.serving.ModelService/"
_Call = Callable[[Any, int | None], Any]


class Services(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio ships no types
    def __init__(self, core: Core, metrics: Metrics, with_health: bool) -> None:
        self._core = core
        self._metrics = metrics
        self._handlers = {
            f"{_PREDICTION}Predict": _handler(pb.PredictRequest, self._counted("Predict", Servable.predict)),
            f"{_PREDICTION}Classify": _handler(pb.ClassificationRequest, self._counted("Classify", Servable.classify)),
            f"{_PREDICTION}Regress": _handler(pb.RegressionRequest, self._counted("Regress", Servable.regress)),
            f"{_PREDICTION}MultiInference": _handler(pb.MultiInferenceRequest, self._multi_inference),
            f"{_PREDICTION}GetModelMetadata": _handler(pb.GetModelMetadataRequest, core.metadata),
            f"{_MODEL}GetModelStatus": _handler(pb.GetModelStatusRequest, core.status),
            f"{_MODEL}HandleReloadConfigRequest": _handler(pb.ReloadConfigRequest, core.handle_reload),
        }
        if with_health:
            self._handlers["/grpc.health.v1.Health/Check"] = grpc.unary_unary_rpc_method_handler(_health)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return self._handlers.get(handler_call_details.method, _UNIMPLEMENTED)

    def _counted(self, api: str, run: Callable[[Servable, Any, int | None], Any]) -> _Call:
        """An inference of one model, counted and timed (S: model_servers/prediction_service_impl.cc)."""

        def call(request: Any, timeout_ms: int | None) -> Any:
            start, name, status = time.monotonic(), request.model_spec.name, "OK"
            try:
                require(request.HasField("model_spec"), "Missing ModelSpec")
                with self._core.servable(request.model_spec) as (servable, _):
                    response = run(servable, request, timeout_ms)
            except StatusError as error:
                status = error.code.name
                raise
            else:
                self._metrics.request_latency.observe(micros_since(start), name, api, "GRPC")
                return response
            finally:
                self._metrics.requests.add(name, status)

        return call

    def _multi_inference(self, request: pb.MultiInferenceRequest, timeout_ms: int | None) -> pb.MultiInferenceResponse:
        with self._core.servable(request.tasks[0].model_spec if request.tasks else pb.ModelSpec()) as (servable, _):
            return servable.multi_inference(request, timeout_ms)


def start_server(services: Services, addresses: Collection[str], max_calls: int, arguments: str) -> grpc.Server:
    """Listen on every address; calls above `max_calls` are refused with RESOURCE_EXHAUSTED, as there."""
    options: dict[str, Any] = {"grpc.max_receive_message_length": -1, "grpc.max_send_message_length": -1}
    for argument in filter(None, arguments.split(",")):
        key, _, value = argument.partition("=")
        options[key] = int(value) if value.lstrip("-").isdigit() else value
    pool = ThreadPoolExecutor(max_calls)
    server = grpc.server(pool, [services], options=[*options.items()], maximum_concurrent_rpcs=max_calls)
    try:
        for address in addresses:
            server.add_insecure_port(address)
    except RuntimeError:
        raise StatusError(grpc.StatusCode.INVALID_ARGUMENT, "Failed to BuildAndStart gRPC server") from None
    server.start()
    return server


def _handler(message: Any, call: _Call) -> grpc.RpcMethodHandler:
    def handle(data: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            request = message.FromString(data)
        except DecodeError:
            context.abort(grpc.StatusCode.INTERNAL, "")
        left = context.time_remaining()
        no_deadline = left is None or left > _FOREVER  # grpcio says it with None or with millions of years
        try:
            response = call(request, None if no_deadline else max(1, int(left * 1000)))
        except StatusError as error:
            text = error.message
            context.abort(error.code, text if len(text) <= _MAX_MESSAGE else f"{text[:_MAX_MESSAGE]}...TRUNCATED")
        return bytes(response.SerializeToString())

    return grpc.unary_unary_rpc_method_handler(handle)


def _unimplemented(_data: bytes, context: grpc.ServicerContext) -> None:
    context.abort(grpc.StatusCode.UNIMPLEMENTED, "")


def _health(data: bytes, context: grpc.ServicerContext) -> bytes:
    """grpc.health.v1 without generated code: both messages have one field. Service names are unqualified there, too."""
    if data[2:] not in (b"", b"ModelService", b"PredictionService"):
        context.abort(grpc.StatusCode.NOT_FOUND, "service name unknown")
    return b"\x08\x01"  # HealthCheckResponse.status = SERVING


_UNIMPLEMENTED = grpc.unary_unary_rpc_method_handler(_unimplemented)
