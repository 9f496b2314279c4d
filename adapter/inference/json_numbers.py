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
import orjson
import simdjson

from adapter.inference.conversion import element_type, elements, listed, out_of_range, paired, range_of, unpaired
from adapter.inference.json_ragged import irregularity
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
# A number longer than this is not one, or has much white space around it.
_LONGEST = 1 << 10
# Up to this length orjson and a Python list are faster: 10 numbers in 1.8 against 2.8 us, 100 in 6.6 against 5.3 us.
_SHORT = 640
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

_IEEE = frozenset(dtype.number for dtype in (FLOAT, DOUBLE, HALF))

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
        # (The outermost at the end, or the comparison below fails.)
        closed = skeleton.find(b"]" * (depth - level), closed) if level else len(skeleton) - depth
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

    def mistake(self, index: Shape, what: str) -> BadInput:
        """What is wrong at an index of the lists."""


def numbers_at_once(text: bytes, dtype: DType) -> Array | None:
    """The number, or the lists of numbers, that a text is; None if anything in it takes more care."""
    code = _CODES.get(dtype.number)
    if code is None:
        return None
    skeleton = text.translate(None, NUMERIC)
    shape = shape_of(skeleton)
    if shape is None:
        return None
    if len(text) <= _SHORT and dtype.number in _IEEE:
        try:
            return listed(orjson.loads(text), dtype)
        except ValueError:  # no JSON, or empty lists beside lists of one
            return None
    values = _parsed(text if skeleton else b"[%b]" % text, code)
    array = None if values is None else elements(values, dtype)
    return None if array is None else _shaped(array, shape, dtype)


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
        raise careful.mistake(*irregularity(whole))
    yield
    array = np.empty(math.prod(shape), element_type(dtype))
    done = depth = 0
    for start, stop, skeleton in pieces:
        before = depth
        depth += _opened(skeleton)
        part = _part(b"%b%b%b" % (b"[" * before, text[start:stop], b"]" * depth), dtype, done, shape, careful)
        if part is None or done + len(part) > len(array):
            return None
        array[done : done + len(part)] = part
        done += len(part)
        yield
    found = _shaped(array[:done], shape, dtype)
    if found is None and careful is not None:
        raise careful.mistake(
            (), unpaired(dtype) if done == len(array) else f"expected {len(array)} values, got {done}"
        )
    return found


def _pieces(
    text: bytes, start: int, end: int, words: bool
) -> Generator[None, None, list[tuple[int, int, bytes]] | None]:
    """Where each piece starts and ends, and its skeleton; None if there is anything but numbers (and their words)."""
    pieces = []
    comma = start
    while comma >= 0:
        comma = text.find(b",", start + PIECE, end)
        stop = comma if comma >= 0 else end
        if stop - start > 2 * PIECE + _LONGEST:
            return None
        skeleton = text[start:stop].translate(None, NUMERIC)
        if words and skeleton.strip(b"[],"):
            skeleton = without_words(text[start:stop]).translate(None, NUMERIC)
        if skeleton.strip(b"[],"):
            return None
        pieces.append((start, stop, skeleton))
        start = stop + 1
        yield
    return pieces


def _part(text: bytes, dtype: DType, first: int, shape: Shape, careful: Careful | None) -> Array | None:
    """The numbers of one piece of a large text, as `elements` of the dtype."""
    code = _CODES[dtype.number]
    values = _parsed(text, code)
    if values is None and careful is not None:
        words = _parsed(without_words(text), code) if code == "d" else None
        values = None if words is None else with_words(words, text)
        if values is None:
            values = careful.values(text, first, shape)
    part = None if values is None else elements(values, dtype)
    if part is None and values is not None and careful is not None:
        low, high = range_of(dtype)
        place = int(np.argmax((values < low) | (values > high)))
        raise careful.mistake(unravelled(first + place, shape), out_of_range(int(values[place]), dtype))
    return part


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


def _shaped(array: Array, shape: Shape, dtype: DType) -> Array | None:
    """The elements in their shape, None if they are not as many as the skeleton has places."""
    if not len(array) and shape:
        shape = (*shape[:-1], 0)
    try:
        array = array.reshape(shape)
    except ValueError:
        return None
    return paired(array, dtype) if dtype.numpy.kind == "c" else array


def unravelled(position: int, shape: Shape) -> Shape:
    """The index of the value that stands at a position when all are in a row."""
    return tuple(map(int, np.unravel_index(position, shape))) if shape else ()
