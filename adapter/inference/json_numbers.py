"""JSON text of nested lists of numbers straight to arrays: simdjson reads the numbers, this checks all around them.

simdjson's `as_buffer` flattens ragged lists without a word. So the text less its numbers, its *skeleton*, is compared
with the skeleton of the only shape it can have (`[[,],[,],[,]]` is (3, 2)), and the numbers are counted. Large texts
are cut at commas, and every piece is parsed as a document of its own with the lists that are open at its ends closed.

The parser is one for all: to be used from one thread, the event loop's.
"""

import math
from collections.abc import Generator, Mapping
from functools import lru_cache
from typing import Any, Literal, Protocol

import numpy as np
import simdjson

from adapter.inference.conversion import converted
from adapter.inference.json_words import with_words, without_words
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
    BadInput,
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


class Careful(Protocol):
    """Who takes over where a large text holds numbers that simdjson doesn't take, or mistakes."""

    def values(self, text: bytes, first: int, shape: Shape) -> Array:
        """The values of a piece whose first value is at this place among all; BadInput if there is a mistake in it."""

    def ragged(self, skeleton: bytes) -> BadInput:
        """Where lists with this skeleton, which is that of no shape, stop being regular."""

    def unfit(self, values: Array, shape: Shape) -> BadInput:
        """Why these numbers, doubles or 64-bit integers, are not what the shape and the dtype ask for."""


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


def numbers(
    text: bytes, start: int, end: int, dtype: DType, careful: Careful | None = None
) -> Generator[None, None, Array | None]:
    """The same of what stands between two offsets; yields between the pieces of a large text.

    With `careful`, None is only what is not all numbers: mistakes are said, so that nobody needs to parse it all again.

    Joining pieces is safe: each joint is a comma, each piece is valid between as many brackets as the skeleton has open
    there, and an empty place beside the comma, the one thing that these brackets can hide, leaves the count too low.
    """
    if end - start <= PIECE:
        return numbers_at_once(text[start:end], dtype)
    code = _CODES.get(dtype.number)
    if code is None:
        return None
    pieces = yield from _pieces(text, start, end, careful is not None)
    if pieces is None:
        return None
    whole = b",".join([skeleton for _, _, skeleton in pieces])
    shape = shape_of(whole)
    if shape is None:
        if careful is None:
            return None
        raise careful.ragged(whole)
    values = np.empty(math.prod(shape), _NUMPY[code])
    done = depth = 0
    for start, stop, skeleton in pieces:
        before = depth
        depth += _opened(skeleton)
        part = _part(b"%b%b%b" % (b"[" * before, text[start:stop], b"]" * depth), code, done, shape, careful)
        if part is None or done + len(part) > len(values):
            return None
        values[done : done + len(part)] = part
        done += len(part)
        yield
    array = _shaped(values[:done], shape, dtype)
    if array is None and careful is not None:
        raise careful.unfit(values[:done], shape)
    return array


def _pieces(
    text: bytes, start: int, end: int, words: bool
) -> Generator[None, None, list[tuple[int, int, bytes]] | None]:
    """Where each piece starts and ends, and its skeleton; None if there is anything but numbers (and their words)."""
    pieces = []
    while start < end:
        comma = text.find(b",", start + PIECE, end)
        stop = comma if comma >= 0 else end
        skeleton = text[start:stop].translate(None, NUMERIC)
        if words and skeleton.strip(b"[],"):
            skeleton = without_words(text[start:stop]).translate(None, NUMERIC)
        if skeleton.strip(b"[],"):
            return None
        pieces.append((start, stop, skeleton))
        start = stop + 1
        yield
    return pieces


def _part(text: bytes, code: Code, first: int, shape: Shape, careful: Careful | None) -> Array | None:
    """The numbers of one piece of a large text."""
    values = _parsed(text, code)
    if values is not None or careful is None:
        return values
    if code == "d":
        values = _parsed(without_words(text), code)
        values = None if values is None else with_words(values, text)
    return careful.values(text, first, shape) if values is None else values


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
