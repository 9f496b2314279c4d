"""The command line of tensorflow_model_server: its flags, their types and defaults, and how TensorFlow parses them.

`--name=value` only, and a bare `--name` for bool; an unknown argument is left over, not refused (S: model_servers/main.cc,
tsl/util/command_line_flags.cc).
"""

import os
from collections.abc import Sequence
from typing import NamedTuple

from deploy.local.model_server import logs

Value = bool | int | float | str
_CPUS = len(os.sched_getaffinity(0))


class Flag(NamedTuple):
    name: str
    type: str
    default: Value
    acts: bool = False  # or is accepted, and said to have no effect here


ACTS = True
FLAGS = (
    Flag("port", "int32", 8500, ACTS),
    Flag("grpc_socket_path", "string", "", ACTS),
    Flag("rest_api_port", "int32", 0, ACTS),
    Flag("rest_api_num_threads", "int32", 4 * _CPUS),
    Flag("rest_api_timeout_in_ms", "int32", 30000),
    Flag("rest_api_enable_cors_support", "bool", False),
    Flag("enable_batching", "bool", False),
    Flag("allow_version_labels_for_unavailable_models", "bool", False, ACTS),
    Flag("batching_parameters_file", "string", ""),
    Flag("enable_per_model_batching_parameters", "bool", False),
    Flag("model_config_file", "string", "", ACTS),
    Flag("model_config_file_poll_wait_seconds", "int32", 0, ACTS),
    Flag("model_name", "string", "default", ACTS),
    Flag("model_base_path", "string", "", ACTS),
    Flag("num_load_threads", "int32", 0, ACTS),
    Flag("num_unload_threads", "int32", 0, ACTS),
    Flag("max_num_load_retries", "int32", 5, ACTS),
    Flag("load_retry_interval_micros", "int64", 60_000_000, ACTS),
    Flag("file_system_poll_wait_seconds", "int32", 1, ACTS),
    Flag("flush_filesystem_caches", "bool", True),
    Flag("tensorflow_session_parallelism", "int64", 0, ACTS),
    Flag("tensorflow_session_config_file", "string", "", ACTS),
    Flag("tensorflow_intra_op_parallelism", "int64", 0, ACTS),
    Flag("tensorflow_inter_op_parallelism", "int64", 0, ACTS),
    Flag("use_alts_credentials", "bool", False),
    Flag("ssl_config_file", "string", ""),
    Flag("platform_config_file", "string", ""),
    Flag("per_process_gpu_memory_fraction", "float", 0.0),
    Flag("saved_model_tags", "string", "serve", ACTS),
    Flag("grpc_channel_arguments", "string", "", ACTS),
    Flag("grpc_max_threads", "int32", 4 * _CPUS, ACTS),
    Flag("enable_model_warmup", "bool", True, ACTS),
    Flag("num_request_iterations_for_warmup", "int32", 0, ACTS),
    Flag("version", "bool", False, ACTS),
    Flag("monitoring_config_file", "string", "", ACTS),
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
    Flag("enable_grpc_healthcheck_service", "bool", False, ACTS),
    Flag("enable_serialization_as_tensor_content", "bool", False, ACTS),
)
_BY_NAME = {flag.name: flag for flag in FLAGS}


class BadFlagError(Exception):
    """A value that does not fit its flag's type, or --help."""


class Options:
    """The values of all flags, by name, and the arguments that are none."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._values = {flag.name: flag.default for flag in FLAGS}
        self.unknown: list[str] = []
        refused = False
        for argument in arguments:
            name, equals, text = argument.removeprefix("--").partition("=")
            flag = _BY_NAME.get(name) if argument.startswith("--") else None
            if flag is None or not (equals or flag.type == "bool"):
                self.unknown.append(argument)
                continue
            value = _parsed(flag.type, text if equals else "true")
            if value is None:
                logs.error("command_line_flags.cc:55", f"Couldn't interpret value {text} for flag {name}.")
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
        return [f"--{flag.name}" for flag in FLAGS if not flag.acts and self._values[flag.name] != flag.default]


def usage(program: str) -> str:
    lines = [f"usage: {program}", "Flags:"]
    for flag in FLAGS:
        default = {"string": f'"{flag.default}"', "bool": str(flag.default).lower()}.get(flag.type, str(flag.default))
        note = "" if flag.acts else "\taccepted, without effect here"
        lines.append("\t" + f"--{flag.name}={default}".ljust(33) + f"\t{flag.type}{note}")
    return "\n".join(lines) + "\n"


def _parsed(kind: str, text: str) -> Value | None:
    if kind == "string":
        return text
    if kind == "bool":
        return {"true": True, "false": False}.get(text)
    try:
        if kind == "float":
            return float(text)
        number = int(text) if "_" not in text else None
    except ValueError:
        return None
    limit = 2**31 if kind == "int32" else 2**63
    return number if number is not None and -limit <= number < limit else None
