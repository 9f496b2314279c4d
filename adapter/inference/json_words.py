"""`NaN`, `Infinity`, `Inf` and their negatives among the numbers of a JSON text: not JSON, but TFS takes them."""

import numpy as np

from adapter.inference.tensor import Array

# Numbers that stand for the words while a parser reads the text. They may occur in it themselves, and then the count is
# wrong. The spaces keep them apart from digits that may stand beside a word, wrongly.
_NAN, _INFINITY, _MINUS_INFINITY = 1.1754943508222875e301, 1.2754943508222875e302, 1.3754943508222875e303
_STAND_INS = [
    (word, f" {stand_in!r} ".encode())
    for word, stand_in in (
        (b"-Infinity", _MINUS_INFINITY),
        (b"-Inf", _MINUS_INFINITY),
        (b"Infinity", _INFINITY),
        (b"Inf", _INFINITY),
        (b"-NaN", _NAN),
        (b"NaN", _NAN),
    )
]


def without_words(text: bytes) -> bytes:
    """The text with a number in place of each word."""
    for word, stand_in in _STAND_INS:
        text = text.replace(word, stand_in)
    return text


def with_words(values: Array, text: bytes) -> Array | None:
    """The numbers of `without_words(text)` as the text means them, None if that can't be told."""
    values = values.copy()
    negative = text.count(b"-Inf")
    for stand_in, meant, expected in (
        (_NAN, np.nan, text.count(b"NaN")),
        (_INFINITY, np.inf, text.count(b"Inf") - negative),
        (_MINUS_INFINITY, -np.inf, negative),
    ):
        found = values == stand_in
        if np.count_nonzero(found) != expected:
            return None
        values[found] = meant
    return values
