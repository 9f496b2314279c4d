"""The log lines of TensorFlow Serving 2.19's own sources, on stderr, in the format each source has there.

Formats are mixed: most files use TensorFlow's logger, `loader_harness.cc` uses absl's (which ignores
TF_CPP_MIN_LOG_LEVEL), the HTTP server has its own. TensorFlow's C++ code in this process adds its lines by itself.
A line is one `write`, so that lines of several threads and of the C++ code do not mix.
"""

import os
import threading
import time

_DIRECTORIES = {
    "aspired_versions_manager.cc": "tensorflow_serving/core",
    "basic_manager.cc": "tensorflow_serving/core",
    "command_line_flags.cc": "external/local_xla/xla/tsl/util",
    "file_system_storage_path_source.cc": "tensorflow_serving/sources/storage_path",
    "model_service_impl.cc": "tensorflow_serving/model_servers",
    "retrier.cc": "tensorflow_serving/util",
    "saved_model_warmup_util.cc": "tensorflow_serving/servables/tensorflow",
    "server.cc": "tensorflow_serving/model_servers",
    "server_core.cc": "tensorflow_serving/model_servers",
}
_MIN_LEVEL = int(os.environ.get("TF_CPP_MIN_LOG_LEVEL") or 0)
_THREAD_IDS = os.environ.get("TF_CPP_LOG_THREAD_ID", "0") not in ("", "0")


def info(source: str, message: str) -> None:
    """`source` is file and line: `server_core.cc:481`."""
    _log("I", source, message)


def warning(source: str, message: str) -> None:
    _log("W", source, message)


def error(source: str, message: str) -> None:
    _log("E", source, message)


def net(source: str, message: str) -> None:
    """`[evhttp_server.cc : 261] NET_LOG: Entering the event loop ...`"""
    _write(f"[{source.replace(':', ' : ')}] NET_LOG: {message}")


def protobuf(message: str) -> None:
    _write(f"[libprotobuf ERROR external/com_google_protobuf/src/google/protobuf/text_format.cc:337] {message}")


def _log(severity: str, source: str, message: str) -> None:
    now, thread = time.time(), f"{threading.get_native_id():7d}"
    directory = _DIRECTORIES.get(source.partition(":")[0])
    if directory is None:  # absl, before it knows its time zone
        _write(f"{severity}0000 00:00:{now:.6f} {thread} {source}] {message}")
    elif "IWE".index(severity) >= _MIN_LEVEL:
        stamp = f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(now))}.{int(now % 1 * 1e6):06d}"
        _write(f"{stamp}: {severity}{' ' + thread if _THREAD_IDS else ''} {directory}/{source}] {message}")


def _write(line: str) -> None:
    os.write(2, f"{line}\n".encode())
