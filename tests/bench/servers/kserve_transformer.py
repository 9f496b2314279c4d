"""KServe's Python transformer. With `--predictor_host` KServe itself calls the backend's REST; without, `predict` is
overridden to call its gRPC, which is the faster way.
"""

import argparse
from typing import Any

import kserve
from kserve import model_server
from tensors import predictions, request, stub


class OverRest(kserve.Model):
    """Steps in front of and behind a predictor, which is where a transformer's own work would stand."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.ready = True

    async def preprocess(self, payload: Any, *_: object, **__: object) -> Any:
        return {"instances": payload["instances"]}

    async def postprocess(self, result: Any, *_: object, **__: object) -> Any:
        return {"predictions": result["predictions"]}


class OverGrpc(OverRest):
    """The same with a `predict` of its own."""

    call: Any = None

    async def predict(self, payload: Any, *_: object, **__: object) -> Any:
        self.call = self.call or stub()
        response = await self.call(request(self.name, payload["instances"]), timeout=30)
        return {"predictions": predictions(response).tolist()}


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(parents=[model_server.parser]).parse_known_args()[0]
    kind = OverRest if arguments.predictor_host else OverGrpc
    kserve.ModelServer().start([kind("half_plus_two"), kind("bytes_len")])
