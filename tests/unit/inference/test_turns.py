"""Large bodies and answers of every kind: no step of theirs takes long, so that others have their turn in between."""

import asyncio
import gc
import time
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import pytest
from grpc import StatusCode
from msgspec import Struct

from adapter.bundle.arrays import Float32
from adapter.bundle.bodies import Bodies
from adapter.errors import CallFailed
from adapter.inference import examples, json_in, json_out, v2_in, v2_out, wire
from adapter.inference.tensor import BOOL, FLOAT, STRING, BadInput, DType, Signature, Tensor, TensorSpec
from adapter.inference.turns import Turns, at_once
from adapter.joining import joined
from adapter.pb import serving_pb2

Steps = Generator[None, None, Any]

# Seconds of processor time that a step may take: many times what it takes. In one go, these took two to ten times as long.
LONGEST = 0.06


def signature(dtype: DType) -> Signature:
    return Signature("s", "", {"x": TensorSpec("x", dtype, None)}, {})


def predict(dtype: DType, value: bytes) -> Steps:
    return predicted(dtype, b'{"instances":%b}' % value)


def predicted(dtype: DType, body: bytes) -> Steps:
    parsed = yield from json_in.parse_in_steps(body)
    return (yield from parsed.tensors_in_steps(signature(dtype)))


def infer(dtype: DType, size: int, data: bytes) -> Steps:
    return inferred(
        dtype, b'{"inputs":[{"name":"x","shape":[%d],"datatype":"%b","data":%b}]}' % (size, dtype.v2.encode(), data)
    )


def inferred(dtype: DType, body: bytes) -> Steps:
    request = yield from v2_in.parse(body, None)
    return (yield from request.tensors_in_steps(signature(dtype)))


def classify(value: bytes) -> Steps:
    return examples.request(b'{"examples":%b}' % value, serving_pb2.ModelSpec(name="m"))


class Picture(Struct):
    pixels: Float32[-1, 3]
    id: int = 0


def handled(body: bytes) -> Steps:
    """What the event loop does for a request that a handler answers."""
    steps = Bodies(Picture, 1000).taking("application/json", body)
    assert steps is not None
    return steps


def many(value: bytes, count: int) -> bytes:
    return b"[%b]" % b",".join([value] * count)


def members(count: int) -> bytes:
    return b",".join([b'"f%d":1' % number for number in range(count)])


def strings(count: int) -> Tensor:
    data = np.empty(count, object)
    data[:] = [b"abcdefghij"] * count
    return Tensor(STRING, data)


def answered(count: int) -> bytes:
    answer = serving_pb2.PredictResponse()
    output = answer.outputs["y"]
    output.dtype = STRING.number
    output.string_val.extend([b"abcdefghij"] * count)
    output.tensor_shape.dim.add().size = count
    encoded: bytes = answer.SerializeToString()
    return encoded


def classified(count: int) -> bytes:
    answer = serving_pb2.ClassificationResponse()
    for _ in range(count):
        answer.result.classifications.add().classes.add(label="a", score=0.5)
    encoded: bytes = answer.SerializeToString()
    return encoded


def long_text() -> Tensor:
    data = np.empty(1, object)
    data[0] = LONG
    return Tensor(STRING, data)


def answered_long() -> bytes:
    answer = serving_pb2.PredictResponse()
    output = answer.outputs["y"]
    output.dtype = STRING.number
    output.string_val.append(bytes(60_000_000))
    output.tensor_shape.dim.add().size = 1
    encoded: bytes = answer.SerializeToString()
    return encoded


# An image in base64, or a text, is often all there is in a body.
LONG = b"QUJD" * 15_000_000

