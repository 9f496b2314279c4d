"""Coalescing: many requests, one call, and each gets what it would have got alone."""

import asyncio
import itertools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pytest
from grpc import StatusCode
from hypothesis import given, settings
from hypothesis import strategies as st

from adapter.errors import CallFailed, Refused, RequestFailed
from adapter.inference import coalesce, lanes
from adapter.inference.coalesce import Coalescer, Traces
from adapter.inference.lanes import Prediction
from adapter.inference.signatures import Endpoint, Servable
from adapter.inference.tensor import FLOAT, STRING, Signature, Tensor
from tests.virtual_time import VirtualTime

BAD = np.float32(-1e9)
SIGNATURE = Signature("serving_default", "tensorflow/serving/predict", {}, {})
ENDPOINT = Endpoint(Servable("m"), SIGNATURE, b"")
OTHER = Endpoint(Servable("other"), SIGNATURE, b"")


class Model:
    """y = x / 2 + 2 row by row. Each call waits for `gate`; a row holding BAD fails the whole call with `failure`."""

    def __init__(self, failure: RequestFailed | None = None) -> None:
        self.failure = failure or CallFailed(StatusCode.INVALID_ARGUMENT, "bad row")
        self.calls: list[int] = []
        self.cancelled: list[int] = []
        self.gate = asyncio.Event()
        self.called = asyncio.Event()

    async def __call__(
        self, endpoint: Endpoint, inputs: Mapping[str, Tensor], deadline: float, traces: Traces
    ) -> Prediction:
        x = inputs["x"].data
        self.calls.append(len(x))
        self.called.set()
        async with asyncio.timeout_at(deadline):
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.cancelled.append(len(x))
                raise
        if (x == BAD).any():
            raise self.failure
        return Prediction({"y": Tensor(FLOAT, x * np.float32(0.5) + np.float32(2))}, 1)


def rows(*values: float) -> dict[str, Tensor]:
    return {"x": Tensor(FLOAT, np.array([[value] for value in values], np.float32))}


def answer(prediction: Prediction) -> list[float]:
    values: list[float] = prediction.outputs["y"].data[:, 0].tolist()
    return values


def soon(seconds: float = 10) -> float:
    return asyncio.get_running_loop().time() + seconds


async def first_call_in_flight(coalescer: Coalescer, model: Model) -> asyncio.Task[Prediction]:
    task = asyncio.create_task(coalescer.predict(ENDPOINT, rows(0), soon()))
    await model.called.wait()
    return task


async def arrived(coalescer: Coalescer, waiting: int) -> None:
    """Until so many requests wait in the only lane."""
    while sum(len(lane.waiting) for lane in coalescer._lanes.values()) != waiting:
        await asyncio.sleep(0)


async def together(model: Model, *values: float) -> list[asyncio.Task[Prediction]]:
    """Requests of one row each, that wait for one call and leave in the next; the first call has been answered."""
    coalescer = Coalescer(model)
    first = await first_call_in_flight(coalescer, model)
    riders = [asyncio.create_task(coalescer.predict(ENDPOINT, rows(value), soon())) for value in values]
    await arrived(coalescer, len(values))
    model.gate.set()
    await first
    return riders


async def test_a_request_that_finds_its_lane_idle_goes_out_at_once_and_alone() -> None:
    model = Model()
    model.gate.set()
    assert answer(await Coalescer(model).predict(ENDPOINT, rows(1, 2), soon())) == [2.5, 3.0]
    assert model.calls == [2]


async def test_those_that_arrive_during_a_call_leave_together_when_it_returns() -> None:
    model = Model()
    coalescer = Coalescer(model)
    first = await first_call_in_flight(coalescer, model)
    others = [asyncio.create_task(coalescer.predict(ENDPOINT, rows(i, i), soon())) for i in (2, 4, 6)]
    await arrived(coalescer, 3)
    model.gate.set()
    assert answer(await first) == [2.0]
    assert [answer(p) for p in await asyncio.gather(*others)] == [[3.0, 3.0], [4.0, 4.0], [5.0, 5.0]]
    assert model.calls == [1, 6]


