"""Predict answers: tensors as TensorFlow Serving's JSON, value for value."""

import json
import math
import tracemalloc
from base64 import b64decode
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from adapter.inference import json_out
from adapter.inference.tensor import (
    BFLOAT16,
    BOOL,
    COMPLEX64,
    COMPLEX128,
    DOUBLE,
    DTYPES,
    FLOAT,
    HALF,
    INT8,
    INT64,
    STRING,
    UINT64,
    BadInput,
    DType,
    Tensor,
)
from tests.unit.steps import run


def tensor(dtype: DType, values: object) -> Tensor:
    return Tensor(dtype, np.array(values, dtype.numpy))


def columns(**outputs: Tensor) -> Any:
    return json.loads(json_out.predictions(outputs, row=False))["outputs"]


def rows(**outputs: Tensor) -> Any:
    return json.loads(json_out.predictions(outputs, row=True))["predictions"]


# --- the two formats ------------------------------------------------------------------------------------------------


def test_one_output_is_a_bare_value_in_both_formats() -> None:
    y = tensor(FLOAT, [[1, 2.5], [3, 4]])
    assert json_out.predictions({"y": y}, row=True) == b'{"predictions":[[1.0,2.5],[3.0,4.0]]}'
    assert json_out.predictions({"y": y}, row=False) == b'{"outputs":[[1.0,2.5],[3.0,4.0]]}'
    assert columns(y=tensor(FLOAT, 6)) == 6.0


@pytest.mark.parametrize("dtype", [FLOAT, DOUBLE, INT64, COMPLEX64, HALF, BFLOAT16], ids=lambda dtype: dtype.name)
def test_numbers_off_their_boundary_are_written_like_others(dtype: DType) -> None:
    y = tensor(dtype, [[1, 2, 3], [4, 5, 6]])
    off = Tensor(dtype, np.ndarray(y.shape, dtype.numpy, b"?" + y.data.tobytes(), 1))
    assert off.data.flags.aligned == (dtype.numpy.alignment == 1)
    assert json_out.predictions({"y": off}, row=True) == json_out.predictions({"y": y}, row=True)
    assert run(json_out.predictions_in_steps({"y": off}, row=True))[1] == json_out.predictions({"y": y}, row=True)


def test_several_outputs_are_named() -> None:
    outputs = {"a": tensor(FLOAT, [1, 2]), "b": tensor(INT64, [[3], [4]]), 'odd "%d"': tensor(STRING, [b"x", b"y"])}
    assert columns(**outputs) == {"a": [1, 2], "b": [[3], [4]], 'odd "%d"': ["x", "y"]}
    assert rows(**outputs) == [{"a": 1, "b": [3], 'odd "%d"': "x"}, {"a": 2, "b": [4], 'odd "%d"': "y"}]


def test_rows_need_a_batch_size_that_all_outputs_share() -> None:
    with pytest.raises(BadInput, match=r"^Tensor name: s has no shape information $"):
        rows(s=tensor(FLOAT, 1))
    with pytest.raises(BadInput, match=r"^Tensor name: b has inconsistent batch size: 1 expecting: 2$"):
        rows(a=tensor(FLOAT, [1, 2]), b=tensor(FLOAT, [1]))
    with pytest.raises(BadInput, match="Cannot convert empty tensor map to JSON"):
        columns()


# --- values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        (FLOAT, [0.1, 1, 1e20, 1e-7], b"[0.1,1.0,1e+20,1e-7]"),
        (DOUBLE, [0.1, 1 / 3], b"[0.1,0.3333333333333333]"),
        (HALF, [0.1, 1], b"[0.099975586,1.0]"),
        (BFLOAT16, [0x3F80, 0x3DCD, 0x7F80], b"[1.0,0.100097656,Infinity]"),
        (INT8, [-128], b"[-128]"),
        (INT64, [-(2**63)], b"[-9223372036854775808]"),
        (UINT64, [2**64 - 1], b"[18446744073709551615]"),
        (BOOL, [True, False], b"[true,false]"),
        (COMPLEX64, [1 + 2j, 0.1j], b"[[1.0,2.0],[0.0,0.1]]"),
        (COMPLEX128, 1 - 1j, b"[1.0,-1.0]"),
        (BFLOAT16, 0x3F80, b"1.0"),
        (BOOL, True, b"true"),
        (STRING, [b"a", "ä\n".encode()], '["a","ä\\n"]'.encode()),
        (STRING, b"a", b'"a"'),
        (STRING, [[b"a"], [b"b"]], b'[["a"],["b"]]'),
    ],
)
def test_each_type_is_written_in_its_way(dtype: DType, values: object, expected: bytes) -> None:
    assert json_out.predictions({"y": tensor(dtype, values)}, row=False) == b'{"outputs":%b}' % expected


def test_outputs_named_bytes_are_base64_and_others_stay_valid_json_whatever_they_hold() -> None:
    data = tensor(STRING, [b"\xff\x00a", b""])
    assert columns(y_bytes=data) == [{"b64": "/wBh"}, {"b64": ""}]
    assert columns(y=data) == ["\ufffd\x00a", ""]
    assert columns(y_bytes=tensor(FLOAT, [1])) == [1]


