"""JSON text of nested lists of numbers straight to arrays: simdjson reads the numbers, this checks all around them.

simdjson's `as_buffer` flattens ragged lists without a word. So the shape is that of the text's skeleton (`json_skeleton`)
and the numbers are counted; or, where lists are few and long, simdjson is asked for the length of each. Large texts are
cut at commas, and every piece is parsed as a document of its own with the lists that are open at its ends closed.

The parser is one for all: to be used from one thread, the event loop's.
"""

import math
from collections import deque
from collections.abc import Generator, Mapping
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import orjson
import simdjson

from adapter.inference.conversion import element_type, elements, listed, out_of_range, paired, range_of, unpaired
from adapter.inference.json_ragged import irregularity_in_steps
from adapter.inference.json_skeleton import MAX_RANK, contents, shape_in_steps, shape_of, skeleton
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
from adapter.joining import joined, separated

# Text handled in one go: about 2 ms for the skeleton, 3 ms for the numbers.
PIECE = 1 << 20
# A longer one is cut in pieces that stay in the processor's cache while they are looked at twice, some in each go.
CACHED, _TOGETHER = 1 << 16, 8
# A number longer than this is not one, or has much white space around it.
_LONGEST = 1 << 10
# Up to this length orjson and a Python list are faster: 10 numbers in 1.8 against 2.8 us, 100 in 6.6 against 5.3 us.
SHORT = 640
# Bytes of text for each list from which on it is faster to ask simdjson for the length of every list.
LONG_LISTS = 128
# From so many bytes on numpy counts a character faster: 4 against 12 us in 29 kB.
_COUNTED = 1 << 12
_OPENING = ord("[")

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
# What it raises: no JSON, no list, something in it that is neither a number nor a list, a number that the type can't hold.
_NOT_NUMBERS = (ValueError, TypeError, RuntimeError, AttributeError)


class Careful(Protocol):
    """Who takes over where a large text holds numbers that simdjson doesn't take, or mistakes."""

    def values(self, text: bytes, first: int, shape: Shape) -> Array:
        """The values of a piece whose first value is at this place among all; BadInput if there is a mistake in it."""

    def mistake(self, index: Shape, what: str) -> BadInput:
        """What is wrong at an index of the lists."""


class _Piece(NamedTuple):
    """A range of a large text, its skeleton, the lists open before and after it, and its `elements`; None takes more care."""

    start: int
    stop: int
    outline: bytes
    before: int
    after: int
    elements: Array | None


def numbers_at_once(text: bytes, dtype: DType) -> Array | None:
    """The number, or the lists of numbers, that a text is; None if anything in it takes more care."""
    code = _CODES.get(dtype.number)
    if code is None:
        return None
    if len(text) > SHORT and (lists := _lists(text)) and lists * LONG_LISTS <= len(text):
        return _in_few_lists(text, lists, code, dtype)
    outline = skeleton(text)
    shape = shape_of(outline)
    if shape is None:
        return None
    if len(text) <= SHORT and dtype.number in _IEEE:
        try:
            return listed(orjson.loads(text), dtype)
        except ValueError:  # no JSON, or empty lists beside lists of one
            return None
    values = _parsed(text if outline else b"[%b]" % text, code)
    array = None if values is None else elements(values, dtype)
    return None if array is None else _shaped(array, shape, dtype)


def _lists(text: bytes) -> int:
    """How many lists begin in a text of lists and numbers."""
    if len(text) < _COUNTED:
        return text.count(b"[")
    return int(np.count_nonzero(np.frombuffer(text, np.uint8) == _OPENING))


def _in_few_lists(text: bytes, lists: int, code: Code, dtype: DType) -> Array | None:
    """The same of a text with so many opening brackets: all are lists, for `as_buffer` takes nothing but lists and numbers."""
    shape: list[int] = []
    try:
        # Nothing of the parser's may be alive when it is used next; it is gone when this returns.
        document = _PARSER.parse(text)
        values = np.frombuffer(document.as_buffer(of_type=code), _NUMPY[code])
        level = [document]
        while True:
            sizes = set(map(len, level))
            if len(sizes) > 1:
                return None
            shape += sizes
            lists -= len(level)
            if not lists:
                break
            if len(level) * shape[-1] > lists:  # some of what is in them are numbers
                return None
            level = [inner for outer in level for inner in outer]
    except _NOT_NUMBERS:
        return None
    array = elements(values, dtype)
    return None if array is None else _shaped(array, tuple(shape), dtype)


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
    if dtype.number not in _CODES:
        return None
    pieces = yield from _pieces(text, start, end, dtype, careful is not None)
    if pieces is None:
        return None
    whole = yield from joined(list(separated([piece.outline for piece in pieces])))
    shape = yield from shape_in_steps(whole)
    if shape is None:
        if careful is None:
            return None
        raise careful.mistake(*(yield from irregularity_in_steps(whole)))
    return (yield from _assembled(text, pieces, shape, dtype, careful))


