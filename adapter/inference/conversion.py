"""Doubles and 64-bit integers, as parsers give them, to the types of tensors: ranges, cutting and rounding.

The context is one for all: to be used from one thread, the event loop's.
"""

import contextvars
from typing import Any

import numpy as np

from adapter.inference.tensor import BFLOAT16, FLOAT, HALF, Array, DType, Shape

# A double too large for float32 becomes infinite, as in TFS, without a warning; errstate would cost 2 µs each time.
_QUIETLY: Any = contextvars.copy_context()
_QUIETLY.run(np.seterr, over="ignore")


def converted(values: Array, dtype: DType) -> Array | None:
    """Doubles or 64-bit integers as the dtype has them; None if one is out of its range, or no pair for complex."""
    array = elements(values, dtype)
    return array if array is None or dtype.numpy.kind != "c" else paired(array, dtype)


def listed(values: Any, dtype: DType) -> Array:
    """Nested lists of Python numbers, known to be regular and nothing else, as an array of an IEEE float dtype."""
    array: Array = _QUIETLY.run(np.array, values, dtype.numpy)
    return array


def elements(values: Array, dtype: DType) -> Array | None:
    """The same, but complex numbers are left as their parts."""
    array: Array | None
    if dtype is FLOAT or dtype is HALF:
        array = _QUIETLY.run(values.astype, dtype.numpy)
    elif dtype is BFLOAT16:
        array = _bfloat16(values)
    elif values.dtype == dtype.numpy:
        array = values
    elif dtype.numpy.kind == "c":
        array = _QUIETLY.run(values.astype, element_type(dtype))
    else:
        array = _integers(values, dtype)
    return array


def element_type(dtype: DType) -> np.dtype[Any]:
    """The numpy type of `elements`."""
    return np.dtype(f"<f{dtype.numpy.itemsize // 2}") if dtype.numpy.kind == "c" else dtype.numpy


def paired(parts: Array, dtype: DType) -> Array | None:
    """Complex numbers from pairs of parts, None if the last dimension holds anything else, but none of them from no parts."""
    if parts.ndim and parts.shape[-1] == 0:
        return np.empty(parts.shape, dtype.numpy)
    if not parts.ndim or parts.shape[-1] != 2:
        return None
    return parts.view(dtype.numpy).reshape(parts.shape[:-1])


INT32_RANGE = (-(1 << 31), (1 << 31) - 1)
# As TFS has it, the narrow integers are held to int32's range and then cut to their width; uint16 it does not take at all.
_RANGES = {
    "uint16": (0, (1 << 16) - 1),
    "uint32": (0, (1 << 32) - 1),
    "int64": (-(1 << 63), (1 << 63) - 1),
    "uint64": (0, (1 << 64) - 1),
}


def range_of(dtype: DType) -> tuple[int, int]:
    """The least and the greatest integer that an integer dtype takes."""
    return _RANGES.get(dtype.name, INT32_RANGE)


def out_of_range(value: int, dtype: DType) -> str:
    """What is said of an integer that an integer dtype doesn't take."""
    low, high = range_of(dtype)
    return f"JSON Value: {value} Type: Number is not of expected type: {dtype.name} (from {low} to {high})"


def unpaired(shape: Shape, first: Any, dtype: DType) -> tuple[Shape, str]:
    """The index of the first thing that should be a pair, and what is said of it; `first` is the first value of all."""
    found = f"a list of {shape[-1]}" if len(shape) > 1 else str(first)
    expected = f"expected a {dtype.name} value as a pair [real, imaginary], found {found}"
    return (0,) * (len(shape) - 1 if len(shape) > 1 else len(shape)), expected


def _integers(values: Array, dtype: DType) -> Array | None:
    low, high = range_of(dtype)
    if values.size and (values.min() < low or values.max() > high):
        return None
    return values.astype(dtype.numpy)


def _bfloat16(values: Array) -> Array:
    """The upper halves of float32 bit patterns, rounded to the nearest, ties to even; NaN stays NaN."""
    bits = _QUIETLY.run(values.astype, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded.astype(np.uint16))
