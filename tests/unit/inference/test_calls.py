"""Trying calls again: only where that is safe, in time, with jitter, and never so often that it buries a dying server."""

import asyncio
from collections.abc import Callable

import pytest
from grpc import StatusCode

from adapter.errors import CallFailed
from adapter.inference import calls
from adapter.inference.calls import PREDICT, STATUS, Connection
from adapter.inference.channel import Metadata


class Script:
    """A channel that answers as `says` tells by the number of the call; it remembers when it was asked."""

    def __init__(self, says: Callable[[int], StatusCode | None]) -> None:
        self.says = says
        self.asked: list[str] = []
        self.timeouts: list[float] = []
        self.hold = asyncio.Event()
        self.hold.set()

    async def unary(self, path: str, request: bytes, timeout: float, metadata: Metadata = ()) -> bytes:
        self.asked.append(path)
        self.timeouts.append(timeout)
        await self.hold.wait()
        code = self.says(len(self.asked))
        if code is not None:
            raise CallFailed(code, f"failure {len(self.asked)}")
        return b"answer"

    async def lost(self) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        pass


def soon(seconds: float = 10) -> float:
    return asyncio.get_running_loop().time() + seconds


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What is slept between attempts, without sleeping."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(calls.asyncio, "sleep", sleep)
    return slept


@pytest.mark.parametrize("code", [StatusCode.UNAVAILABLE, StatusCode.RESOURCE_EXHAUSTED])
async def test_what_had_no_answer_is_tried_again_until_it_has_one(code: StatusCode, pauses: list[float]) -> None:
    channel = Script(lambda number: code if number < 3 else None)
    connection = Connection(channel, 8, 8)
    told: list[str] = []
    connection.on_unavailable = lambda: told.append("unavailable")
    assert await connection.call(PREDICT, b"", soon()) == b"answer"
    assert len(channel.asked) == 3
    assert len(told) == (2 if code is StatusCode.UNAVAILABLE else 0)


async def test_pauses_double_and_are_jittered(pauses: list[float]) -> None:
    connection = Connection(Script(lambda _: StatusCode.UNAVAILABLE), 8, 8)
    for _ in range(20):
        with pytest.raises(CallFailed):
            await connection.call(PREDICT, b"", soon())
    rounds = [pauses[at : at + 3] for at in range(0, 60, 3)]
    for first, second, third in rounds:
        assert 0.025 <= first <= 0.075
        assert 0.05 <= second <= 0.15
        assert 0.1 <= third <= 0.3
    assert len({first for first, _, _ in rounds}) > 10


@pytest.mark.parametrize(
    "code", [StatusCode.INVALID_ARGUMENT, StatusCode.NOT_FOUND, StatusCode.INTERNAL, StatusCode.DEADLINE_EXCEEDED]
)
async def test_an_answer_is_an_answer_whatever_it_says(code: StatusCode, pauses: list[float]) -> None:
    channel = Script(lambda _: code)
    with pytest.raises(CallFailed, match="failure 1"):
        await Connection(channel, 8, 8).call(PREDICT, b"", soon())
    assert len(channel.asked) == 1


async def test_it_gives_up_after_four_attempts_with_the_last_words(pauses: list[float]) -> None:
    channel = Script(lambda _: StatusCode.UNAVAILABLE)
    with pytest.raises(CallFailed, match="failure 4") as caught:
        await Connection(channel, 8, 8).call(PREDICT, b"", soon())
    assert caught.value.status == 503
    assert "Retry-After" in caught.value.headers


async def test_no_attempt_begins_that_the_deadline_leaves_no_time_for(pauses: list[float]) -> None:
    channel = Script(lambda _: StatusCode.UNAVAILABLE)
    with pytest.raises(CallFailed, match="failure 1"):
        await Connection(channel, 8, 8).call(PREDICT, b"", soon(0.02))
    assert len(channel.asked) == 1
    assert channel.timeouts[0] <= 0.021


async def test_a_budget_keeps_retries_to_a_share_of_the_calls_and_successes_fill_it_again(pauses: list[float]) -> None:
    dead = True
    channel = Script(lambda _: StatusCode.UNAVAILABLE if dead else None)
    connection = Connection(channel, 8, 8)
    for _ in range(200):
        with pytest.raises(CallFailed):
            await connection.call(PREDICT, b"", soon())
    assert len(channel.asked) == 200 + calls.BUDGET_TOKENS  # not 800
    dead = False
    for _ in range(11):  # worth 2.2 retries
        await connection.call(PREDICT, b"", soon())
    dead = True
    channel.asked.clear()
    with pytest.raises(CallFailed):
        await connection.call(PREDICT, b"", soon())
    assert len(channel.asked) == 1 + 2


async def test_one_place_is_kept_for_the_groups_own_questions() -> None:
    channel = Script(lambda _: None)
    channel.hold.clear()
    connection = Connection(channel, 3, 8)
    predictions = [asyncio.create_task(connection.call(PREDICT, b"", soon())) for _ in range(5)]
    while len(channel.asked) < 2:
        await asyncio.sleep(0)
    asking = asyncio.create_task(connection.ask(STATUS, b"", 1))
    while STATUS not in channel.asked:
        await asyncio.sleep(0)
    assert channel.asked == [PREDICT, PREDICT, STATUS]
    channel.hold.set()
    assert set(await asyncio.gather(*predictions, asking)) == {b"answer"}


async def test_a_call_that_is_cancelled_gives_its_place_to_the_next() -> None:
    channel = Script(lambda _: None)
    channel.hold.clear()
    connection = Connection(channel, 2, 8)
    leaving = asyncio.create_task(connection.call(PREDICT, b"", soon()))
    staying = asyncio.create_task(connection.call(PREDICT, b"", soon()))
    while not channel.asked:
        await asyncio.sleep(0)
    leaving.cancel()
    channel.hold.set()
    assert await staying == b"answer"
