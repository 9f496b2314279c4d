"""JSON text of nested lists of numbers straight to arrays: simdjson reads the numbers, this checks all around them.

simdjson's `as_buffer` flattens ragged lists without a word. So the text less its numbers, its *skeleton*, is compared
with the skeleton of the only shape it can have (`[[,],[,],[,]]` is (3, 2)), and the numbers are counted. Large texts
are cut at commas, and every piece is parsed as a document of its own with the lists that are open at its ends closed.

The parser and the context below are one of each: to be used from one thread, the event loop's.
"""

import contextvars
import math
from collections.abc import Generator, Mapping
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import simdjson

from adapter.inference.tensor import (
    BFLOAT16,
    COMPLEX64,
    COMPLEX128,
    DOUBLE,
    FLOAT,
    HALF,
    INT8,
    INT16,
    INT32,
    INT64,
    UINT8,
    UINT16,
    UINT32,
    UINT64,
    Array,
    DType,
    Shape,
)  # fmt: skip

# All that a number or white space is made of. What is left of a list of lists of numbers is brackets and commas.
NUMERIC = b"0123456789+-.eE \t\r\n"
# Text handled in one go: about 1 ms for the skeleton, 2 ms for the numbers.
PIECE = 1 << 20
# Skeletons up to this length are looked up, longer ones compared: hashing is cheaper than building an equal one only here.
_REMEMBERED = 4096
_MAX_RANK = 64

Code = Literal["d", "i", "u"]
_NUMPY: Mapping[Code, np.dtype[Any]] = {"d": np.dtype("<f8"), "i": np.dtype("<i8"), "u": np.dtype("<u8")}
# How simdjson is asked for what each dtype is made of. Strings and bools it is not asked for.
_CODES: Mapping[int, Code] = {
    **{dtype.number: "i" for dtype in (INT32, UINT8, INT16, INT8, INT64, UINT16, UINT32)},
    **{dtype.number: "d" for dtype in (FLOAT, DOUBLE, HALF, BFLOAT16, COMPLEX64, COMPLEX128)},
    UINT64.number: "u",
}

_PARSER: Any = simdjson.Parser()
# A double too large for float32 becomes infinite, as in TFS, without a warning; errstate would cost 2 µs each time.
_QUIETLY: Any = contextvars.copy_context()
_QUIETLY.run(np.seterr, over="ignore")


def shape_of(skeleton: bytes) -> Shape | None:
    """The shape of the lists with this skeleton (of a bare number: none), None if ragged or not of numbers alone.

    A list without comma has one value or none, the skeleton can't tell: its size is given as 1.
    """
    return _known_shape(skeleton) if len(skeleton) < _REMEMBERED else _shape(skeleton)


def _shape(skeleton: bytes) -> Shape | None:
    depth = len(skeleton) - len(skeleton.lstrip(b"["))
    if depth > _MAX_RANK:
        return None
    shape = []
    element = b""
    closed = 0
    for level in reversed(range(depth)):
        # The first list of a level opens at index `level`; it closes where that many brackets first close in a row.
        closed = skeleton.find(b"]" * (depth - level), closed)
        if closed < 0:
            return None
        inside = closed + depth - level - 1 - (level + 1)
        size, rest = divmod(inside + 1, len(element) + 1)
        if rest or not size:
            return None
        shape.append(size)
        element = b"[%b]" % ((element + b",") * size)[:-1]
    return tuple(reversed(shape)) if element == skeleton else None


_known_shape = lru_cache(1024)(_shape)


def numbers_at_once(text: bytes, dtype: DType) -> Array | None:
    """The number, or the lists of numbers, that a text is; None if anything in it takes more care."""
    code = _CODES.get(dtype.number)
    if code is None:
        return None
    skeleton = text.translate(None, NUMERIC)
    shape = shape_of(skeleton)
    if shape is None:
        return None
    values = _parsed(text if skeleton else b"[%b]" % text, code)
    return None if values is None else _shaped(values, shape, dtype)


