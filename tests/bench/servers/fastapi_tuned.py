"""FastAPI in front of gRPC by someone who has profiled it: the raw body, orjson both ways, no models, uvloop, httptools."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
from fastapi import FastAPI, Request, Response
from tensors import predictions, request, stub


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.predict = stub()
    yield


app = FastAPI(lifespan=lifespan)


@app.post("/v1/models/{model}:predict")
async def predict(model: str, http: Request) -> Response:
    instances = orjson.loads(await http.body())["instances"]
    response = await app.state.predict(request(model, instances), timeout=30)
    body = orjson.dumps({"predictions": predictions(response)}, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, media_type="application/json")
