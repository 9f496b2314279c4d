"""The skeleton of a JSON text of nested lists of numbers: the text less its numbers and white space, and what it tells.

simdjson's `as_buffer` flattens ragged lists without a word. So the skeleton is compared with that of the only shape it can
have: `[[,],[,],[,]]` is (3, 2). How the numbers themselves are read, and counted, is `json_numbers`'.
"""

from collections.abc import Generator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from adapter.inference.tensor import Array, Shape
from adapter.inference.turns import at_once

# All that a number or white space is made of. What is left of a list of lists of numbers is brackets and commas.
NUMERIC = b"0123456789+-.eE \t\r\n"
# Skeletons up to this length are looked up, longer ones compared: hashing is cheaper than building an equal one only here.
_REMEMBERED = 4096
MAX_RANK = 64
# Characters compared in one go, at first and at most.
_SHORT, _LONG = 1 << 8, 1 << 20
_OPENING, _CLOSING, _COMMA = b"[],"


def skeleton(text: bytes) -> bytes:
    """All of a text that is neither a number's nor white space."""
    return text.translate(None, NUMERIC)


class Contents(NamedTuple):
    """What a skeleton holds."""

    opened: int
    """How many more lists it opens than it closes."""
    lists_only: bool
    """Whether it is made of brackets and commas alone."""


def contents(skeleton: bytes) -> Contents:
    """What a skeleton, or a part of one, holds."""
    characters = np.frombuffer(skeleton, np.uint8)
    opening, closing, commas = [
        int(np.count_nonzero(characters == character)) for character in (_OPENING, _CLOSING, _COMMA)
    ]
    return Contents(opening - closing, opening + closing + commas == len(skeleton))


def depth_of(skeleton: bytes) -> int:
    """How many lists open at the beginning of a skeleton; more than `MAX_RANK` are not counted to their end."""
    start = skeleton[: MAX_RANK + 1]
    return len(start) - len(start.lstrip(b"["))


def shape_of(skeleton: bytes) -> Shape | None:
    """The shape of the lists with this skeleton (of a bare number: none), None if ragged or not of numbers alone.

    A list without comma has one value or none, the skeleton can't tell: its size is given as 1.
    """
    return _known_shape(skeleton) if len(skeleton) < _REMEMBERED else at_once(shape_in_steps(skeleton))


def shape_in_steps(skeleton: bytes) -> Generator[None, None, Shape | None]:
    """The same; yields every millisecond or so where it is long.

    From the inside out: where a list begins with so many equal elements, each of `period` characters with its comma, the
    skeleton is its own from there on when it is moved by a period, until the last comma meets the bracket that closes it.
    """
    depth = depth_of(skeleton)
    if not depth or depth > MAX_RANK:
        return None if skeleton else ()
    characters = np.frombuffer(skeleton, np.uint8)
    shape = []
    period = 1
    for level in reversed(range(depth)):
        inside = level + 1
        end = yield from end_of_like(characters, inside, period)
        if end >= len(skeleton) or characters[end] != _CLOSING or (end + 1 - inside) % period:
            return None
        shape.append((end + 1 - inside) // period)
        period = end + 2 - level
    return tuple(reversed(shape)) if end == len(skeleton) - 1 else None


def end_of_like(characters: Array, start: int, period: int) -> Generator[None, None, int]:
    """Where a skeleton is first not what it is if all elements from a place on are like the one there; or its end.

    That element has `period` characters with its comma. Yields every millisecond or so where there are many.
    """
    end = start + period - 1
    if end < len(characters) and characters[end] == _COMMA:
        return (yield from _differs(characters, start, period))
    return min(end, len(characters))


def _differs(characters: Array, start: int, period: int) -> Generator[None, None, int]:
    """Where a character first differs from the one that stands a period before it, from the second period on; or the end."""
    length = _SHORT
    while start + period < len(characters):
        later = characters[start + period : start + period + length]
        different = characters[start : start + len(later)] != later
        place = int(different.argmax())
        if different[place]:
            return start + period + place
        start += len(later)
        length = min(2 * length, _LONG)
        if length == _LONG:
            yield
    return len(characters)


_known_shape = lru_cache(1024)(lambda skeleton: at_once(shape_in_steps(skeleton)))
