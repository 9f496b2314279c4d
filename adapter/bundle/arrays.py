"""Fields that are arrays: `pixels: Float32[8, 8]` comes out of JSON as a numpy array of that type and shape.

`-1` is a dimension of any size. For msgspec these are custom types: `decode` and `encode` are its hooks, `schema` is what
stands in the OpenAPI document.
"""

import re
import warnings
from functools import lru_cache
from typing import Any, ClassVar

import msgspec
import numpy as np
import orjson

from adapter.inference.tensor import Array

# A number beyond float32, which is refused.
warnings.filterwarnings("ignore", "overflow encountered in cast", RuntimeWarning, re.escape(__name__))

_SCHEMAS = {"f": "number", "i": "integer", "u": "integer", "b": "boolean"}


class _ArrayType(type):
    """msgspec asks whether what its hook returned is of the field's type: any array that the hook returned is."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, np.ndarray)


class ArrayField(metaclass=_ArrayType):
    """An array of `dtype`; `shape` None: of any shape."""

    dtype: ClassVar[str]
    shape: ClassVar[tuple[int, ...] | None] = None

    def __class_getitem__(cls, shape: int | tuple[int, ...]) -> Any:
        field: Any = cls
        return _of_shape(field, shape if isinstance(shape, tuple) else (shape,))


class Float32(ArrayField):
    dtype = "float32"


class Float64(ArrayField):
    dtype = "float64"


class Int32(ArrayField):
    dtype = "int32"


class Int64(ArrayField):
    dtype = "int64"


class UInt8(ArrayField):
    dtype = "uint8"


class Bool(ArrayField):
    dtype = "bool"


@lru_cache(1024)
def _of_shape(field: Any, shape: tuple[int, ...]) -> Any:
    """One type for each shape, so that msgspec sees the same type for the same field."""
    return _ArrayType(_name(field.dtype, shape), (field,), {"shape": shape})


def decode(expected: type, value: Any) -> Any:
    """msgspec's `dec_hook`: nested lists to an array. ValueError says what is wrong, msgspec where."""
    if not issubclass(expected, ArrayField):
        raise NotImplementedError(f"{expected.__name__} is no type that a request can have")
    dtype, name = _about(expected)
    try:
        array = np.array(value, dtype=None if dtype.kind in "iub" else dtype)
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f"expected {name}, got {_irregular(value)}") from None
    return fitting(expected, array)


def fitting(expected: type[ArrayField], array: Array) -> Array:
    """An array as one of the field's type and shape, if it is. Raises ValueError likewise."""
    dtype, name = _about(expected)
    if array.dtype != dtype:
        array = _narrowed(array, dtype, name)
    # JSON has no infinity: it was a number. Those beyond float64 have been refused as JSON.
    if dtype == np.float32 and np.logical_or.reduce(np.isinf(array), axis=None):
        raise ValueError(f"expected {name}, got values out of its range")
    if expected.shape is not None and not _fits(array.shape, expected.shape):
        raise ValueError(f"expected {name}, got {_shown(array.shape)}")
    return array


def encode(value: Any) -> Any:
    """msgspec's `enc_hook`: an array of numbers as orjson writes it, what else numpy has as Python has it."""
    # Others of numpy's arrays, masked ones for example, are more than their buffer.
    if type(value) is np.ndarray and value.ndim and value.dtype.kind in "fiub" and value.dtype.isnative:
        return msgspec.Raw(orjson.dumps(np.ascontiguousarray(value), option=orjson.OPT_SERIALIZE_NUMPY))
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise NotImplementedError(f"{type(value).__name__} is no type that an answer can have")


def schema(expected: type) -> dict[str, Any]:
    """msgspec's `schema_hook`."""
    if not issubclass(expected, ArrayField):
        raise NotImplementedError(f"{expected.__name__} is no type that a request or an answer can have")
    found: dict[str, Any] = {"type": _SCHEMAS[np.dtype(expected.dtype).kind]}
    for size in reversed(expected.shape or (-1,)):
        found = {"type": "array", "items": found} | ({} if size < 0 else {"minItems": size, "maxItems": size})
    return found


@lru_cache(1024)
def _about(expected: type[ArrayField]) -> tuple[np.dtype[Any], str]:
    """Its dtype, and what it is called in errors."""
    return np.dtype(expected.dtype), _name(expected.dtype, expected.shape)


def _narrowed(array: Array, dtype: np.dtype[Any], name: str) -> Array:
    """Integers and booleans in their own width, if none of them changes by that."""
    if array.size == 0:
        return array.astype(dtype)
    if array.dtype.kind != ("b" if dtype.kind == "b" else "i"):
        raise ValueError(f"expected {name}, got other values than {_SCHEMAS[dtype.kind]}s")
    narrow = array.astype(dtype)
    if not np.array_equal(narrow, array):
        raise ValueError(f"expected {name}, got values out of its range")
    return narrow


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(shape) == len(wanted) and all(w in (-1, s) for s, w in zip(shape, wanted, strict=True))


def _irregular(value: Any) -> str:
    return (
        f"lists of unequal length or other values ({len(value)})" if isinstance(value, list) else type(value).__name__
    )


def _shown(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} values" if len(shape) == 1 else "a single value" if not shape else f"shape {list(shape)}"


def _name(dtype: str, shape: tuple[int, ...] | None) -> str:
    return dtype + ("" if shape is None else "[" + ", ".join("?" if s < 0 else str(s) for s in shape) + "]")
