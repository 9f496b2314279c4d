"""The data plane: how many calls each model may have in flight."""

import asyncio

from adapter.inference.plane import DataPlane
from adapter.inference.signatures import Endpoint, Servable
from adapter.inference.tensor import Signature

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


async def test_a_model_has_no_more_calls_in_flight_than_its_bundle_says() -> None:
    assert await in_flight("bounded", 20) == 3


async def test_a_model_of_which_nothing_is_said_has_three_quarters_of_all() -> None:
    assert await in_flight("other", 20) == MAX_CALLS * 3 // 4
