"""Long lists of numbers cut out of a JSON text, so that a parser that makes objects meets only what is left. No I/O.

{"name": "x", "data": [1.5, 2.5, … ]}   ─►   {"name": "x", "data": "list 0 of this text"}   and where the list lies
"""

import re
from collections.abc import Generator, Mapping, Sequence
from typing import NamedTuple

from adapter.inference.turns import LARGE

# Lists shorter than this are parsed with the rest: there orjson is as fast.
LONG = 512
# Keys that are looked at in one go: about 2 ms.
_TOGETHER = 1 << 10
# Text that is looked through for a key in one go: about 2 ms.
_LOOKED_AT = 1 << 21
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

    None if there are none, or still much is left, or it can't be proved that a name stands for a list: with no backslash
    in what is left, a key before a colon is one, and as many names as lists are all ours.
    """
    lists: dict[str, Span] = {}
    parts: list[bytes] = []
    places = dict.fromkeys(keys, -1)
    done = position = looked_at = 0
    while True:
        for key, place in places.items():
            if place < position:
                places[key] = yield from _found(text, key, position, length)
        key = min(places, key=places.__getitem__) if len(places) > 1 else keys[0]
        position = places[key] + len(key)
        if position > length:
            break
        looked_at += 1
        if looked_at % _TOGETHER == 0:
            yield
        colon = _VALUE_FOLLOWS.match(text, position, min(position + LONG, length))
        if colon is None or text[colon.end() : colon.end() + 1] != b"[":
            continue
        start = colon.end()
        quote = text.find(b'"', start, length)
        brace = text.find(b"}", start, quote if quote >= 0 else length)
        stop = max(brace, quote) if min(brace, quote) < 0 else min(brace, quote)
        end = text.rfind(b"]", start, stop) + 1
        if end - start >= LONG and stop - end < LONG and text[end:stop].strip(b" \t\r\n") in (b"", b","):
            name = _NAME % len(lists)
            parts += (text[done:start], b'"%b"' % name.encode())
            lists[name] = Span(start, end, key)
            done = position = end
    if not lists or sum(map(len, parts)) + length - done >= LARGE:
        return None
    parts.append(text[done:length])
    left = b"".join(parts)
    return None if b"\\" in left or left.count(_NAMES) != len(lists) else Cut(left, lists)


def _found(text: bytes, key: bytes, position: int, length: int) -> Generator[None, None, int]:
    """Where a key stands, from a position on; `length` where it does not."""
    while (near := position + _LOOKED_AT) < length:
        found = text.find(key, position, near)
        if found >= 0:
            return found
        position = near - len(key) + 1
        yield
    found = text.find(key, position, length)
    return found if found >= 0 else length
