"""A handler's arrays and a model's tensors: conversion where nothing is lost, and words for what does not fit.

No I/O. What is wrong here is the bundle's fault, never the client's: `Misfit`.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from adapter.inference.tensor import BFLOAT16, Array, DType, Shape, Signature, Tensor, TensorSpec, aligned

_DECLARED = re.compile(r"(\w+)(?:\[([\d\s,?-]*)\])?")
_ALIASES = {"float": "float32", "double": "float64", "half": "float16", "str": "string", "bytes": "string"}


class Misfit(Exception):
    """The handler and the model do not fit together, or the handler did not give what its class says."""


def to_tensors(given: Mapping[str, Any], signature: Signature, rows: int) -> dict[str, Tensor]:
    """What `preprocess` gave for `rows` requests, as the inputs of `signature`. Raises Misfit."""
    specs = signature.inputs
    tensors = {}
    for name, value in given.items():
        spec = specs.get(name)
        if spec is None:
            raise Misfit(f"input {name!r} is none of the signature's ({', '.join(specs)})")
        tensors[name] = tensor = _tensor(value, spec)
        shape = tensor.data.shape
        if spec.shape is not None and not _fits(shape, spec.shape):
            raise Misfit(f"input {name!r} is {_named(spec.dtype, shape)}, the model takes {described(spec)}")
        if rows and spec.shape is not None and spec.shape[:1] == (-1,) and shape[0] != rows:
            raise Misfit(f"input {name!r} has {shape[0]} rows for {rows} requests")
    if len(tensors) != len(specs):
        raise Misfit(f"input {next(name for name in specs if name not in tensors)!r} is missing")
    return tensors


def to_arrays(outputs: Mapping[str, Tensor]) -> dict[str, Array]:
    """A model's outputs as numpy has them, on their boundaries; bfloat16 as float32."""
    arrays = {}
    for name, tensor in outputs.items():
        data = aligned(tensor.data)
        arrays[name] = _widened(data) if tensor.dtype is BFLOAT16 else data
    return arrays


def mismatch(declared: Mapping[str, str], specs: Mapping[str, TensorSpec], what: str) -> str | None:
    """How what a handler declares ("inputs": name → "float32[?, 8, 8]") differs from the model's own, None if not."""
    for name, text in declared.items():
        spec = specs.get(name)
        if spec is None:
            return f"{what} {name!r}, the model has {', '.join(specs)}"
        match = _DECLARED.fullmatch(text.strip())
        if match is None:
            return f"{what} {name!r} as {text!r}, expected something like 'float32[?, 8, 8]'"
        dtype = _ALIASES.get(match[1], match[1])
        shape = None if match[2] is None else tuple(_size(part) for part in match[2].split(",") if part.strip())
        if dtype != _dtype_name(spec.dtype) or (shape is not None and not _may_be(shape, spec.shape)):
            return f"{what} {name!r} as {text}, the model has {described(spec)}"
    return None


def described(spec: TensorSpec) -> str:
    """`float32[?, 8, 8]`."""
    return _named(spec.dtype, spec.shape)


def _tensor(value: Any, spec: TensorSpec) -> Tensor:
    dtype = spec.dtype
    if dtype.is_string:
        return Tensor(dtype, _strings(value, spec.name))
    try:
        array = np.asarray(value)
    except ValueError:
        raise Misfit(f"input {spec.name!r} is a list of rows of unequal length") from None
    if dtype is BFLOAT16:
        if array.dtype.kind not in "fiu":
            raise Misfit(f"input {spec.name!r} is {array.dtype}, the model takes {described(spec)}")
        array = _narrowed(array)
    elif array.dtype != dtype.numpy:
        array = _cast(array, spec)
    return Tensor(dtype, array if array.flags.c_contiguous else np.ascontiguousarray(array))


def _cast(array: Array, spec: TensorSpec) -> Array:
    to = spec.dtype.numpy
    if not np.can_cast(array.dtype, to, "same_kind"):
        raise Misfit(f"input {spec.name!r} is {array.dtype}, the model takes {described(spec)}")
    with np.errstate(over="ignore"):  # too large for float32 is infinite, as on /v1
        cast: Array = array.astype(to)
    if to.kind in "iu" and not np.array_equal(cast, array):
        raise Misfit(f"input {spec.name!r} has values out of the range of {_dtype_name(spec.dtype)}")
    return cast


def _strings(value: Any, name: str) -> Array:
    found = np.array(value, dtype=object)
    flat = [item.encode() if isinstance(item, str) else item for item in found.ravel().tolist()]
    wrong = next((item for item in flat if not isinstance(item, bytes)), None)
    if wrong is not None:
        raise Misfit(f"input {name!r} holds {type(wrong).__name__}, the model takes str or bytes")
    array = np.empty(len(flat), object)
    array[:] = flat
    return array.reshape(found.shape)


def _widened(patterns: Array) -> Array:
    wide: Array = (patterns.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return wide


def _narrowed(values: Array) -> Array:
    """Bit patterns of bfloat16: the upper halves of float32's, rounded to the nearest, ties to even; NaN stays NaN."""
    with np.errstate(over="ignore"):
        bits = values.astype(np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded.astype(np.uint16))


def _fits(shape: Shape, wanted: Shape) -> bool:
    if len(shape) != len(wanted):
        return False
    for size, expected in zip(shape, wanted, strict=True):  # noqa: SIM110 - for each request; a generator costs twice that
        if expected not in (-1, size):
            return False
    return True


def _may_be(declared: Shape, actual: Shape | None) -> bool:
    """Whether tensors of the one shape can be of the other."""
    if actual is None:
        return True
    return len(declared) == len(actual) and all(-1 in (a, b) or a == b for a, b in zip(declared, actual, strict=True))


def _size(text: str) -> int:
    text = text.strip()
    return int(text) if text.isdecimal() else -1


def _dtype_name(dtype: DType) -> str:
    return _ALIASES.get(dtype.name, dtype.name)


def _named(dtype: DType, shape: Shape | None) -> str:
    if shape is None:
        return f"{_dtype_name(dtype)} of any shape"
    return f"{_dtype_name(dtype)}[{', '.join('?' if size < 0 else str(size) for size in shape)}]"
