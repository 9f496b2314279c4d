"""`POST /predict` of half_plus_two: `{"x": 1.0}` → `{"y": 2.5}`, or many at once under `instances`."""

import numpy as np

from adapter.handler import Handler, Struct


class Request(Struct):
    x: float


class Answer(Struct):
    y: float


class HalfPlusTwo(Handler[Request, Answer]):
    inputs = {"x": "float32"}
    outputs = {"y": "float32"}
    inline = True

    def preprocess(self, batch):
        return {"x": np.array([request.x for request in batch], np.float32)}

    def postprocess(self, outputs, batch):
        return [Answer(y) for y in outputs["y"].tolist()]
