"""Configuration files in protobuf's text format, and what TensorFlow Serving says of bad ones (S: model_servers/
server.cc, `ParseProtoTextFile`)."""

import os
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import Message
from grpc import StatusCode

from deploy.local.model_server import logs
from deploy.local.model_server.status import StatusError, require

_M = TypeVar("_M", bound=Message)
_DEFAULT_METRICS_PATH = "/monitoring/prometheus/metrics"  # S: util/prometheus_exporter.cc


def read(file: str, message: _M) -> _M:
    try:
        text = Path(file).read_text()
    except OSError as error:
        code = StatusCode.NOT_FOUND if isinstance(error, FileNotFoundError) else StatusCode.UNKNOWN
        raise StatusError(code, f"{file}; {os.strerror(error.errno or 0)}") from None
    require(text, f"{file}; Invalid argument")  # an empty file cannot be mapped into memory
    try:
        return text_format.Parse(text, message)
    except text_format.ParseError as error:
        reason = str(error).replace(" : ", ": ", 1)
        logs.protobuf(f"Error parsing text-format {message.DESCRIPTOR.full_name}: {reason}")
        raise StatusError(StatusCode.INVALID_ARGUMENT, f"Invalid protobuf file: '{file}'") from None


def metrics_path(monitoring_config_file: str) -> str | None:
    """Where the monitoring page is, or None where it is off."""
    if not monitoring_config_file:
        return None
    config = read(monitoring_config_file, _monitoring_config()).prometheus_config
    return (config.path or _DEFAULT_METRICS_PATH) if config.enable else None


def _monitoring_config() -> Any:
    """MonitoringConfig{PrometheusConfig prometheus_config=1{bool enable=1; string path=2}}: no package ships it."""
    file = descriptor_pb2.FileDescriptorProto(name="monitoring_config.proto", package="tensorflow.serving")
    kinds = descriptor_pb2.FieldDescriptorProto
    inner, outer = file.message_type.add(name="PrometheusConfig"), file.message_type.add(name="MonitoringConfig")
    inner.field.add(name="enable", number=1, type=kinds.TYPE_BOOL, label=kinds.LABEL_OPTIONAL)
    inner.field.add(name="path", number=2, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
    field = outer.field.add(name="prometheus_config", number=1, type=kinds.TYPE_MESSAGE, label=kinds.LABEL_OPTIONAL)
    field.type_name = ".tensorflow.serving.PrometheusConfig"
    pool: Any = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.serving.MonitoringConfig"))()