async def test_those_who_are_read_together_with_the_answer_still_ride_along() -> None:
    """A request takes some turns of the loop from its socket to its lane; the next call is not gone by then."""
    model = Model()
    coalescer = Coalescer(model)

    async def comes_late(turns: int) -> list[float]:
        for _ in range(turns):
            await asyncio.sleep(0)
        return answer(await coalescer.predict(ENDPOINT, rows(4), soon()))

    first = await first_call_in_flight(coalescer, model)
    model.gate.set()
    await asyncio.gather(first, *(comes_late(turns) for turns in range(coalesce.TURNS)))
    assert model.calls == [1, coalesce.TURNS]


async def test_requests_of_other_keys_or_inner_shapes_never_share_a_call() -> None:
    model = Model()
    coalescer = Coalescer(model)
    first = await first_call_in_flight(coalescer, model)
    wide = {"x": Tensor(FLOAT, np.zeros((1, 3), np.float32))}
    others = [
        asyncio.create_task(coalescer.predict(OTHER, rows(2), soon())),
        asyncio.create_task(coalescer.predict(ENDPOINT, wide, soon())),
    ]
    model.gate.set()
    await asyncio.gather(first, *others)
    assert model.calls == [1, 1, 1]


async def test_nobody_pays_for_a_strangers_bad_row() -> None:
    model = Model()
    good, bad = await together(model, 2, float(BAD))
    assert answer(await good) == [3.0]
    with pytest.raises(CallFailed, match="bad row"):
        await bad
    assert model.calls == [1, 2, 1, 1]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (StatusCode.DATA_LOSS, "inflate() failed with error -3: incorrect header check"),
        (StatusCode.INTERNAL, "Input to reshape is a tensor with 3 values"),
        (StatusCode.UNKNOWN, ""),
        (StatusCode.UNIMPLEMENTED, "no kernel for this"),
        (StatusCode.RESOURCE_EXHAUSTED, "OOM when allocating tensor with shape[2,1]"),
    ],
)
async def test_nobody_pays_for_what_a_stranger_brings_upon_the_call_whatever_it_is_called(
    code: StatusCode, words: str
) -> None:
    good, bad = await together(Model(CallFailed(code, words)), 2, float(BAD))
    assert answer(await good) == [3.0]
    with pytest.raises(CallFailed) as caught:
        await bad
    assert caught.value.code is code


@pytest.mark.parametrize(
    "failure",
    [
        CallFailed(StatusCode.UNAVAILABLE, "failed to connect"),
        CallFailed(StatusCode.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted"),
        Refused(503, "Too many calls wait"),
    ],
)
async def test_a_server_that_is_gone_or_full_is_not_asked_again_for_each(failure: RequestFailed) -> None:
    model = Model(failure)
    others = await together(model, float(BAD), 2)
    failures = await asyncio.gather(*others, return_exceptions=True)
    assert [str(each) for each in failures] == [failure.message] * 2
    assert model.calls == [1, 2]


async def test_a_shared_call_that_nobody_waits_for_any_more_is_cancelled() -> None:
    model = Model()
    coalescer = Coalescer(model)
    first = await first_call_in_flight(coalescer, model)
    model.called.clear()
    riders = [asyncio.create_task(coalescer.predict(ENDPOINT, rows(i), soon())) for i in (1, 2)]
    await model.called.wait()  # the lane's head was old enough: both ride
    riders[0].cancel()
    await asyncio.wait(riders[:1])
    assert model.cancelled == []
    riders[1].cancel()
    await asyncio.wait(riders[1:])
    while not model.cancelled:
        await asyncio.sleep(0)
    assert model.cancelled == [2]
    model.gate.set()
    assert answer(await first) == [2.0]


async def test_strings_count_by_their_bytes_towards_the_bound_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "MAX_BYTES", 1000)
    gate, called, calls = asyncio.Event(), asyncio.Event(), []

    async def lengths(endpoint: Endpoint, inputs: Mapping[str, Tensor], deadline: float, traces: Traces) -> Prediction:
        calls.append(len(inputs["s"].data))
        called.set()
        await gate.wait()
        return Prediction({"n": Tensor(FLOAT, np.array([len(s) for s in inputs["s"].data], np.float32))}, 1)

    def string(length: int) -> dict[str, Tensor]:
        return {"s": Tensor(STRING, np.array([b"x" * length], object))}

    coalescer = Coalescer(lengths)
    first = asyncio.create_task(coalescer.predict(ENDPOINT, string(1), soon()))
    await called.wait()
    others = [asyncio.create_task(coalescer.predict(ENDPOINT, string(400), soon())) for _ in range(5)]
    await arrived(coalescer, 1)
    gate.set()
    await asyncio.gather(first, *others)
    assert calls == [1, 2, 2, 1]


