"""The skeleton of a JSON text of nested lists of numbers: the text less its numbers and white space, and what it tells.

simdjson's `as_buffer` flattens ragged lists without a word. So the skeleton is compared with that of the only shape it can
have: `[[,],[,],[,]]` is (3, 2). How the numbers themselves are read, and counted, is `json_numbers`'.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from adapter.inference.tensor import Shape

# All that a number or white space is made of. What is left of a list of lists of numbers is brackets and commas.
NUMERIC = b"0123456789+-.eE \t\r\n"
# Skeletons up to this length are looked up, longer ones compared: hashing is cheaper than building an equal one only here.
_REMEMBERED = 4096
_MAX_RANK = 64
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
