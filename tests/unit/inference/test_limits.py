"""The limit on calls: order of arrival, a short queue, and what it settles at when the server has less room."""

import asyncio
import heapq
import random

import pytest
from grpc import StatusCode

from adapter.errors import CallFailed, Refused
from adapter.inference.limits import Limit, overloaded


def later(seconds: float = 10) -> float:
    return asyncio.get_running_loop().time() + seconds


async def test_places_are_given_in_order_of_arrival() -> None:
    limit = Limit(1, 10)
    await limit.acquire(later())
    order: list[int] = []

    async def one(number: int) -> None:
        await limit.acquire(later())
        order.append(number)
        limit.release()

    tasks = [asyncio.create_task(one(number)) for number in range(5)]
    while limit.waiting < 5:
        await asyncio.sleep(0)
    limit.release()
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3, 4]
    assert limit.in_flight == 0


async def test_beyond_the_queue_it_refuses_with_503_and_when_to_retry() -> None:
    limit = Limit(1, 1)
    await limit.acquire(later())
    waiting = asyncio.create_task(limit.acquire(later()))
    await asyncio.sleep(0)
    with pytest.raises(Refused) as caught:
        await limit.acquire(later())
    assert caught.value.status == 503
    assert "Retry-After" in caught.value.headers
    limit.release()
    await waiting


async def test_a_deadline_that_passes_in_the_queue_gives_the_place_up() -> None:
    limit = Limit(1, 5)
    await limit.acquire(later())
    with pytest.raises(CallFailed) as caught:
        await limit.acquire(later(0.01))
    assert caught.value.code is StatusCode.DEADLINE_EXCEEDED
    assert limit.waiting == 0
    limit.release()
    assert limit.in_flight == 0


async def test_one_that_leaves_as_its_place_comes_free_passes_it_on() -> None:
    limit = Limit(1, 5)
    await limit.acquire(later())
    leaving = asyncio.create_task(limit.acquire(later()))
    staying = asyncio.create_task(limit.acquire(later()))
    while limit.waiting < 2:
        await asyncio.sleep(0)
    limit.release()
    leaving.cancel()
    await staying
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert limit.in_flight == 1


def test_overload_is_what_tensorflow_serving_says_of_its_own_room() -> None:
    full = "The batch scheduling queue to which this task was submitted is full; currently 1 batches enqueued"
    assert overloaded(CallFailed(StatusCode.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted"))
    assert overloaded(CallFailed(StatusCode.UNAVAILABLE, full))
    assert not overloaded(CallFailed(StatusCode.UNAVAILABLE, "Socket closed"))
    assert not overloaded(CallFailed(StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"))


@pytest.mark.parametrize("room", [1, 3, 8, 20, 64])
def test_it_settles_just_above_the_servers_room_and_uses_it(room: int) -> None:
    """A server with `room` threads, refusing at once what is beyond; always more demand than room."""
    generator = random.Random(room)
    limit = Limit(64, 0)
    running: list[float] = []
    refused = served = 0
    now = 0.0
    used = []
    for _ in range(20_000):
        while limit.in_flight < limit.limit:
            limit.in_flight += 1
            if len(running) >= room:
                refused += 1
                limit.release(overloaded=True)
                break
            heapq.heappush(running, now + generator.uniform(0.5, 1.5))
        now = heapq.heappop(running)
        limit.release()
        served += 1
        used.append(len(running) + 1)
    settled = used[len(used) // 2 :]
    assert sum(settled) / len(settled) > 0.7 * room
    assert refused < 0.2 * served


def test_it_recovers_its_ceiling_once_the_server_has_room_again() -> None:
    limit = Limit(32, 0)
    for _ in range(20):
        limit.in_flight += 1
        limit.release(overloaded=True)
    assert limit.limit == 1
    calls = 0
    while limit.limit < 32:
        limit.in_flight = limit.limit
        limit.release()
        calls += 1
    assert calls < 6000  # ten for each place, at each of the sizes on the way


def test_calls_that_never_fill_it_do_not_raise_it() -> None:
    limit = Limit(32, 0)
    limit.in_flight = 1
    limit.release(overloaded=True)
    before = limit.limit
    for _ in range(100):
        limit.in_flight += 1
        limit.release()
    assert limit.limit == before
