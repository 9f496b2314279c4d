"""The data plane: how many calls each model may have in flight."""

import asyncio

import numpy as np
import pytest

from adapter.inference import json_out
from adapter.inference.plane import DataPlane
from adapter.inference.signatures import Endpoint, Servable
from adapter.inference.tensor import FLOAT, Signature, Tensor, Unserved
from adapter.inference.turns import at_once
from adapter.pb import serving_pb2, tensorflow_pb2

MAX_CALLS = 16


class Slow:
    """A connection whose calls last until they are cancelled; it counts those in flight."""

    def __init__(self) -> None:
        self.in_flight = 0

    async def call(self, path: str, request: bytes, deadline: float, trip: object = None) -> bytes:
        self.in_flight += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.in_flight -= 1
        raise AssertionError


class Quantized:
    """A connection whose calls are answered with as many values of a type that has no JSON."""

    def __init__(self, *shape: int) -> None:
        response = serving_pb2.PredictResponse()
        output = response.outputs["y"]
        output.dtype = tensorflow_pb2.DT_QUINT8
        for size in shape:
            output.tensor_shape.dim.add(size=size)
        self.answer = response.SerializeToString()

    async def call(self, path: str, request: bytes, deadline: float, trip: object = None) -> bytes:
        await asyncio.sleep(0)
        return self.answer


async def in_flight(model: str, requests: int) -> int:
    """Calls for `model` once so many requests have gone as far as they can."""
    calls = Slow()
    plane = DataPlane(calls, frozenset(), MAX_CALLS, 64, {"bounded": 3})
    endpoint = Endpoint(Servable(model), Signature("serving_default", "", {}, {}), b"")
    deadline = asyncio.get_running_loop().time() + 60
    tasks = [asyncio.create_task(plane.predict(endpoint, {}, deadline)) for _ in range(requests)]
    for _ in range(10):  # turns of the loop: nothing here waits for a clock
        await asyncio.sleep(0)
    found = calls.in_flight
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return found


@pytest.mark.parametrize("coalesced", [frozenset(), frozenset({"m"})], ids=["alone", "coalesced"])
async def test_an_output_of_a_type_without_tensors_fails_each_request_and_is_no_failure_of_the_call(
    coalesced: frozenset[str],
) -> None:
    plane = DataPlane(Quantized(1), coalesced, MAX_CALLS, 64)
    endpoint = Endpoint(Servable("m"), Signature("serving_default", "", {}, {}), b"")
    inputs = {"x": Tensor(FLOAT, np.zeros(1, np.float32))}
    deadline = asyncio.get_running_loop().time() + 60
    failures = await asyncio.gather(
        *[plane.predict(endpoint, inputs, deadline) for _ in range(5)], return_exceptions=True
    )
    for failure in failures:
        assert isinstance(failure, Unserved)
        assert str(failure) == "Failed to write JSON value for tensor type: quint8"


@pytest.mark.parametrize(
    ("shape", "row", "expected"),
    [
        ((0,), True, b'{"predictions":[]}'),
        ((0, 3), False, b'{"outputs":[]}'),
        ((2, 0), True, b'{"predictions":[[],[]]}'),
    ],
)
async def test_an_output_without_values_is_written_whatever_its_type(
    shape: tuple[int, ...], row: bool, expected: bytes
) -> None:
    plane = DataPlane(Quantized(*shape), frozenset(), MAX_CALLS, 64)
    endpoint = Endpoint(Servable("m"), Signature("serving_default", "", {}, {}), b"")
    prediction = await plane.predict(endpoint, {}, asyncio.get_running_loop().time() + 60)
    assert json_out.predictions(prediction.outputs, row) == expected
    assert at_once(json_out.predictions_in_steps(prediction.outputs, row)) == expected


async def test_a_model_has_no_more_calls_in_flight_than_its_bundle_says() -> None:
    assert await in_flight("bounded", 20) == 3


async def test_a_model_of_which_nothing_is_said_has_three_quarters_of_all() -> None:
    assert await in_flight("other", 20) == MAX_CALLS * 3 // 4
