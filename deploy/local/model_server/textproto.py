"""Configuration files in protobuf's text format, and what TensorFlow says of bad ones (S: model_servers/server.cc,
`ParseProtoTextFile`; util/prometheus_exporter.h)."""

import os
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import Message

from deploy.local.model_server import logs
from deploy.local.model_server.status import Code, StatusError, invalid_argument

_M = TypeVar("_M", bound=Message)
DEFAULT_METRICS_PATH = "/monitoring/prometheus/metrics"


def read(file: str, message: _M) -> _M:
    try:
        text = Path(file).read_text()
    except OSError as error:
        code = Code.NOT_FOUND if isinstance(error, FileNotFoundError) else Code.UNKNOWN
        raise StatusError(code, f"{file}; {os.strerror(error.errno or 0)}") from None
    if not text:
        raise invalid_argument(f"{file}; Invalid argument")  # it cannot be mapped into memory
    try:
        return text_format.Parse(text, message)
    except text_format.ParseError as error:
        reason = str(error).replace(" : ", ": ", 1)
        logs.protobuf(f"Error parsing text-format {message.DESCRIPTOR.full_name}: {reason}")
        raise invalid_argument(f"Invalid protobuf file: '{file}'") from None


def metrics_path(monitoring_config_file: str) -> str | None:
    """Where the monitoring page is, or None where it is off."""
    if not monitoring_config_file:
        return None
    config: Any = read(monitoring_config_file, _monitoring_config()()).prometheus_config
    return (config.path or DEFAULT_METRICS_PATH) if config.enable else None


def _monitoring_config() -> Any:
    """MonitoringConfig, by hand: tensorflow-serving-api has no generated module for it."""
    package = "tensorflow.serving"
    file = descriptor_pb2.FileDescriptorProto(name="monitoring_config.proto", package=package, syntax="proto3")
    kind = descriptor_pb2.FieldDescriptorProto
    prometheus = file.message_type.add(name="PrometheusConfig")
    prometheus.field.add(name="enable", number=1, type=kind.TYPE_BOOL, label=kind.LABEL_OPTIONAL)
    prometheus.field.add(name="path", number=2, type=kind.TYPE_STRING, label=kind.LABEL_OPTIONAL)
    monitoring = file.message_type.add(name="MonitoringConfig")
    monitoring.field.add(
        name="prometheus_config",
        number=1,
        type=kind.TYPE_MESSAGE,
        type_name=f".{package}.PrometheusConfig",
        label=kind.LABEL_OPTIONAL,
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.MonitoringConfig"))