KINDS: dict[str, Callable[[], Steps]] = {
    "an example of many features": lambda: classify(
        b"[{%b}]" % b",".join([b'"f%d":{"b64":"QQ=="}' % number for number in range(200_000)])
    ),
    "an example of very many features": lambda: classify(b"[{%b}]" % members(900_000)),
    "an example of very many features, one of them twice": lambda: classify(b'[{%b,"f0":1}]' % members(900_000)),
    "very many keys that mean nothing": lambda: predict(FLOAT, b"[[1]],%b" % members(900_000)),
    "very many keys that mean nothing beside examples": lambda: classify(b'[{"a":1}],%b' % members(900_000)),
    "very many keys that mean nothing beside an input": lambda: predicted(
        FLOAT, b'{"inputs":{"x":[1],%b}}' % members(900_000)
    ),
    "pieces of a byte each": lambda: joined([b"x"] * 2_000_000),
    "rows of objects": lambda: predict(FLOAT, many(b'{"x":1.5}', 300_000)),
    "strings": lambda: predict(STRING, many(b'"abcdefghij"', 600_000)),
    "base64": lambda: predict(STRING, many(b'{"b64":"aGVsbG8="}', 300_000)),
    "strings with backslashes": lambda: predict(STRING, many(rb'"a\\b\"c"', 500_000)),
    "one row of strings": lambda: predict(STRING, b"[%b]" % many(b'"abcdefghij"', 600_000)),
    "one long string": lambda: predict(STRING, b'["%b"]' % LONG),
    "one long string with a mistake": lambda: predict(STRING, b'["%b\n"]' % LONG),
    "one long string of escapes": lambda: predict(STRING, b'["%b"]' % (rb"\u4e2d" * 10_000_000)),
    "one long string in base64": lambda: predict(STRING, b'[{"b64":"%b"}]' % LONG),
    "one long string in base64, with a mistake": lambda: predict(STRING, b'[{"b64":"%b!"}]' % LONG),
    "one long string before a signature's name": lambda: predict(STRING, b'[{"b64":"%b"}],"signature_name":"s"' % LONG),
    "bools": lambda: predict(BOOL, many(b"true", 900_000)),
    "a late null": lambda: predict(FLOAT, many(b"1.5", 900_000)[:-1] + b",null]"),
    "a late row that is short": lambda: predict(FLOAT, many(many(b"1", 100), 285_000)[:-1] + b",[1,2]]"),
    "white space": lambda: predict(FLOAT, b"[" + b" " * 60_000_000 + b"1]"),
    "a key that means nothing": lambda: predict(FLOAT, b'[1],"more":%b' % many(b'{"x":[1]}', 300_000)),
    "no end": lambda: predict(FLOAT, many(b'{"x":1.5}', 300_000)[:-1]),
    "examples": lambda: classify(many(b'{"x":1.5}', 100_000)),
    "one long feature": lambda: classify(b'[{"x":%b}]' % many(b"1.5", 900_000)),
    "one long feature in base64": lambda: classify(b'[{"x":{"b64":"%b"}}]' % LONG),
    "a list with a long string for a feature": lambda: classify(b'[{"x":["a",{"b64":"%b"}]}]' % LONG),
    "v2 one long string": lambda: infer(STRING, 1, b'["%b"]' % LONG),
    "v2 strings": lambda: infer(STRING, 600_000, many(b'"abcdefghij"', 600_000)),
    "v2 bools": lambda: infer(BOOL, 900_000, many(b"true", 900_000)),
    "v2 with a late null": lambda: infer(FLOAT, 1_900_001, many(b"1.5", 900_000)[:-1] + b",null]"),
    "a handler's array": lambda: handled(b'{"id":1,"pixels":%b}' % many(b"[1,2.5,3]", 500_000)),
    "a handler's arrays": lambda: handled(b'{"instances":%b}' % many(b'{"pixels":%b}' % many(b"[1,2.5,3]", 1000), 500)),
    "a handler's small integers": lambda: handled(b'{"pixels":%b}' % many(b"[1,2,3]", 500_000)),
    "a handler's array that is ragged": lambda: handled(
        b'{"pixels":%b}' % (many(b"[1,2.5,3]", 500_000)[:-1] + b",[1]]")
    ),
    "encoding strings": lambda: wire.predict_request_in_steps(b"", {"x": strings(500_000)}),
    "encoding one long string": lambda: wire.predict_request_in_steps(b"", {"x": long_text()}),
    "decoding one long string": lambda: wire.predict_response_in_steps(answered_long()),
    "decoding strings": lambda: wire.predict_response_in_steps(answered(500_000)),
    "writing strings": lambda: json_out.predictions_in_steps({"y": strings(500_000)}, row=True),
    "writing rows": lambda: json_out.predictions_in_steps(
        {"y": strings(300_000), "z": Tensor(FLOAT, np.zeros(300_000, np.float32))}, row=True
    ),
    "writing classes": lambda: examples.classify_results(classified(200_000)),
    "v2 writing strings": lambda: v2_out.response_in_steps("m", 1, None, [("y", strings(500_000), False)]),
    "v2 writing one long string": lambda: v2_out.response_in_steps("m", 1, None, [("y", long_text(), False)]),
    "v2 writing one long string as binary": lambda: v2_out.response_in_steps("m", 1, None, [("y", long_text(), True)]),
    "v2 writing strings as binary": lambda: v2_out.response_in_steps("m", 1, None, [("y", strings(500_000), True)]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_step_takes_long_whatever_a_body_holds(kind: str) -> None:
    # A collection of all that other tests have left would be counted in.
    gc.disable()
    try:
        assert any(longest(KINDS[kind]()) < LONGEST for _ in range(3))
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "body",
    [
        b'[{%b,"b":1}]' % b",".join([b'"a":1'] * 1_900_000),
        b"[{%b,%b}]" % (members(400_000), members(400_000)),
        b'[{"a":1}],%b' % b",".join([b'"a":1'] * 1_900_000),
    ],
    ids=["of one feature", "of all features", "beside the examples"],
)
def test_keys_that_an_object_has_already_are_refused_before_there_are_many(body: bytes) -> None:
    gc.disable()
    try:
        with pytest.raises(BadInput, match="More than 10000 keys that an object has already"):
            at_once(classify(body))
        assert any(longest(classify(body)) < LONGEST for _ in range(3))
    finally:
        gc.enable()


def longest(steps: Steps) -> float:
    """Seconds of processor time that the longest step takes, which are at least ten."""
    times = []
    while True:
        before = time.thread_time()
        try:
            next(steps)
        except (StopIteration, BadInput):
            times.append(time.thread_time() - before)
            assert len(times) > 10
            return max(times)
        times.append(time.thread_time() - before)


def endless() -> Generator[None, None, None]:
    while True:
        yield


def test_steps_end_at_the_deadline_and_others_have_their_turn() -> None:
    async def scenario() -> None:
        turns = Turns()
        loop = asyncio.get_running_loop()
        with pytest.raises(CallFailed) as caught:
            await turns.take(endless(), loop.time() + 0.01)
        assert caught.value.code is StatusCode.DEADLINE_EXCEEDED
        task = asyncio.create_task(turns.take(endless()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await turns.take(three()) == 3

    asyncio.run(scenario())


def three() -> Generator[None, None, int]:
    yield
    return 3
