"""Where in a predict body the numbers of each input stand, found without parsing it; the numbers are `json_numbers`'.

Objects that hold nothing but numbers have quotes only around their keys. So the text is walked from quote to quote:
every second stretch is a key, the ones between are a colon, a value, and what separates it from the next key.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from adapter.inference.tensor import TensorSpec

_FIRST_KEY = {True: re.compile(rb'\[[ \t\r\n]*\{[ \t\r\n]*(?=")'), False: re.compile(rb'\{[ \t\r\n]*(?=")')}
_NUMBERS = re.compile(rb"[\[ \t\r\n]*[-0-9NI\]]")
_COLON = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*")
_SPACE = b" \t\r\n"
# More than a few objects with little text for each value are read faster once parsed: 1 µs a value against 5 µs.
_FEW = 4
_LITTLE = 256


class Value(NamedTuple):
    """The value of a key, or a list without keys (`name` is None): a range of the body."""

    name: str | None
    start: int
    end: int


def values(body: bytes, start: int, end: int, row: bool, inputs: Mapping[str, TensorSpec]) -> list[list[Value]] | None:
    """For each object between two offsets its values, in the order of their keys; None if there is anything unusual.

    Columnar bodies have one object. A body without keys has one value, nameless. That the ranges hold values, and only
    numbers in them, is not checked here; all that is outside them is.
    """
    first_key = _FIRST_KEY[row].match(body, start, end)
    if first_key is None:
        return [[Value(None, start, end)]] if len(inputs) == 1 and _NUMBERS.match(body, start, end) else None
    # Names that JSON writes with a backslash are left to those who read backslashes.
    names = {name.encode(): name for name in inputs if name.isprintable() and '"' not in name and "\\" not in name}
    objects: list[list[Value]] = []
    found: list[Value] = []
    quote = first_key.end()
    while quote < end:
        closing = body.find(b'"', quote + 1, end)
        name = names.get(body[quote + 1 : closing])
        colon = _COLON.match(body, closing + 1, end)
        if name is None or colon is None:
            return None
        quote = body.find(b'"', colon.end(), end)
        if quote < 0:
            quote = end
        brace = body.rfind(b"}", colon.end(), quote)
        stop = brace if brace >= 0 else body.rfind(b",", colon.end(), quote)
        found.append(Value(name, colon.end(), stop))
        after = body[stop:quote].translate(None, _SPACE) if stop >= 0 else b""
        if brace >= 0:
            objects.append(found)
            found = []
            if len(objects) > _FEW and quote - start < _LITTLE * len(inputs) * len(objects):
                return None
        if after != (b"," if brace < 0 else (b"},{" if quote < end else b"}]") if row else b"}"):
            return None
    return None if found else objects
