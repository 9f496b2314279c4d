"""The warm-up file of a version: requests replayed before it is available (S: servables/tensorflow/
saved_model_warmup_util.cc). One that fails fails the load."""

import struct
import time
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.message import DecodeError
from grpc import StatusCode

from deploy.local.model_server import logs
from deploy.local.model_server import protos as pb
from deploy.local.model_server.metrics import Metrics, micros_since
from deploy.local.model_server.servable import Servable
from deploy.local.model_server.status import StatusError, require

_MAX_RECORDS = 1000


def warm_up(servable: Servable, path: Path, iterations: int, metrics: Metrics) -> None:
    source, start, count = "saved_model_warmup_util.cc", time.monotonic(), 0
    file = path / "assets.extra" / "tf_serving_warmup_requests"
    if not file.exists():
        logs.info(f"{source}:82", f"No warmup data file found at {file}")
        return
    logs.info(f"{source}:94", f"Starting to read warmup data for model at {file} with model-warmup-options ")
    for record in _records(file.read_bytes()):
        try:
            log = pb.PredictionLog.FromString(record)
        except DecodeError:
            text = f"Failed to parse warmup record: {record!r} from {file}"
            raise StatusError(StatusCode.INVALID_ARGUMENT, text) from None
        for _ in range(iterations):
            _replay(servable, log)
        count += 1
        require(count <= _MAX_RECORDS, f"Number of warmup records exceeds the maximum ({_MAX_RECORDS}) at {file}")
    took = micros_since(start)
    metrics.warmup_latency.observe(took, str(path), "OK")
    summary = f"Number of warmup records read: {count}. Elapsed time (microseconds): {took}."
    logs.info(f"{source}:205", f"Finished reading warmup data for model at {file}. {summary}")


def _replay(servable: Servable, log: pb.PredictionLog) -> None:
    match log.WhichOneof("log_type"):
        case "predict_log":
            servable.predict(log.predict_log.request)
        case "classify_log":
            servable.classify(log.classify_log.request)
        case "regress_log":
            servable.regress(log.regress_log.request)
        case "multi_inference_log":
            servable.multi_inference(log.multi_inference_log.request)
        case kind:
            raise StatusError(StatusCode.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind}")


def _records(data: bytes) -> Iterator[bytes]:
    """A TFRecord file: length (8 bytes), its checksum (4), data, its checksum (4), and again. Checksums unchecked."""
    offset = 0
    while offset < len(data):
        length = struct.unpack_from("<Q", data, offset)[0] if offset + 8 <= len(data) else len(data)
        if offset + 16 + length > len(data):
            text = f"truncated record at {offset}. Please verify your warmup data is in TFRecord format."
            raise StatusError(StatusCode.DATA_LOSS, text)
        yield data[offset + 12 : offset + 12 + length]
        offset += 16 + length
