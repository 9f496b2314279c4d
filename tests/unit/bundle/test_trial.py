"""A handler's own tests need no server: Trial does with bodies and answers what the service does."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapter import handler
from adapter.bundle.bodies import Body
from adapter.bundle.tensors import Misfit
from adapter.handler import BadInput, Context, Handler, Struct, Trial
from adapter.inference import tensor


class Request(Struct):
    x: float


class Answer(Struct):
    y: float


class Halves(Handler[Request, Answer]):
    def startup(self) -> None:
        self.shift = float((self.files / "shift").read_text())

    def preprocess(self, batch: Sequence[Request]) -> Mapping[str, Any]:
        for index, request in enumerate(batch):
            if request.x < 0:
                raise BadInput("must not be negative", field="x", index=index)
        return {"x": np.array([request.x for request in batch])}

    def postprocess(self, outputs: Mapping[str, Any], batch: Sequence[Request]) -> list[Answer]:
        return [Answer(y + self.shift) for y in outputs["y"]]


class Both(Handler[Request, Answer]):
    async def startup(self) -> None:
        await asyncio.sleep(0)
        self.started = True

    async def predict(self, ctx: Context, batch: Sequence[Request]) -> list[Answer]:
        x = np.array([request.x for request in batch])
        a, b = await asyncio.gather(ctx.infer("halves", {"x": x}), ctx.infer("halves", {"x": x + 1}))
        total = await ctx.run(np.add, a["y"], b["y"])
        return [Answer(y) for y in total]


MODELS = {"halves": lambda inputs: {"y": inputs["x"] / 2}}


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    (tmp_path / "shift").write_text("2")
    return Trial(Halves, MODELS, tmp_path)


def test_one_request_and_a_batch_are_answered_alike(trial: Trial) -> None:
    assert trial.predict({"x": 1}) == {"y": 2.5}
    assert trial.predict({"instances": [{"x": 1}, {"x": 2}]}) == {"predictions": [{"y": 2.5}, {"y": 3.0}]}
    assert trial.predict(b'{"x": 4}') == {"y": 4.0}


def test_a_pipeline_asks_its_models_at_one_time() -> None:
    assert Trial(Both, MODELS).predict({"x": 1}) == {"y": 1.5}


class Everything(Struct):
    all: Any


class Shows(Handler[Request, Everything]):
    """Answers with what a model gives, as it is."""

    def preprocess(self, batch: Sequence[Request]) -> Mapping[str, Any]:
        return {"x": np.array([request.x for request in batch])}

    def postprocess(self, outputs: Mapping[str, Any], batch: Sequence[Request]) -> list[Everything]:
        return [Everything(outputs["y"])] * len(batch)


@pytest.mark.parametrize(
    ("array", "shown"),
    [
        (np.array([0.1, np.nan, -np.inf, 1e30], np.float32), "[0.1,null,null,1e+30]"),
        (np.array([0.1, np.nan]), "[0.1,null]"),
        (np.arange(6, dtype=np.int64).reshape(2, 3)[:, ::2], "[[0,2],[3,5]]"),
        (np.array([[True, False]]), "[[true,false]]"),
        (np.ma.MaskedArray([1, 2], [False, True]), "[1,null]"),
        (np.zeros((2, 0), np.float16), "[[],[]]"),
        (np.array(2.5, np.float32), "2.5"),
        (np.float32(2.5), "2.5"),
        (np.array(["a", b"b"], object), '["a","Yg=="]'),
        (np.array([1.5], ">f4"), "[1.5]"),
    ],
)
def test_an_array_in_an_answer_is_its_numbers_with_the_fewest_digits_that_tell_them_apart(
    array: Any, shown: str
) -> None:
    trial = Trial(Shows, {"any": lambda _: {"y": array}})
    batch = trial._interface.read(Body("", b'{"x": 1}'))
    assert trial._interface.encoded([Everything(array)], batch, "postprocess") == b'{"all":%b}' % shown.encode()


def test_bad_input_is_raised_with_its_place(trial: Trial) -> None:
    with pytest.raises(tensor.BadInput, match="x: expected float, got str"):
        trial.predict({"x": "a"})
    with pytest.raises(BadInput) as caught:
        trial.predict({"instances": [{"x": 1}, {"x": -1}]})
    assert (caught.value.field, caught.value.index, caught.value.status) == ("x", 1, 400)


def test_answers_that_the_service_would_refuse_are_refused_here(tmp_path: Path) -> None:
    class Short(Halves):
        def postprocess(self, outputs: Mapping[str, Any], batch: Sequence[Request]) -> list[Answer]:
            return super().postprocess(outputs, batch)[1:]

    (tmp_path / "shift").write_text("2")
    with pytest.raises(Misfit, match="postprocess gave 0 answers for 1 requests"):
        Trial(Short, MODELS, tmp_path).predict({"x": 1})


def test_bad_input_is_a_client_s_mistake_alone() -> None:
    with pytest.raises(ValueError, match="expected a status of 400 to 499, got 500"):
        BadInput("no", status=500)


def test_the_public_names_are_those_that_are_documented() -> None:
    for name in handler.__all__:
        assert hasattr(handler, name)
