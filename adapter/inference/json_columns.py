"""Where in a predict body the numbers of each input stand, found without parsing it; the numbers are `json_numbers`'.

Objects that hold nothing but numbers have quotes only around their keys. So the text is walked from quote to quote:
every second stretch is a key, the ones between are a colon, a value, and what separates it from the next key.
"""

import re
from collections.abc import Generator, Mapping
from typing import NamedTuple

from adapter.inference.tensor import TensorSpec

_FIRST_KEY = {True: re.compile(rb'\[[ \t\r\n]*\{[ \t\r\n]*(?=")'), False: re.compile(rb'\{[ \t\r\n]*(?=")')}
_NUMBERS = re.compile(rb"[\[ \t\r\n]*[-0-9NI\]]")
_COLON = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*")
_SPACE = b" \t\r\n"
# More than a few objects with little text for each value are read faster once parsed: 1 µs a value against 5 µs.
_FEW = 4
_LITTLE = 256
# Values found in one go: about 2 ms.
_TOGETHER = 1 << 10
# More white space than this in one place is left to those who read any text in pieces.
_MUCH = 1 << 12


class Value(NamedTuple):
    """The value of a key, or a list without keys (`name` is None): a range of the body."""

    name: str | None
    start: int
    end: int


def values(
    body: bytes, start: int, end: int, row: bool, inputs: Mapping[str, TensorSpec]
) -> Generator[None, None, list[list[Value]] | None]:
    """For each object between two offsets its values, in the order of their keys; None if there is anything unusual.

    Columnar bodies have one object. A body without keys has one value, nameless. That the ranges hold values, and only
    numbers in them, is not checked here; all that is outside them is. Yields between many of them.
    """
    near = min(start + _MUCH, end)
    first_key = _FIRST_KEY[row].match(body, start, near)
    if first_key is None:
        return [[Value(None, start, end)]] if len(inputs) == 1 and _NUMBERS.match(body, start, near) else None
    # Names that JSON writes with a backslash are left to those who read backslashes.
    names = {name.encode(): name for name in inputs if name.isprintable() and '"' not in name and "\\" not in name}
    objects: list[list[Value]] = []
    found: list[Value] = []
    quote = first_key.end()
    done = 0
    while quote < end:
        done += 1
        if done % _TOGETHER == 0:
            yield
        closing = body.find(b'"', quote + 1, end)
        name = names.get(body[quote + 1 : closing]) if closing - quote < _MUCH else None
        colon = _COLON.match(body, closing + 1, min(closing + _MUCH, end))
        if name is None or colon is None or len(found) > len(names):
            return None
        quote = body.find(b'"', colon.end(), end)
        if quote < 0:
            quote = end
        brace = body.rfind(b"}", colon.end(), quote)
        stop = brace if brace >= 0 else body.rfind(b",", colon.end(), quote)
        found.append(Value(name, colon.end(), stop))
        if quote - stop > _MUCH:
            return None
        after = body[stop:quote].translate(None, _SPACE) if stop >= 0 else b""
        if brace >= 0:
            objects.append(found)
            found = []
            if len(objects) > _FEW and quote - start < _LITTLE * len(inputs) * len(objects):
                return None
        if after != (b"," if brace < 0 else (b"},{" if quote < end else b"}]") if row else b"}"):
            return None
    return None if found else objects
