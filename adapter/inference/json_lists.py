"""Long lists of numbers cut out of a JSON text, so that a parser that makes objects meets only what is left. No I/O.

    {"name": "x", "data": [1.5, 2.5, … ]}   ─►   {"name": "x", "data": "list 0 of this text"}   and where the list lies

The lists are `json_numbers`' to read. A name stands nowhere else in the text, so nobody can give one for a list.
"""

import re
from collections.abc import Generator, Mapping, Sequence
from typing import NamedTuple

from adapter.inference.turns import LARGE

# Lists shorter than this are parsed with the rest: there orjson is as fast.
LONG = 512
# Where more than this and a sixteenth of a text is left, cutting it is not worth the while; nor where it is `LARGE`.
_LEAST = 512
# Text that is looked through in one go, a key counting as so much more: about 2 ms.
_TOGETHER, _EACH = 1 << 20, 1 << 11
_VALUE_FOLLOWS = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*")
_NAME = "list %d of this text"
_NAMES = b" of this text"


class Span(NamedTuple):
    """Where a list lies in a text, and the key whose value it is."""

    start: int
    end: int
    key: bytes


class Cut(NamedTuple):
    """A JSON text with a name, as a string, in place of each long list; and where they lie."""

    text: bytes
    lists: Mapping[str, Span]


def without_long_lists(text: bytes, length: int, keys: Sequence[bytes]) -> Generator[None, None, Cut | None]:
    """The first bytes of a text without the long lists that are values of these keys, each given with its quotes.

    None if there are none, or much is left, or it can't be proved that a name stands for a list: with no backslash in what
    is left, a key before a colon is one, and as many names as lists are all ours. Nothing is searched for a key but what
    may be left, so hostile texts cost no more than others. Yields every few milliseconds.
    """
    may_be_left = min(LARGE, _LEAST + length // 16)
    lists: dict[str, Span] = {}
    parts: list[bytes] = []
    places = dict.fromkeys(keys, -1)
    searched = dict.fromkeys(keys, 0)
    done = position = work = 0
    while True:
        near = min(length, done + may_be_left)
        for key, place in places.items():
            if not position <= place < length:
                start = max(position, searched[key])
                place = text.find(key, start, near)
                if place < 0:
                    searched[key], place = max(start, near - len(key) + 1), length
                places[key] = place
        key = min(places, key=places.__getitem__) if len(places) > 1 else keys[0]
        if places[key] == length:
            break
        position = places[key] + len(key)
        work += _EACH
        colon = _VALUE_FOLLOWS.match(text, position, min(position + LONG, length))
        if colon is not None and text[colon.end() : colon.end() + 1] == b"[":
            start = colon.end()
            stop = yield from _stop(text, start, length)
            work += stop - start
            # What is between a list and the next key, or the end of its object, is white space and a comma.
            end = text.rfind(b"]", max(start, stop - LONG), stop) + 1
            if end - start >= LONG and text[end:stop].strip(b" \t\r\n") in (b"", b","):
                name = _NAME % len(lists)
                parts += (text[done:start], b'"%b"' % name.encode())
                lists[name] = Span(start, end, key)
                may_be_left -= start - done + len(name)
                done = position = end
        if work >= _TOGETHER:
            work = 0
            yield
    if not lists or near < length:
        return None
    parts.append(text[done:length])
    left = b"".join(parts)
    return None if b"\\" in left or left.count(_NAMES) != len(lists) else Cut(left, lists)


def _stop(text: bytes, start: int, length: int) -> Generator[None, None, int]:
    """Where the first quote or closing brace stands from an offset on, or else the end: no list of numbers goes further."""
    while start < length:
        near = min(start + _TOGETHER, length)
        quote = text.find(b'"', start, near)
        brace = text.find(b"}", start, near if quote < 0 else quote)
        if brace >= 0 or quote >= 0:
            return brace if brace >= 0 else quote
        start = near
        yield
    return length
