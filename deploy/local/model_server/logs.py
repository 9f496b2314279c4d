"""The log lines of TensorFlow Serving's own sources, in the formats they have in version 2.19, on stderr.

Formats are mixed there: most files use TensorFlow's logger, files that use absl/log have absl's prefix (and ignore
TF_CPP_MIN_LOG_LEVEL), the HTTP server has a third one. TensorFlow's C++ code in this process adds its lines by itself.
A line is one `write`, so lines of several threads and of the C++ code do not mix.
"""

import os
import threading
import time

_SEVERITIES = "IWEF"
_MIN_LEVEL = int(os.environ.get("TF_CPP_MIN_LOG_LEVEL") or 0)
_THREAD_IDS = (os.environ.get("TF_CPP_LOG_THREAD_ID") or "0") != "0"


def tf(severity: str, source: str, message: str) -> None:
    """`2026-11-22 14:07:36.669392: I tensorflow_serving/model_servers/server_core.cc:481] Adding/updating models.`"""
    if _SEVERITIES.index(severity) < _MIN_LEVEL:
        return
    now = time.time()
    stamp = f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(now))}.{int(now % 1 * 1e6):06d}"
    thread = f" {threading.get_native_id():7d}" if _THREAD_IDS else ""
    _write(f"{stamp}: {severity}{thread} {source}] {message}")


def absl(severity: str, source: str, message: str) -> None:
    """`I0000 00:00:1795356456.857856   19841 loader_harness.cc:79] Loading …`: absl before its time zone is known."""
    _write(f"{severity}0000 00:00:{time.time():.6f} {threading.get_native_id():7d} {source}] {message}")


def net(source: str, line: int, message: str) -> None:
    """`[evhttp_server.cc : 261] NET_LOG: Entering the event loop ...`"""
    _write(f"[{source} : {line}] NET_LOG: {message}")


def protobuf(message: str) -> None:
    """The C++ protobuf library's complaint about a text file it cannot parse."""
    _write(f"[libprotobuf ERROR external/com_google_protobuf/src/google/protobuf/text_format.cc:337] {message}")


def _write(line: str) -> None:
    os.write(2, f"{line}\n".encode())
