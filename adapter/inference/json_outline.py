"""Where a large JSON text can be cut, found without parsing it. No I/O.

The text is looked through a chunk at a time, with numpy: what in it is a bracket, a comma, a colon or a quote, which of
them stand in strings, and how deep the others are. Of the commas and colons of each depth the first and the last in a
chunk are noted, so an outline is small however long its text is.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Generator, Iterator
from typing import TypeVar

import numpy as np

from adapter.inference import json_scan
from adapter.inference.tensor import Array, BadInput, TooMuch

T = TypeVar("T")
Steps = Generator[None, None, T]

# Text looked through in one go; what is parsed in one go is at most twice as long, or a piece of a string.
CHUNK = 1 << 15
# Chunks looked through in a step: about 2 ms.
_TOGETHER = 8
# Lists deeper than this are not cut, and refused where they are too long for one piece: no tensor is so deep.
CUT_DEPTH = 72
# About where the parsers give up, too.
_MAX_DEPTH = 1000

_OPEN, _CLOSE, _COMMA, _COLON, _QUOTE = range(1, 6)
_KIND_OF = {b"[": _OPEN, b"{": _OPEN, b"]": _CLOSE, b"}": _CLOSE, b",": _COMMA, b":": _COLON, b'"': _QUOTE}
_KINDS = bytes(_KIND_OF.get(bytes((character,)), 0) for character in range(256))


class Outline:
    """For each depth of a text, the first and the last comma and colon in each chunk."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._commas: list[list[int]] = [[] for _ in range(CUT_DEPTH)]
        self._colons: list[list[int]] = [[] for _ in range(CUT_DEPTH)]

    def look_through(self, start: int) -> Steps[int]:
        """Where the value that starts at an offset ends."""
        text = self._text
        inside = escaped = False
        depth = count = 0
        for begin in range(start, len(text), CHUNK):
            chunk = text[begin : begin + CHUNK]
            if escaped:
                chunk = b"_" + chunk[1:]
            escaped = False
            if b"\\" in chunk:
                chunk = chunk.replace(b"\\\\", b"__").replace(b'\\"', b"__")
                escaped = chunk.endswith(b"\\")
            marks: Array = np.frombuffer(chunk.translate(_KINDS), np.uint8)
            places = np.flatnonzero(marks != 0)
            kinds = marks[places]
            quotes = kinds == _QUOTE
            if inside or quotes.any():
                strings = np.bitwise_xor.accumulate(quotes) ^ inside
                inside = bool(strings[-1]) if len(strings) else inside
                outside = ~(strings | quotes)
                places, kinds = places[outside], kinds[outside]
            if len(places):
                deeper = (kinds == _OPEN).view(np.int8) - (kinds == _CLOSE).view(np.int8)
                depths = np.cumsum(deeper, dtype=np.int32) + depth
                depth = int(depths[-1])
                if depths.min() <= 0:
                    last = int(np.argmax(depths <= 0))
                    self._note(places[:last] + begin, kinds[:last], depths[:last])
                    return begin + int(places[last]) + 1
                if depths.max() > _MAX_DEPTH:
                    raise TooMuch(json_scan.TOO_DEEP)
                self._note(places + begin, kinds, depths)
                count += int(np.count_nonzero((kinds == _OPEN) | (kinds == _COMMA)))
                if count > json_scan.MOST_VALUES:
                    raise json_scan.too_many()
            if (begin - start) // CHUNK % _TOGETHER == _TOGETHER - 1:
                yield
        raise (yield from wrong(text, "the body ends in the middle of a value", len(text)))

    def _note(self, places: Array, kinds: Array, depths: Array) -> None:
        for kind, noted in ((_COMMA, self._commas), (_COLON, self._colons)):
            chosen = kinds == kind
            of_kind, at = places[chosen], depths[chosen]
            if not len(at):
                continue
            for level in range(int(at.min()), min(int(at.max()) + 1, CUT_DEPTH)):
                here = at == level
                first = int(here.argmax())
                if here[first]:
                    last = len(here) - 1 - int(here[::-1].argmax())
                    noted[level] += of_kind[[first, last] if last > first else [first]].tolist()

    def ranges(self, start: int, end: int, depth: int) -> Iterator[tuple[int, int]]:
        """Where the pieces lie of the list or object that is between two offsets, its brackets included.

        A piece that is longer than two chunks is a single value, or member.
        """
        commas = self._commas[depth]
        begin = before = start + 1
        for index in range(bisect_right(commas, start), bisect_left(commas, end)):
            comma = commas[index]
            if comma - before > CHUNK:  # one value, however long
                if before > begin:
                    yield begin, before - 1
                yield before, comma
                begin = comma + 1
            elif comma - begin >= CHUNK:
                yield begin, comma
                begin = comma + 1
            before = comma + 1
        if end - 1 - before > CHUNK and before > begin:
            yield begin, before - 1
            begin = before
        yield begin, end - 1

    def colon(self, start: int, end: int, depth: int) -> int:
        """Where the colon stands of the member between two offsets; negative where there is none."""
        colons = self._colons[depth]
        index = bisect_left(colons, start)
        return colons[index] if index < len(colons) and colons[index] < end else -1


def wrong(text: bytes, what: str, start: int, more: int = 0) -> Steps[BadInput]:
    """What is wrong `more` characters after an offset."""
    characters = more
    for begin in range(0, start, 1 << 20):
        octets = np.frombuffer(text, np.uint8, min(1 << 20, start - begin), begin)
        characters += int(np.count_nonzero((octets & 0xC0) != 0x80))
        yield
    return BadInput(f"JSON Parse error: {what} at offset: {characters}")


def stripped(text: bytes, start: int, end: int) -> Steps[tuple[int, int]]:
    """The range without the white space at its ends."""
    start = yield from skipped(text, start, end)
    while end > start and text[end - 1] in json_scan.WHITE:
        before = max(start, end - CHUNK)
        end = before + len(text[before:end].rstrip(json_scan.WHITE))
        if end == before:
            yield
    return start, end


def skipped(text: bytes, start: int, end: int) -> Steps[int]:
    """Where white space ends."""
    while start < end and text[start] in json_scan.WHITE:
        after = min(end, start + CHUNK)
        start = after - len(text[start:after].lstrip(json_scan.WHITE))
        if start == after:
            yield
    return start
