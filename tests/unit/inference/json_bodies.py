"""What the tests of predict bodies share."""

import json
from typing import Any

import pytest

from adapter.inference import json_in, json_numbers, json_outline, json_strings
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
    """Bodies are read in the ways that large ones are, in pieces of so many bytes; with None, as small ones are."""

    def __init__(self, size: int | None) -> None:
        self._patch = pytest.MonkeyPatch()
        self._size = size

    def __enter__(self) -> None:
        size = self._size
        if size is not None:
            for owner, name, value in (
                (json_numbers, "PIECE", size),
                (json_numbers, "CACHED", size),
                (json_numbers, "SHORT", 0),
                (json_numbers, "LONG_LISTS", 0),
                (json_in, "PIECE", size),
                (json_in, "LARGE", 0),
                (json_outline, "CHUNK", size),
                (json_strings, "PIECE", 2 * size),
            ):
                self._patch.setattr(owner, name, value)

    def __exit__(self, *_: object) -> None:
        self._patch.undo()