async def test_one_that_gives_up_leaves_the_others_answers_whole() -> None:
    model = Model()
    coalescer = Coalescer(model)
    first = await first_call_in_flight(coalescer, model)
    leaving = asyncio.create_task(coalescer.predict(ENDPOINT, rows(8), soon()))
    staying = asyncio.create_task(coalescer.predict(ENDPOINT, rows(2), soon()))
    await arrived(coalescer, 2)
    leaving.cancel()
    model.gate.set()
    await first
    assert answer(await staying) == [3.0]
    assert model.calls == [1, 1]


async def test_a_deadline_of_ones_own_is_kept_while_waiting() -> None:
    model = Model()
    coalescer = Coalescer(model)
    first = await first_call_in_flight(coalescer, model)
    with pytest.raises(CallFailed) as caught:
        await coalescer.predict(ENDPOINT, rows(2), soon(0.01))
    assert caught.value.code is StatusCode.DEADLINE_EXCEEDED
    model.gate.set()
    assert answer(await first) == [2.0]


async def test_the_head_of_a_lane_does_not_wait_for_a_slow_call_beyond_its_age() -> None:
    model = Model()
    coalescer = Coalescer(model)
    first = await first_call_in_flight(coalescer, model)
    model.called.clear()
    second = asyncio.create_task(coalescer.predict(ENDPOINT, rows(2), soon()))
    await model.called.wait()  # though the first is still in flight
    assert not first.done()
    model.gate.set()
    assert answer(await second) == [3.0]
    await first


async def test_a_batch_never_exceeds_the_bound_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "MAX_ROWS", 4)
    model = Model()
    coalescer = Coalescer(model)
    first = await first_call_in_flight(coalescer, model)
    others = [asyncio.create_task(coalescer.predict(ENDPOINT, rows(i, i, i), soon())) for i in range(3)]
    await arrived(coalescer, 1)
    model.gate.set()
    await asyncio.gather(first, *others)
    assert model.calls == [1, 3, 3, 3]


async def test_as_many_as_fit_one_call_leave_whatever_is_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "MAX_ROWS", 4)
    model = Model()
    coalescer = Coalescer(model)
    first = await first_call_in_flight(coalescer, model)
    riders = [asyncio.create_task(coalescer.predict(ENDPOINT, rows(value), soon())) for value in range(6)]
    await arrived(coalescer, 2)
    while len(model.calls) < 2:
        await asyncio.sleep(0)
    assert model.calls == [1, 4]
    assert not first.done()
    model.gate.set()
    assert [answer(prediction)[0] for prediction in await asyncio.gather(*riders)] == [
        2 + value / 2 for value in range(6)
    ]
    await first
    assert model.calls == [1, 4, 2]


async def test_a_full_call_does_not_wait_behind_a_small_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "MAX_ROWS", 4)
    model = Model()
    coalescer = Coalescer(model)
    first = await first_call_in_flight(coalescer, model)
    riders = [asyncio.create_task(coalescer.predict(ENDPOINT, x, soon())) for x in (rows(1), rows(2, 3, 4, 5))]
    while len(model.calls) < 3:
        await asyncio.sleep(0)
    assert model.calls == [1, 1, 4]
    model.gate.set()
    await asyncio.gather(first, *riders)


async def test_an_output_without_the_batch_dimension_is_asked_for_one_by_one() -> None:
    gate, called, calls = asyncio.Event(), asyncio.Event(), []

    async def summing(endpoint: Endpoint, inputs: Mapping[str, Tensor], deadline: float, traces: Traces) -> Prediction:
        calls.append(len(inputs["x"].data))
        called.set()
        await gate.wait()
        return Prediction({"s": Tensor(FLOAT, inputs["x"].data.sum())}, 1)

    coalescer = Coalescer(summing)
    first = asyncio.create_task(coalescer.predict(ENDPOINT, rows(1), soon()))
    await called.wait()
    others = [asyncio.create_task(coalescer.predict(ENDPOINT, rows(i), soon())) for i in (2, 3)]
    await arrived(coalescer, 2)
    gate.set()
    assert [p.outputs["s"].data for p in await asyncio.gather(first, *others)] == [1, 2, 3]
    assert calls == [1, 2, 1, 1]