def numbers(text: bytes, start: int, end: int, dtype: DType) -> Generator[None, None, Array | None]:
    """The same of what stands between two offsets; yields between the pieces of a large text.

    Joining pieces is safe: each joint is a comma, each piece is valid between as many brackets as the skeleton has open
    there, and an empty place beside the comma, the one thing that these brackets can hide, leaves the count too low.
    """
    if end - start <= PIECE:
        return numbers_at_once(text[start:end], dtype)
    code = _CODES.get(dtype.number)
    if code is None:
        return None
    pieces = []
    while start < end:
        comma = text.find(b",", start + PIECE, end)
        stop = comma if comma >= 0 else end
        skeleton = text[start:stop].translate(None, NUMERIC)
        if skeleton.strip(b"[],"):
            return None
        pieces.append((start, stop, skeleton))
        start = stop + 1
        yield
    shape = shape_of(b",".join([skeleton for _, _, skeleton in pieces]))
    if shape is None:
        return None
    values = np.empty(math.prod(shape), _NUMPY[code])
    done = depth = 0
    for start, stop, skeleton in pieces:
        before = depth
        depth += _opened(skeleton)
        part = _parsed(b"%b%b%b" % (b"[" * before, text[start:stop], b"]" * depth), code)
        if part is None or done + len(part) > len(values):
            return None
        values[done : done + len(part)] = part
        done += len(part)
        yield
    return _shaped(values[:done], shape, dtype)


def _opened(skeleton: bytes) -> int:
    """How many more lists it opens than it closes."""
    characters = np.frombuffer(skeleton, np.uint8)
    return int(np.count_nonzero(characters == 0x5B)) - int(np.count_nonzero(characters == 0x5D))


def _parsed(text: bytes, code: Code) -> Array | None:
    try:
        # One expression, so that nothing of the parser's is alive when it is used next; simdjson forbids that.
        return np.frombuffer(_PARSER.parse(text).as_buffer(of_type=code), _NUMPY[code])
    except (ValueError, TypeError, RuntimeError, AttributeError):
        return None


def _shaped(values: Array, shape: Shape, dtype: DType) -> Array | None:
    if not len(values) and shape:
        shape = (*shape[:-1], 0)
    try:
        return converted(values.reshape(shape), dtype)
    except ValueError:  # fewer or more numbers than the skeleton has places
        return None


def converted(values: Array, dtype: DType) -> Array | None:
    """Doubles or 64-bit integers as the dtype has them; None if one is out of the range that it takes."""
    array: Array | None
    if dtype is FLOAT or dtype is HALF:
        array = _QUIETLY.run(values.astype, dtype.numpy)
    elif dtype is BFLOAT16:
        array = _bfloat16(values)
    elif dtype.numpy == values.dtype:
        array = values
    else:
        array = _complex(values, dtype) if dtype.numpy.kind == "c" else _integers(values, dtype)
    return array


INT32_RANGE = (-(1 << 31), (1 << 31) - 1)
# As TFS has it, the narrow integers are held to int32's range and then cut to their width.
_RANGES = {"uint32": (0, (1 << 32) - 1), "int64": (-(1 << 63), (1 << 63) - 1), "uint64": (0, (1 << 64) - 1)}


def range_of(dtype: DType) -> tuple[int, int]:
    """The least and the greatest integer that an integer dtype takes."""
    return _RANGES.get(dtype.name, INT32_RANGE)


def _integers(values: Array, dtype: DType) -> Array | None:
    low, high = range_of(dtype)
    if values.size and (values.min() < low or values.max() > high):
        return None
    return values.astype(dtype.numpy)


def _complex(values: Array, dtype: DType) -> Array | None:
    if not values.ndim or values.shape[-1] != 2:
        return None
    pairs: Array = _QUIETLY.run(values.astype, f"<f{dtype.numpy.itemsize // 2}")
    return pairs.view(dtype.numpy).reshape(values.shape[:-1])


def _bfloat16(values: Array) -> Array:
    """The upper halves of float32 bit patterns, rounded to the nearest, ties to even; NaN stays NaN."""
    bits = _QUIETLY.run(values.astype, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded.astype(np.uint16))
