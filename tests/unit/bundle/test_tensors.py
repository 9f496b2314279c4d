"""A handler's arrays to a model's tensors and back: nothing is lost, and what does not fit is named."""

from typing import Any

import numpy as np
import pytest

from adapter.bundle.tensors import Misfit, mismatch, to_arrays, to_tensors
from adapter.inference.tensor import BFLOAT16, FLOAT, INT32, STRING, DType, Shape, Signature, Tensor, TensorSpec


def signature(dtype: DType = FLOAT, shape: Shape | None = (-1, 2)) -> Signature:
    return Signature("serving_default", "", {"x": TensorSpec("x", dtype, shape)}, {})


@pytest.mark.parametrize("value", [[[1, 2]], np.array([[1.0, 2.0]]), np.array([[1, 2]], np.int8), ((1, 2),)])
def test_numbers_come_in_the_model_s_type(value: Any) -> None:
    tensor = to_tensors({"x": value}, signature(), 1)["x"]
    assert (tensor.data.dtype, tensor.data.tolist()) == (np.float32, [[1, 2]])


def test_an_array_of_another_order_is_made_contiguous() -> None:
    tensor = to_tensors({"x": np.ones((2, 3), np.float32).T}, signature(), 3)["x"]
    assert tensor.data.flags.c_contiguous


def test_strings_are_bytes() -> None:
    tensor = to_tensors({"x": ["ä", b"\xff"]}, signature(STRING, (-1,)), 2)["x"]
    assert tensor.data.tolist() == ["ä".encode(), b"\xff"]


def test_bfloat16_comes_and_goes_as_float32() -> None:
    tensor = to_tensors({"x": [[1.5, -2.0]]}, signature(BFLOAT16), 1)["x"]
    assert to_arrays({"x": tensor})["x"].tolist() == [[1.5, -2.0]]


@pytest.mark.parametrize(
    ("given", "model", "said"),
    [
        ({"y": [[1, 2]]}, signature(), "input 'y' is none of the signature's (x)"),
        ({}, signature(), "input 'x' is missing"),
        ({"x": [[1, 2, 3]]}, signature(), "input 'x' is float32[1, 3], the model takes float32[?, 2]"),
        ({"x": [1, 2]}, signature(), "input 'x' is float32[2], the model takes float32[?, 2]"),
        ({"x": [[1, 2], [3, 4]]}, signature(), "input 'x' has 2 rows for 1 requests"),
        ({"x": [[1, 2], [3]]}, signature(), "input 'x' is a list of rows of unequal length"),
        ({"x": [["a", "b"]]}, signature(), "input 'x' is <U1, the model takes float32[?, 2]"),
        ({"x": [[0.5, 1]]}, signature(INT32), "input 'x' is float64, the model takes int32[?, 2]"),
        ({"x": [[1 << 40, 1]]}, signature(INT32), "input 'x' has values out of the range of int32"),
        ({"x": [[1, 2]]}, signature(STRING), "input 'x' holds int, the model takes str or bytes"),
        ({"x": [["a", "b"]]}, signature(BFLOAT16), "input 'x' is <U1, the model takes bfloat16[?, 2]"),
    ],
)
def test_what_does_not_fit_is_named(given: dict[str, Any], model: Signature, said: str) -> None:
    with pytest.raises(Misfit) as caught:
        to_tensors(given, model, 1)
    assert str(caught.value) == said


def test_a_model_of_any_shape_takes_any() -> None:
    assert to_tensors({"x": 3}, signature(shape=None), 7)["x"].shape == ()


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"x": "float32[?, 2]"}, None),
        ({"x": "float"}, None),
        ({"x": "float32[4, 2]"}, None),
        ({"z": "float32"}, "input 'z', the model has x"),
        ({"x": "int64[?, 2]"}, "input 'x' as int64[?, 2], the model has float32[?, 2]"),
        ({"x": "float32[?, 3]"}, "input 'x' as float32[?, 3], the model has float32[?, 2]"),
        ({"x": "float32[?]"}, "input 'x' as float32[?], the model has float32[?, 2]"),
        ({"x": "a float"}, "input 'x' as 'a float', expected something like 'float32[?, 8, 8]'"),
    ],
)
def test_what_a_handler_declares_is_compared_with_the_model(declared: dict[str, str], said: str | None) -> None:
    assert mismatch(declared, signature().inputs, "input") == said


def test_outputs_are_arrays_as_they_came() -> None:
    array = np.ones(2, np.float32)
    assert to_arrays({"y": Tensor(FLOAT, array)})["y"] is array