class TimedModel(Model):
    """The same, but each call takes as long as is drawn for it, and fails at its deadline as gRPC does.

    `deadlines` are the requests' own: a call has one of them, and none that nobody asked for.
    """

    def __init__(self, durations: list[float]) -> None:
        super().__init__()
        self._durations = itertools.cycle(durations)
        self.deadlines: set[float] = set()
        self.gate.set()

    async def __call__(
        self, endpoint: Endpoint, inputs: Mapping[str, Tensor], deadline: float, traces: Traces
    ) -> Prediction:
        assert deadline in self.deadlines
        left = deadline - asyncio.get_running_loop().time()
        duration = next(self._durations)
        await asyncio.sleep(max(0.0, min(duration, left)))
        if duration >= left:
            raise CallFailed(StatusCode.DEADLINE_EXCEEDED, "Deadline exceeded")
        return await super().__call__(endpoint, inputs, deadline + 1, traces)


class Asked(NamedTuple):
    """A request to come; times in seconds, after the one before it or after its own arrival."""

    values: list[float]
    good: bool
    turns: int
    gap: float
    deadline: float
    leaves: float | None


def milliseconds(least: int, most: int) -> st.SearchStrategy[float]:
    return st.integers(least, most).map(lambda number: number / 1000)


PATIENT = 60.0
LONGEST = 0.08
asked = st.builds(
    Asked,
    values=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=5),
    good=st.sampled_from([True, True, True, False]),
    turns=st.integers(0, 3),
    gap=st.just(0.0) | milliseconds(0, 40),
    deadline=st.just(PATIENT) | milliseconds(1, 150),
    leaves=st.none() | st.none() | milliseconds(0, 100),
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(asked, min_size=1, max_size=20),
    st.lists(milliseconds(0, int(LONGEST * 1000)), min_size=1, max_size=10),
)
def test_under_random_arrival_failures_cancellations_and_deadlines_every_answer_is_its_own_bit_for_bit_and_in_time(
    requests: list[Asked], durations: list[float]
) -> None:
    async def play() -> None:
        loop = asyncio.get_running_loop()
        model = TimedModel(durations)
        coalescer = Coalescer(model)
        ends: dict[int, float] = {}

        async def ask(number: int, one: Asked) -> Prediction:
            inputs = rows(*one.values) if one.good else rows(*one.values, float(BAD))
            deadline = loop.time() + one.deadline
            model.deadlines.add(deadline)
            try:
                return await coalescer.predict(ENDPOINT, inputs, deadline)
            finally:
                ends[number] = loop.time() - began[number]

        began: list[float] = []
        tasks: list[asyncio.Task[Prediction]] = []
        for number, one in enumerate(requests):
            await asyncio.sleep(one.gap)
            for _ in range(one.turns):
                await asyncio.sleep(0)
            began.append(loop.time())
            tasks.append(asyncio.create_task(ask(number, one)))
            if one.leaves is not None:
                loop.call_later(one.leaves, tasks[-1].cancel)
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        refused = sum(not one.good for one in requests)
        for number, (one, got) in enumerate(zip(requests, answers, strict=True)):
            judge(one, got, ends.get(number, 0.0), refused)
        await asyncio.sleep(1)
        assert not coalescer._lanes, "a lane that nobody uses is left behind"
        assert coalescer._sweeper is None, "a timer goes on for nobody"

    with asyncio.Runner(loop_factory=VirtualTime) as runner:
        runner.run(play())


def judge(one: Asked, got: Prediction | BaseException, took: float, refused: int) -> None:
    """What came of a request among others of which so many were `refused`, after so many seconds."""
    # It waits for a call's end, or MAX_AGE, and the call; where a batch is refused, for those sent again before it, too.
    assert took <= coalesce.MAX_AGE + coalesce.SWEEP + LONGEST * (1 if not refused else 1 + 20) + 1e-6
    assert took <= one.deadline + coalesce.SWEEP + 1e-6
    if isinstance(got, asyncio.CancelledError):
        assert one.leaves is not None
    elif isinstance(got, Prediction):
        assert one.good
        expected = np.array(one.values, np.float32) * np.float32(0.5) + np.float32(2)
        assert got.outputs["y"].data[:, 0].tobytes() == expected.tobytes()
    else:
        assert isinstance(got, CallFailed), got
        if got.code is StatusCode.DEADLINE_EXCEEDED:
            assert took >= one.deadline - 1e-6
        else:
            assert got.code is StatusCode.INVALID_ARGUMENT
            assert not one.good
