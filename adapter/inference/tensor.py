"""What the data plane talks about: dtypes, tensors and signatures. No I/O, no JSON, no protobuf."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class DType:
    """One element type of TensorFlow (`tensorflow/core/framework/types.proto`).

    `numpy` is the type of `Tensor.data`; half-width floats that numpy lacks (bfloat16) travel as their uint16 bit
    patterns. `name` is TensorFlow's own (`half`, `float`, `int64`), as its error messages print it; `v2` is the
    Open Inference Protocol's (`FP16`, `FP32`, `INT64`, `BYTES`), empty where it has none. `field` is the number of
    the typed field in `TensorProto` that may hold the values.
    """

    number: int
    name: str
    v2: str
    numpy: np.dtype[Any]
    field: int

    @property
    def is_string(self) -> bool:
        return self.number == 7


def _dtype(number: int, name: str, v2: str, numpy: str, field: int) -> DType:
    return DType(number, name, v2, np.dtype(numpy), field)


FLOAT = _dtype(1, "float", "FP32", "<f4", 5)
DOUBLE = _dtype(2, "double", "FP64", "<f8", 6)
INT32 = _dtype(3, "int32", "INT32", "<i4", 7)
UINT8 = _dtype(4, "uint8", "UINT8", "u1", 7)
INT16 = _dtype(5, "int16", "INT16", "<i2", 7)
INT8 = _dtype(6, "int8", "INT8", "i1", 7)
STRING = _dtype(7, "string", "BYTES", "O", 8)
COMPLEX64 = _dtype(8, "complex64", "", "<c8", 9)
INT64 = _dtype(9, "int64", "INT64", "<i8", 10)
BOOL = _dtype(10, "bool", "BOOL", "?", 11)
BFLOAT16 = _dtype(14, "bfloat16", "BF16", "<u2", 13)
UINT16 = _dtype(17, "uint16", "UINT16", "<u2", 7)
COMPLEX128 = _dtype(18, "complex128", "", "<c16", 12)
HALF = _dtype(19, "half", "FP16", "<f2", 13)
UINT32 = _dtype(22, "uint32", "UINT32", "<u4", 16)
UINT64 = _dtype(23, "uint64", "UINT64", "<u8", 17)

DTYPES: Mapping[int, DType] = {
    dtype.number: dtype
    for dtype in (
        FLOAT, DOUBLE, INT32, UINT8, INT16, INT8, STRING, COMPLEX64, INT64,
        BOOL, BFLOAT16, UINT16, COMPLEX128, HALF, UINT32, UINT64,
    )
}  # fmt: skip
V2_DTYPES: Mapping[str, DType] = {dtype.v2: dtype for dtype in DTYPES.values() if dtype.v2}

Shape = tuple[int, ...]


class Unserved(ValueError):
    """An output is of a type that TensorFlow has beyond `DTYPES`: quantized, say. The message is TensorFlow Serving's own."""


def quoted(names: Iterable[str]) -> str:
    """`"a", "b"`, or `none`: the names that there are, for messages."""
    return ", ".join([f'"{name}"' for name in names]) or "none"


class BadInput(ValueError):
    """What the client sent can't be turned into tensors; the message tells the client why, and where."""


class TooMuch(BadInput):
    """It is more than is read here, by a bound that TensorFlow Serving does not have; it may be right all the same."""


@dataclass(slots=True, eq=False)
class Tensor:
    """A dense tensor: `data` is C-contiguous, of `dtype.numpy`, of shape `shape`; strings are an object array of `bytes`.

    Numbers that lie in a message may be off their boundary there, which numpy minds little, and others much (`aligned`).
    Nobody changes one once it is made; not a frozen dataclass only because those take three times as long to make.
    """

    dtype: DType
    data: Array

    @property
    def shape(self) -> Shape:
        shape: Shape = self.data.shape
        return shape


def length_of_strings(strings: Array) -> int:
    """Bytes of all strings of an array, together."""
    return sum(map(len, strings.ravel().tolist()))


def memory_of(array: Array) -> memoryview:
    """The bytes of an array of numbers, in row-major order."""
    return array.reshape(-1).view(np.uint8).data


def aligned(array: Array) -> Array:
    """The array on the boundary of its type: itself, or a copy."""
    return array if array.flags.aligned else array.copy()


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a signature. `shape` has -1 for a free dimension and is None when the rank is unknown."""

    name: str
    dtype: DType
    shape: Shape | None


@dataclass(frozen=True, slots=True)
class Signature:
    """What a servable takes and gives under one name; `method` is TensorFlow's `tensorflow/serving/predict` and the like."""

    name: str
    method: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
