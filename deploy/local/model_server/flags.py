"""The command line of tensorflow_model_server: its flags, their types and defaults, and how TensorFlow parses them.

`--name=value` only, and a bare `--name` for bool; an unknown argument is left over, not refused (S: model_servers/main.cc,
tsl/util/command_line_flags.cc).
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from deploy.local.model_server import logs

Value = bool | int | float | str
_CPUS = len(os.sched_getaffinity(0))
_NO_EFFECT = "accepted, without effect here"


@dataclass(frozen=True)
class Flag:
    name: str
    type: str
    default: Value
    help: str = _NO_EFFECT

    @property
    def acts(self) -> bool:
        return self.help != _NO_EFFECT


FLAGS = (
    Flag("port", "int32", 8500, "TCP port of the gRPC API on all interfaces; 0: none"),
    Flag("grpc_socket_path", "string", "", "UNIX socket of the gRPC API"),
    Flag("rest_api_port", "int32", 0, "port of the monitoring page (there is no REST prediction API here); 0: none"),
    Flag("rest_api_num_threads", "int32", 4 * _CPUS),
    Flag("rest_api_timeout_in_ms", "int32", 30000),
    Flag("rest_api_enable_cors_support", "bool", False),
    Flag("enable_batching", "bool", False),
    Flag(
        "allow_version_labels_for_unavailable_models", "bool", False, "a new label may name a version not yet available"
    ),
    Flag("batching_parameters_file", "string", ""),
    Flag("enable_per_model_batching_parameters", "bool", False),
    Flag("model_config_file", "string", "", "ModelServerConfig in text format: the models to serve"),
    Flag("model_config_file_poll_wait_seconds", "int32", 0, "seconds between readings of that file; 0: read it once"),
    Flag("model_name", "string", "default", "name of the one model, without --model_config_file"),
    Flag("model_base_path", "string", "", "directory of the one model's versions, without --model_config_file"),
    Flag("num_load_threads", "int32", 0, "threads for loads after the first; 0: in the manager's own"),
    Flag("num_unload_threads", "int32", 0, "threads for unloads; 0: in the manager's own"),
    Flag("max_num_load_retries", "int32", 5, "how often a failed load is tried again"),
    Flag("load_retry_interval_micros", "int64", 60_000_000, "microseconds between these tries"),
    Flag(
        "file_system_poll_wait_seconds", "int32", 1, "seconds between looks for new versions; 0: one look; negative: none"
    ),
    Flag("flush_filesystem_caches", "bool", True),
    Flag("tensorflow_session_parallelism", "int64", 0, "threads inside an operation and between operations"),
    Flag("tensorflow_session_config_file", "string", "", "ConfigProto in text format, for every session"),
    Flag("tensorflow_intra_op_parallelism", "int64", 0, "threads inside an operation"),
    Flag("tensorflow_inter_op_parallelism", "int64", 0, "operations at a time"),
    Flag("use_alts_credentials", "bool", False),
    Flag("ssl_config_file", "string", ""),
    Flag("platform_config_file", "string", ""),
    Flag("per_process_gpu_memory_fraction", "float", 0.0),
    Flag("saved_model_tags", "string", "serve", "tags of the graph to load, with commas"),
    Flag("grpc_channel_arguments", "string", "", "arguments for the gRPC server: key=value, with commas"),
    Flag("grpc_max_threads", "int32", 4 * _CPUS, "gRPC calls at a time; more are refused"),
    Flag("enable_model_warmup", "bool", True, "replay a version's warm-up file before it is available"),
    Flag("num_request_iterations_for_warmup", "int32", 0, "how often each warm-up request is replayed, if above 0"),
    Flag("version", "bool", False, "print the version and exit"),
    Flag("monitoring_config_file", "string", "", "MonitoringConfig in text format: whether and where the page is"),
    Flag("remove_unused_fields_from_bundle_metagraph", "bool", True),
    Flag("prefer_tflite_model", "bool", False),
    Flag("num_tflite_pools", "int32", _CPUS),
    Flag("num_tflite_interpreters_per_pool", "int32", 1),
    Flag("enable_signature_method_name_check", "bool", False),
    Flag("xla_cpu_compilation_enabled", "bool", False),
    Flag("xla_gpu_compilation_enabled", "bool", False),
    Flag("enable_profiler", "bool", True),
    Flag("thread_pool_factory_config_file", "string", ""),
    Flag("mixed_precision", "string", ""),
    Flag("skip_initialize_tpu", "bool", False),
    Flag("enable_grpc_healthcheck_service", "bool", False, "offer grpc.health.v1.Health, too"),
    Flag("enable_serialization_as_tensor_content", "bool", False, "answer predictions as tensor_content"),
)


class BadFlagError(Exception):
    """A value that does not fit its flag's type, or --help."""


class Options:
    """The values of all flags, by name, and the arguments that are none."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._values = {flag.name: flag.default for flag in FLAGS}
        self.unknown: list[str] = []
        by_name = {flag.name: flag for flag in FLAGS}
        refused = False
        for argument in arguments:
            name, equals, text = argument.removeprefix("--").partition("=")
            flag = by_name.get(name) if argument.startswith("--") else None
            if flag is None or not (equals or flag.type == "bool"):
                self.unknown.append(argument)
                continue
            value = _parse(flag, equals + text)
            if value is None:
                logs.tf(
                    "E",
                    "external/local_xla/xla/tsl/util/command_line_flags.cc:55",
                    f"Couldn't interpret value {text} for flag {name}.",
                )
                refused = True
            else:
                self._values[name] = value
        if refused or self.unknown[:1] == ["--help"]:
            raise BadFlagError

    def text(self, name: str) -> str:
        return str(self._values[name])

    def number(self, name: str) -> int:
        return int(self._values[name])

    def on(self, name: str) -> bool:
        return bool(self._values[name])

    def without_effect(self) -> list[str]:
        """The flags that were set and do nothing here."""
        return [flag.name for flag in FLAGS if not flag.acts and self._values[flag.name] != flag.default]


def usage(program: str) -> str:
    lines = [f"usage: {program}", "Flags:"]
    for flag in FLAGS:
        lines.append("\t" + f"--{flag.name}={_shown(flag)}".ljust(33) + f"\t{flag.type}\t{flag.help}")
    return "\n".join(lines) + "\n"


def _parse(flag: Flag, text: str) -> Value | None:
    """`text` has its equals sign, or is empty for a bare bool."""
    value = text[1:]
    if flag.type == "string":
        return value
    if flag.type == "bool":
        return {"": True, "=true": True, "=false": False}.get(text)
    try:
        if flag.type == "float":
            return float(value)
        number = int(value) if re.fullmatch(r"\s*[+-]?\d+", value) else None
    except ValueError:
        return None
    bits = 31 if flag.type == "int32" else 63
    return number if number is not None and -(2**bits) <= number < 2**bits else None


def _shown(flag: Flag) -> str:
    match flag.type:
        case "string":
            return f'"{flag.default}"'
        case "bool":
            return str(flag.default).lower()
        case "float":
            return f"{flag.default:f}"
        case _:
            return str(flag.default)
