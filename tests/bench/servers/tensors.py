"""What the Python peers share: JSON instances to a PredictRequest and back, as one writes it who knows the costs."""

import base64
import os
from typing import Any

import grpc
import numpy as np

from adapter.pb import serving_pb2 as serving

DT_FLOAT, DT_STRING = 1, 7
PREDICT = "/tensorflow.serving.PredictionService/Predict"


def stub() -> Any:
    """The Predict call over a channel to the backend; make it inside the event loop."""
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    channel = grpc.aio.insecure_channel(os.environ["BENCH_BACKEND"], options=unlimited)
    return channel.unary_unary(
        PREDICT,
        request_serializer=serving.PredictRequest.SerializeToString,
        response_deserializer=serving.PredictResponse.FromString,
    )


def request(model: str, instances: list[Any]) -> serving.PredictRequest:
    """Numbers travel as `tensor_content`, strings one by one."""
    message = serving.PredictRequest()
    message.model_spec.name = model
    tensor = message.inputs["x"]
    if isinstance(instances[0], str | dict):
        values = [item.encode() if isinstance(item, str) else base64.b64decode(item["b64"]) for item in instances]
        tensor.dtype = DT_STRING
        tensor.tensor_shape.dim.add(size=len(values))
        tensor.string_val.extend(values)
        return message
    array = np.asarray(instances, np.float32)
    tensor.dtype = DT_FLOAT
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = array.tobytes()
    return message


def predictions(response: serving.PredictResponse) -> np.ndarray[Any, Any]:
    """The output `y` as an array."""
    tensor = response.outputs["y"]
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    if tensor.tensor_content:
        return np.frombuffer(tensor.tensor_content, np.float32).reshape(shape)
    return np.array(tensor.float_val, np.float32).reshape(shape)
