"""What the tests of predict bodies share."""

import json
from typing import Any

import pytest

from adapter.inference import json_in, json_numbers, json_parts
from adapter.inference.tensor import (
    FLOAT,
    BadInput,
    DType,
    Signature,
    Tensor,
    TensorSpec,
)
from adapter.inference.turns import at_once


def signature(**dtypes: DType) -> Signature:
    inputs = {name: TensorSpec(name, dtype, None) for name, dtype in dtypes.items()}
    return Signature("serving_default", "tensorflow/serving/predict", inputs, {})


X = signature(x=FLOAT)


def tensors(body: bytes | str, wanted: Signature = X) -> dict[str, Tensor]:
    text = body.encode() if isinstance(body, str) else body
    parsed = json_in.parse(text) if len(text) < json_in.LARGE else at_once(json_in.parse_in_steps(text))
    return parsed.tensors(wanted)


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
    """Bodies are read as large ones are, in pieces of so many bytes; with None, as small ones are."""

    def __init__(self, size: int | None) -> None:
        self.size = size

    def __enter__(self) -> None:
        self.before = json_numbers.PIECE, json_in.LARGE, json_parts.CHUNK
        if self.size is not None:
            self._set(self.size, 0, self.size)

    def __exit__(self, *_: object) -> None:
        self._set(*self.before)

    @staticmethod
    def _set(piece: int, large: int, chunk: int) -> None:
        json_numbers.PIECE = json_in.PIECE = piece
        json_in.LARGE = large
        json_parts.CHUNK = chunk
