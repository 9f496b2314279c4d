"""`NaN`, `Infinity`, `Inf` and their negatives among the numbers of a JSON text: not JSON, but TFS takes them."""

import re

import numpy as np

from adapter.inference.tensor import Array

_WORD = re.compile(rb"-?(?:NaN|Inf(?:inity)?)")
_VALUES = {b"N": np.nan, b"I": np.inf, b"-": -np.inf}


def without_words(text: bytes) -> bytes:
    """The text with a zero for each word; the spaces keep it apart from digits that may stand beside it, wrongly."""
    return _WORD.sub(b" 0 ", text)


def with_words(values: Array, text: bytes) -> Array | None:
    """The numbers of a text without its words, and what the words mean put in their places.

    The place of a word is the number of commas before it: right for lists that are regular and not empty, and None for
    others if a place is beyond the numbers (that they are regular is for the caller to know).
    """
    starts, words = [], []
    for match in _WORD.finditer(text):
        starts.append(match.start())
        words.append(np.nan if match[0] == b"-NaN" else _VALUES[match[0][:1]])
    commas = np.flatnonzero(np.frombuffer(text, np.uint8) == ord(","))
    places = np.searchsorted(commas, starts)
    if len(places) and places[-1] >= len(values):
        return None
    values = values.copy()
    values[places] = words
    return values