def _assembled(
    text: bytes, pieces: deque[_Piece], shape: Shape, dtype: DType, careful: Careful | None
) -> Generator[None, None, Array | None]:
    """The pieces' numbers in one array of this shape."""
    array = np.empty(math.prod(shape), element_type(dtype))
    done = 0
    while pieces:
        piece = pieces.popleft()
        part = piece.elements
        if part is None and careful is not None:
            alone = _alone(text[piece.start : piece.stop], piece.before, piece.after)
            part = _with_care(alone, dtype, done, shape, careful)
            yield
        if part is None or done + len(part) > len(array):
            return None
        array[done : done + len(part)] = part
        done += len(part)
        if len(pieces) % (8 * _TOGETHER) == 0:
            yield
    found = _shaped(array[:done], shape, dtype)
    if found is None and careful is not None:
        if done == len(array):
            raise careful.mistake(*unpaired(shape, array[0], dtype))
        raise careful.mistake((), f"expected {len(array)} values, got {done}")
    return found


def _pieces(
    text: bytes, start: int, end: int, dtype: DType, words: bool
) -> Generator[None, None, deque[_Piece] | None]:
    """The text cut at commas; None if there is anything but numbers (and their words)."""
    pieces: deque[_Piece] = deque()
    code = _CODES[dtype.number]
    comma = start
    depth = 0
    while comma >= 0:
        comma = text.find(b",", start + CACHED, end)
        stop = comma if comma >= 0 else end
        if stop - start > PIECE + _LONGEST:
            return None
        piece = text[start:stop]
        outline = skeleton(piece)
        found = contents(outline)
        plain = found.lists_only
        if words and not plain:
            outline = skeleton(without_words(piece))
            found = contents(outline)
        if not found.lists_only:
            return None
        before, depth = depth, depth + found.opened
        values = None
        if plain and 0 <= before <= MAX_RANK and 0 <= depth <= MAX_RANK:
            values = _parsed(_alone(piece, before, depth), code)
        found_elements = None if values is None else elements(values, dtype)
        pieces.append(_Piece(start, stop, outline, before, depth, found_elements))
        start = stop + 1
        if len(pieces) % _TOGETHER == 0 or not plain:
            yield
    return pieces


def _alone(piece: bytes, before: int, after: int) -> bytes:
    """A piece as a document of its own, with so many lists open before and after it."""
    return b"%b%b%b" % (b"[" * before, piece, b"]" * after)


def _with_care(text: bytes, dtype: DType, first: int, shape: Shape, careful: Careful) -> Array:
    """The `elements` of a piece that simdjson alone does not read; BadInput if there is a mistake in it."""
    code = _CODES[dtype.number]
    values = _parsed(text, code)
    if values is None:
        words = _parsed(without_words(text), code) if code == "d" else None
        values = None if words is None else with_words(words, text)
        if values is None:
            values = careful.values(text, first, shape)
    part = elements(values, dtype)
    if part is None:
        low, high = range_of(dtype)
        place = int(np.argmax((values < low) | (values > high)))
        raise careful.mistake(unravelled(first + place, shape), out_of_range(int(values[place]), dtype))
    return part


def _parsed(text: bytes, code: Code) -> Array | None:
    try:
        # One expression, so that nothing of the parser's is alive when it is used next; simdjson forbids that.
        return np.frombuffer(_PARSER.parse(text).as_buffer(of_type=code), _NUMPY[code])
    except _NOT_NUMBERS:
        return None


def _shaped(array: Array, shape: Shape, dtype: DType) -> Array | None:
    """The elements in their shape, None if they are not as many as the skeleton has places."""
    if not len(array) and shape and shape[-1] == 1:
        shape = (*shape[:-1], 0)
    try:
        array = array.reshape(shape)
    except ValueError:
        return None
    return paired(array, dtype) if dtype.numpy.kind == "c" else array


def unravelled(position: int, shape: Shape) -> Shape:
    """The index of the value that stands at a position when all are in a row."""
    return tuple(map(int, np.unravel_index(position, shape))) if shape else ()