def test_numbers_that_json_does_not_have_are_written_as_asked() -> None:
    y = tensor(FLOAT, [[math.nan, 1], [math.inf, -math.inf]])
    name = tensor(STRING, [b"null", b"n"])
    assert json_out.numbers(np.array(np.nan), "tfs") == b"NaN"
    assert json_out.numbers(np.array([np.nan]), "tfs") == b"[NaN]"
    expected = {
        "tfs": b"[NaN,1.0],[Infinity,-Infinity]",
        "null": b"[null,1.0],[null,null]",
        "string": b'["NaN",1.0],["Infinity","-Infinity"]',
    }
    for nonfinite, text in expected.items():
        assert json_out.predictions({"y": y}, True, nonfinite) == b'{"predictions":[%b]}' % text  # type: ignore[arg-type]
    found = json_out.predictions({"y": y, "name": name}, True, "string")
    assert json.loads(found)["predictions"] == [
        {"y": ["NaN", 1], "name": "null"},
        {"y": ["Infinity", "-Infinity"], "name": "n"},
    ]


SHAPES = npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
NUMERIC = [dtype for dtype in DTYPES.values() if dtype.numpy.kind in "iufb" and dtype is not BFLOAT16]


@st.composite
def numeric(draw: st.DrawFn) -> Tensor:
    dtype = draw(st.sampled_from(NUMERIC))
    return Tensor(dtype, draw(npst.arrays(dtype.numpy, draw(SHAPES))))


@st.composite
def strings(draw: st.DrawFn) -> Tensor:
    shape = draw(SHAPES)
    size = int(np.prod(shape))
    array = np.empty(size, object)
    text = st.binary(max_size=4) | st.text(max_size=9).map(str.encode) | st.binary(max_size=12)
    array[:] = draw(st.lists(text, min_size=size, max_size=size))
    return Tensor(STRING, array.reshape(shape))


def assert_reads_back(value: Any, tensor: Tensor, as_base64: bool) -> None:
    """Parsed JSON against the tensor it was written from."""
    shape = tensor.shape
    if 0 in shape:  # lists inside empty lists can't be seen
        shape = shape[: shape.index(0) + 1]
    if tensor.dtype.is_string:
        array = np.empty(shape, object)
        flat = np.array(value, object).reshape(-1)[: array.size] if array.size else np.empty(0, object)
        texts = [b64decode(item["b64"]) if as_base64 else item for item in flat.tolist()]
        raw = tensor.data.ravel().tolist()
        assert texts == (raw if as_base64 else [item.decode("utf-8", "replace") for item in raw])
        return
    found = np.array(value, tensor.dtype.numpy)
    assert found.shape == shape
    np.testing.assert_array_equal(found.ravel(), tensor.data.ravel())


@settings(max_examples=300)
@given(numeric() | strings(), st.sampled_from(["y", "y_bytes"]), st.sampled_from([1, 3, 1 << 16]))
def test_every_value_reads_back_and_steps_make_no_difference(tensor: Tensor, name: str, step: int) -> None:
    whole = json_out.predictions({name: tensor}, row=False)
    assert_reads_back(json.loads(whole)["outputs"], tensor, name == "y_bytes")
    with steps_of(step):
        assert run(json_out.predictions_in_steps({name: tensor}, row=False))[1] == whole


@settings(max_examples=300)
@given(st.data(), st.integers(0, 3))
def test_rows_of_several_outputs_read_back(data: st.DataObject, batch: int) -> None:
    outputs = {}
    for name in data.draw(st.lists(st.text(max_size=3), min_size=2, max_size=3, unique=True)):
        one = data.draw((numeric() | strings()).filter(lambda tensor: tensor.data.ndim < 4))
        outputs[name] = Tensor(one.dtype, np.repeat(one.data[np.newaxis], batch, axis=0))
    found = rows(**outputs)
    assert len(found) == batch
    for step in (1, 5):
        with steps_of(step):
            assert run(json_out.predictions_in_steps(outputs, row=True))[1] == json_out.predictions(outputs, row=True)
    for name, tensor in outputs.items():
        for index in range(batch):
            assert_reads_back(
                found[index][name], Tensor(tensor.dtype, np.asarray(tensor.data[index], tensor.dtype.numpy)), False
            )


class steps_of:  # noqa: N801 - a context manager for property tests, which function-scoped fixtures don't suit
    """Answers are written in steps of so many numbers, strings or values in rows, and of strings a few bytes each."""

    def __init__(self, size: int) -> None:
        self.values = (size, size, 3, size) if size < json_out.STEP else self._values()

    def __enter__(self) -> None:
        self.before = self._values()
        self._set(*self.values)

    def __exit__(self, *_: object) -> None:
        self._set(*self.before)

    @staticmethod
    def _values() -> tuple[int, int, int, int]:
        return json_out.STEP, json_out._STRINGS, json_out._STRINGS_BYTES, json_out._ROWS_TOGETHER

    @staticmethod
    def _set(step: int, strings: int, octets: int, rows: int) -> None:
        json_out.STEP, json_out._STRINGS, json_out._STRINGS_BYTES, json_out._ROWS_TOGETHER = step, strings, octets, rows


def test_large_answers_are_written_in_many_short_steps_and_little_memory() -> None:
    array = np.random.default_rng(1).random((2, 1000, 500), np.float32)
    array[1, 5, 5] = np.nan
    tracemalloc.start()
    try:
        steps, text = run(json_out.predictions_in_steps({"y": Tensor(FLOAT, array)}, row=True))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert steps >= array.size // json_out.STEP
    assert peak < 2.5 * len(text)
    np.testing.assert_array_equal(np.array(json.loads(text)["predictions"], np.float32), array)
