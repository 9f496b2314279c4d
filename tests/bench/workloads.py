"""What is asked of every peer, and what must come back: seeded, so the same bytes in every run."""

import base64
import json
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from adapter.inference.tensor import FLOAT, STRING, Array, Tensor
from adapter.inference.wire import model_spec, predict_request

JSON = "Content-Type: application/json\r\n"


@dataclass(frozen=True)
class Workload:
    """One request: `model`'s input `x` as JSON and as a tensor, and the `y` that answers it."""

    name: str
    text: str
    model: str
    instances: Any
    tensor: Tensor
    y: Array

    def grpc(self) -> bytes:
        """The encoded PredictRequest."""
        return predict_request(model_spec(self.model, None, None, "serving_default"), {"x": self.tensor})

    def v1(self) -> tuple[str, bytes]:
        """Header lines and body in TensorFlow Serving's row format."""
        return JSON, json.dumps({"instances": self.instances}).encode()

    def v2_binary(self) -> tuple[str, bytes]:
        """Header lines and body in the Open Inference Protocol with the binary tensor extension, both ways."""
        x: dict[str, Any] = {"name": "x", "shape": self.tensor.shape, "datatype": self.tensor.dtype.v2}
        x["parameters"] = {"binary_data_size": self.tensor.data.nbytes}
        head = json.dumps({"inputs": [x], "outputs": [{"name": "y", "parameters": {"binary_data": True}}]}).encode()
        lines = f"Content-Type: application/octet-stream\r\nInference-Header-Content-Length: {len(head)}\r\n"
        return lines, head + self.tensor.data.tobytes()


def y_of_v1(_: Mapping[str, str], body: bytes) -> Array:
    """The values of an answer in TensorFlow Serving's row format."""
    return np.array(json.loads(body)["predictions"], np.float32)


def y_of_v2_binary(headers: Mapping[str, str], body: bytes) -> Array:
    """The values of an answer in the Open Inference Protocol with the binary tensor extension."""
    size = int(headers["Inference-Header-Content-Length"])
    (output,) = json.loads(body[:size])["outputs"]
    return np.frombuffer(body[size:], np.float32).reshape(output["shape"])


@dataclass(frozen=True)
class Format:
    """How a REST peer is spoken to: `path` with the model's name in it, the request, the answer's values."""

    path: str
    request: Callable[[Workload], tuple[str, bytes]]
    y: Callable[[Mapping[str, str], bytes], Array]


V1 = Format("/v1/models/{model}:predict", Workload.v1, y_of_v1)
V2_BINARY = Format("/v2/models/{model}/infer", Workload.v2_binary, y_of_v2_binary)


def floats(name: str, text: str, *shape: int) -> Workload:
    """half_plus_two on floats as clients send them: four to seven significant digits."""
    chance = random.Random(name)
    numbers = [float(f"{chance.uniform(-10, 10):.{chance.randint(4, 7)}g}") for _ in range(math.prod(shape))]
    nested = np.array(numbers).reshape(shape)
    x = nested.astype(np.float32)
    return Workload(name, text, "half_plus_two", nested.tolist(), Tensor(FLOAT, x), x / 2 + 2)


def strings(name: str, text: str, values: list[bytes], instances: list[Any]) -> Workload:
    """bytes_len on strings."""
    y = np.array([len(value) for value in values], np.float32) / 2 + 2
    return Workload(name, text, "bytes_len", instances, Tensor(STRING, np.array(values, object)), y)


def _image() -> Workload:
    data = random.Random("image").randbytes(100_000)
    return strings("image", "one string of 100 kB in base64", [data], [{"b64": base64.b64encode(data).decode()}])


def _words() -> Workload:
    chance = random.Random("strings")
    words = ["".join(chance.choices("abcdefghij klmnopqrstuvwxyz", k=chance.randint(5, 60))) for _ in range(64)]
    return strings("strings", "64 strings of 5 to 60 characters", [word.encode() for word in words], words)


def workloads() -> dict[str, Workload]:
    """All of them by name."""
    found = (
        floats("small", "1x10 floats", 1, 10),
        floats("medium", "32x100 floats", 32, 100),
        floats("large", "1x224x224x3 floats", 1, 224, 224, 3),
        _image(),
        _words(),
    )
    return {workload.name: workload for workload in found}
