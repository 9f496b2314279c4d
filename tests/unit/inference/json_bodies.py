"""What the tests of predict bodies share."""

import json
from typing import Any

import pytest

from adapter.inference import json_in, json_numbers
from adapter.inference.tensor import (
    FLOAT,
    BadInput,
    DType,
    Signature,
    Tensor,
    TensorSpec,
)


def signature(**dtypes: DType) -> Signature:
    inputs = {name: TensorSpec(name, dtype, None) for name, dtype in dtypes.items()}
    return Signature("serving_default", "tensorflow/serving/predict", inputs, {})


X = signature(x=FLOAT)


def tensors(body: bytes | str, wanted: Signature = X) -> dict[str, Tensor]:
    return json_in.parse(body.encode() if isinstance(body, str) else body).tensors(wanted)


def values(body: bytes | str, dtype: DType = FLOAT) -> Any:
    """The only input, as nested lists; NaN as None, so that lists compare."""
    (tensor,) = tensors(body, signature(x=dtype)).values()
    assert tensor.dtype is dtype
    assert tensor.data.dtype == dtype.numpy
    assert tensor.data.flags.c_contiguous
    return json.loads(json.dumps(tensor.data.tolist(), default=lambda item: item.decode()).replace("NaN", "null"))


def refusal(body: bytes | str, wanted: Signature = X) -> str:
    with pytest.raises(BadInput) as caught:
        tensors(body, wanted)
    return str(caught.value)


class pieces_of:  # noqa: N801 - a context manager for property tests, which function-scoped fixtures don't suit
    def __init__(self, size: int) -> None:
        self.size = size

    def __enter__(self) -> None:
        self.before = json_numbers.PIECE
        json_numbers.PIECE = json_in.PIECE = self.size

    def __exit__(self, *_: object) -> None:
        json_numbers.PIECE = json_in.PIECE = self.before
