"""The gRPC face: PredictionService, ModelService and, where asked for, the health service.

Requests arrive as bytes and are parsed here, so that a message that is no message gets the answer of a C++ server
(INTERNAL, no text) and not grpcio's; the same for unknown methods.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from deploy.local.model_server.core import Core
from deploy.local.model_server.metrics import Metrics
from deploy.local.model_server.protos import (
    ClassificationRequest,
    GetModelMetadataRequest,
    GetModelStatusRequest,
    ModelSpec,
    MultiInferenceRequest,
    PredictRequest,
    ReloadConfigRequest,
)
from deploy.local.model_server.protos import RegressionRequest as RegressRequest
from deploy.local.model_server.servable import Servable
from deploy.local.model_server.status import Code, StatusError, invalid_argument

_MAX_MESSAGE = 1024  # S: util/status_util.cc
_Call = Callable[[Any, int | None], Any]


class Services(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio ships no types
    def __init__(self, core: Core, metrics: Metrics, with_health: bool) -> None:
        self._core = core
        self._metrics = metrics
        prediction, model = "/tensorflow.serving.PredictionService/", "/tensorflow.serving.ModelService/"
        inference = self._inference
        self._handlers = {
            prediction + "Predict": _handler(PredictRequest, inference("Predict", Servable.predict)),
            prediction + "Classify": _handler(ClassificationRequest, inference("Classify", Servable.classify)),
            prediction + "Regress": _handler(RegressRequest, inference("Regress", Servable.regress)),
            prediction + "MultiInference": _handler(MultiInferenceRequest, self._multi_inference),
            prediction + "GetModelMetadata": _handler(GetModelMetadataRequest, core.metadata),
            model + "GetModelStatus": _handler(GetModelStatusRequest, core.status),
            model + "HandleReloadConfigRequest": _handler(ReloadConfigRequest, core.handle_reload),
        }
        if with_health:
            self._handlers["/grpc.health.v1.Health/Check"] = grpc.unary_unary_rpc_method_handler(_health)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return self._handlers.get(handler_call_details.method, _UNIMPLEMENTED)

    def _inference(self, api: str, run: Callable[[Servable, Any, int | None], Any]) -> _Call:
        """A call of one model, counted and timed (S: model_servers/prediction_service_impl.cc)."""

        def call(request: Any, timeout_ms: int | None) -> Any:
            start, name = time.monotonic(), request.model_spec.name
            try:
                if not request.HasField("model_spec"):
                    raise invalid_argument("Missing ModelSpec")
                with self._core.servable(request.model_spec) as (servable, _):
                    response = run(servable, request, timeout_ms)
            except StatusError as error:
                self._metrics.requests.add(name, error.code.name)
                raise
            self._metrics.requests.add(name, "OK")
            self._metrics.request_latency.observe(int((time.monotonic() - start) * 1e6), name, api, "GRPC")
            return response

        return call

    def _multi_inference(self, request: Any, timeout_ms: int | None) -> Any:
        spec = request.tasks[0].model_spec if request.tasks else ModelSpec()
        with self._core.servable(spec) as (servable, _):
            return servable.multi_inference(request, timeout_ms)


def start_server(services: Services, addresses: list[str], max_calls: int, channel_arguments: str) -> grpc.Server:
    """Listen on every address; calls above `max_calls` are refused with RESOURCE_EXHAUSTED, as there."""
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
    ]
    for argument in filter(None, channel_arguments.split(",")):
        key, _, value = argument.partition("=")
        options.append((key, int(value) if value.lstrip("-").isdigit() else value))
    server = grpc.server(
        ThreadPoolExecutor(max_calls), [services], options=options, maximum_concurrent_rpcs=max_calls
    )
    try:
        for address in addresses:
            server.add_insecure_port(address)
    except RuntimeError:
        raise invalid_argument("Failed to BuildAndStart gRPC server") from None
    server.start()
    return server


def _handler(message: Any, call: _Call) -> grpc.RpcMethodHandler:
    def handle(data: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            request = message.FromString(data)
        except DecodeError:
            context.abort(Code.INTERNAL, "")
        remaining = context.time_remaining()
        try:
            response = call(request, None if remaining is None else max(1, int(remaining * 1000)))
        except StatusError as error:
            text = error.message if len(error.message) <= _MAX_MESSAGE else error.message[:_MAX_MESSAGE] + "...TRUNCATED"
            context.abort(error.code, text)
        return bytes(response.SerializeToString())

    return grpc.unary_unary_rpc_method_handler(handle)


def _unimplemented(_data: bytes, context: grpc.ServicerContext) -> None:
    context.abort(Code.UNIMPLEMENTED, "")


_UNIMPLEMENTED = grpc.unary_unary_rpc_method_handler(_unimplemented)


def _health(data: bytes, context: grpc.ServicerContext) -> bytes:
    """grpc.health.v1: both messages have one field, so they need no generated code. Names are unqualified there, too."""
    if data[2:].decode(errors="replace") not in ("", "ModelService", "PredictionService"):
        context.abort(Code.NOT_FOUND, "service name unknown")
    return b"\x08\x01"  # HealthCheckResponse.status = SERVING
