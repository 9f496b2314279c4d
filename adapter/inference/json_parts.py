"""A large JSON body in pieces that take a few milliseconds each, however it is made. No I/O.

A parser that is given sixty megabytes comes back when it has read them all. So the text is looked through first, a chunk
at a time, for the commas at each depth that are not in strings, and is then parsed from comma to comma, as lists of a few
values. A list too long for that is `Large`: its values are read when they are wanted and gone before the next are read,
so that a body never stands in memory as Python objects.

    {"instances": [ {"x":1},{"x":2}, … ,{"x":8} ]}       looked through: the first and the last comma of each depth
                    └────── piece ─────┘└─ piece           in a chunk; pieces end there

Each piece is parsed between the brackets that it stands in, all joints are commas, and no piece is empty: so the whole
is JSON where the pieces are. The rules are `json_scan`'s, one text after the other: what it takes beyond JSON is taken.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple, TypeVar

import numpy as np

from adapter.inference import json_scan, json_strings
from adapter.inference.base64 import decoded_in_steps
from adapter.inference.json_scan import Object
from adapter.inference.json_strings import LongText
from adapter.inference.tensor import Array, BadInput
from adapter.joining import joined

T = TypeVar("T")
Steps = Generator[None, None, T]

# Text looked through in one go; what is parsed in one go is at most twice as long, or a piece of a string.
CHUNK = 1 << 15
# Chunks looked through in a step: about 2 ms.
_TOGETHER = 8
_LONGEST_NUMBER = _LONGEST_KEY = 1 << 16
# Lists deeper than this are not cut, and refused where they are too long for one piece: no tensor is so deep.
_CUT_DEPTH = 72
# About where the parsers give up, too.
_MAX_DEPTH = 1000
_CLOSING = {b"[": b"]", b"{": b"}"}

_OPEN, _CLOSE, _COMMA, _COLON, _QUOTE = range(1, 6)
_KIND_OF = {b"[": _OPEN, b"{": _OPEN, b"]": _CLOSE, b"}": _CLOSE, b",": _COMMA, b":": _COLON, b'"': _QUOTE}
_KINDS = bytes(_KIND_OF.get(bytes((character,)), 0) for character in range(256))


class Large(list[Any]):
    """A list that is too long to be parsed in one go, between two offsets of a text. As a list, it is empty."""

    __slots__ = ("_depth", "_end", "_outline", "_start")

    def __init__(self, outline: "_Outline", start: int, end: int, depth: int) -> None:
        super().__init__()
        self._outline, self._start, self._end, self._depth = outline, start, end, depth

    def pieces(self) -> "Iterator[Steps[list[Any]]]":
        """Readers of its values, some at a time, to be run one after the other.

        A value that is too long itself comes alone; it is `Large`, or an object that holds such lists.
        """
        ranges = self._outline.ranges(self._start, self._end, self._depth)
        return (self._outline.values(start, end, self._depth) for start, end in ranges)


def pieces(values: list[Any]) -> "Iterator[Steps[list[Any]]]":
    """The same of any list."""
    return values.pieces() if isinstance(values, Large) else iter((_at_hand(values),))


def _at_hand(values: list[Any]) -> Steps[list[Any]]:
    yield from ()
    return values


class NoObject(BadInput):
    """A body is JSON, but no object."""

    def __init__(self, value: Any) -> None:
        self.echo = json_scan.echo(value)
        super().__init__(f"JSON Value: {self.echo} Is not object")


class Rules(NamedTuple):
    """What is JSON: how a piece is parsed, and whether a text is `strict`ly one value, or as TensorFlow Serving has it.

    That is: a byte order mark before it, anything after it, and of a key given twice the first counts, not the last.
    """

    whole: Callable[[bytes], Any]
    strict: bool


TFS = Rules(json_scan.whole, False)


def read(body: bytes, rules: Rules = TFS) -> Steps[Object]:
    """The top-level object of a body; what is too long in it to be parsed in one go is `Large`, or `LongText`.

    Raises:
        BadInput: it has none, or it is not JSON; `Large` lists say so when they are read.
    """
    start = 3 if body.startswith(b"\xef\xbb\xbf") and not rules.strict else 0
    start = yield from _skipped(body, start, len(body))
    opening = body[start : start + 1]
    if opening not in _CLOSING:
        return json_scan.load(body[start : start + CHUNK])  # which is no object, and refused
    outline = _Outline(body, rules)
    end = yield from outline.look_through(start)
    if rules.strict and (yield from _skipped(body, end, len(body))) < len(body):
        raise (yield from outline.wrong("there is more after the end of the object", end))
    value = yield from outline.value(start, end, 0)
    if isinstance(value, Large):
        value = yield from next(value.pieces())
    if not isinstance(value, dict):
        raise NoObject(value)
    return value


def materialized(value: Any) -> Steps[Any]:
    """A value with all lists in it read, and all strings plain ones."""
    if isinstance(value, Large):
        found: list[Any] = []
        for piece in value.pieces():
            values = yield from piece
            found += values if len(values) > 1 else [(yield from materialized(values[0]))]
        return found
    if isinstance(value, dict):
        for key, member in value.items():
            if isinstance(member, Large | dict | LongText):
                value[key] = yield from materialized(member)
    return value.whole() if type(value) is LongText else value


def check(value: Any) -> Steps[None]:
    """Read a value that nobody wants to its end. Raises BadInput where it is not JSON."""
    if isinstance(value, Large):
        for piece in value.pieces():
            values = yield from piece
            if len(values) == 1:
                yield from check(values[0])
    elif isinstance(value, dict):
        for member in value.values():
            if isinstance(member, Large | dict):
                yield from check(member)


class _Outline:
    """Where a text can be cut: for each depth, the first and the last comma and colon in each chunk."""

    def __init__(self, text: bytes, rules: Rules) -> None:
        self._text, self._rules = text, rules
        self._commas: list[list[int]] = [[] for _ in range(_CUT_DEPTH)]
        self._colons: list[list[int]] = [[] for _ in range(_CUT_DEPTH)]

    # Looking through.

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
                    raise BadInput(json_scan.TOO_DEEP)
                self._note(places + begin, kinds, depths)
                count += int(np.count_nonzero((kinds == _OPEN) | (kinds == _COMMA)))
                if count > json_scan.MOST_VALUES:
                    raise json_scan.too_many()
            if (begin - start) // CHUNK % _TOGETHER == _TOGETHER - 1:
                yield
        raise (yield from self.wrong("the body ends in the middle of a value", len(text)))

    def _note(self, places: Array, kinds: Array, depths: Array) -> None:
        for kind, noted in ((_COMMA, self._commas), (_COLON, self._colons)):
            chosen = kinds == kind
            of_kind, at = places[chosen], depths[chosen]
            if not len(at):
                continue
            for level in range(int(at.min()), min(int(at.max()) + 1, _CUT_DEPTH)):
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

    # Parsing.

    def value(self, start: int, end: int, depth: int) -> Steps[Any]:
        """The one value between two offsets, `depth` being the depth around it."""
        start, end = yield from _stripped(self._text, start, end)
        opening = self._text[start : start + 1]
        closing = _CLOSING.get(opening)
        if end - start <= 2 * CHUNK:
            return (yield from self._parsed(start, end, b"%b"))
        if closing is None:
            return (yield from self._long_text(start, end) if opening == b'"' else self._long_number(start, end))
        if self._text[end - 1 : end] != closing:
            raise (yield from self.wrong("no end of a list or object", start))
        if depth + 1 >= _CUT_DEPTH:
            raise BadInput(json_scan.TOO_DEEP)
        if (yield from _skipped(self._text, start + 1, end)) == end - 1:
            return [] if opening == b"[" else {}
        if opening == b"[":
            return Large(self, start, end, depth + 1)
        members: Object = {}
        seen = 0
        for first, last in self.ranges(start, end, depth + 1):
            more = yield from self._members(first, last, depth + 1)
            seen += len(more)
            if self._rules.strict:
                members.update(more)
            else:
                for key, member in more.items():
                    members.setdefault(key, member)
        return members if len(members) == seen or self._rules.strict else json_scan.Repeated(members)

    def values(self, start: int, end: int, depth: int) -> Steps[list[Any]]:
        """The values of a list that stand between two offsets inside it."""
        if end - start > 2 * CHUNK:
            return [(yield from self.value(start, end, depth))]
        values = yield from self._parsed(start, end, b"[%b]")
        if not values:
            raise (yield from self.wrong("no value between commas", start))
        return values  # type: ignore[no-any-return]

    def _members(self, start: int, end: int, depth: int) -> Steps[Object]:
        if end - start <= 2 * CHUNK:
            members = yield from self._parsed(start, end, b"{%b}")
            if not members:
                raise (yield from self.wrong("no member between commas", start))
            return members  # type: ignore[no-any-return]
        colons = self._colons[depth]
        index = bisect_left(colons, start)
        if index == len(colons) or colons[index] >= end:
            raise (yield from self.wrong("no colon after a key", start))
        first, last = yield from _stripped(self._text, start, colons[index])
        if last - first > _LONGEST_KEY:
            raise BadInput(f"JSON Parse error: a key of {last - first} bytes")
        key = yield from self._parsed(first, last, b"%b")
        if type(key) is not str:
            raise (yield from self.wrong("no string for a key", start))
        value = yield from self.value(colons[index] + 1, end, depth)
        if key == "b64" and type(value) is LongText:
            # Most likely this is what it is for. Whoever wants the bytes finds them, and needs no steps.
            value.decoded = yield from decoded_in_steps(value)
        return {key: value}

    def _long_text(self, start: int, end: int) -> Steps[str]:
        """The one string between two offsets, piece by piece: each is a string, so there is no other quote in it."""
        if end - start <= json_strings.PIECE:
            return (yield from self._parsed(start, end, b"%b"))  # type: ignore[no-any-return]
        last = self._text.rfind(b'"', start, end)
        found = []
        begin = start + 1
        while begin < last:
            stop = json_strings.cut(self._text, begin, last)
            found.append((yield from self._parsed(begin, stop, b'"%b"')).encode())
            begin = stop
        if last + 1 < end:
            more = yield from _skipped(self._text, last + 1, end)
            yield from self._parsed(more, more + 1, b'""%b')  # which is no value, and refused
        return LongText((yield from joined(found)))

    def _long_number(self, start: int, end: int) -> Steps[Any]:
        """What is neither a list or object nor a string."""
        if end - start > _LONGEST_NUMBER:
            raise BadInput("JSON Parse error: Number too big to be stored in double.")
        return (yield from self._parsed(start, end, b"%b"))

    def _parsed(self, start: int, end: int, between: bytes) -> Steps[Any]:
        try:
            return self._rules.whole(between % self._text[start:end])
        except BadInput as error:
            said, _, offset = str(error).partition(" at offset: ")
            if not offset:
                raise
            wrong = int(offset) - between.index(b"%")
        finally:
            yield
        raise (yield from self.wrong(said.removeprefix("JSON Parse error: "), start, wrong))

    def wrong(self, what: str, start: int, more: int = 0) -> Steps[BadInput]:
        """What is wrong `more` characters after an offset."""
        characters = more
        for begin in range(0, start, 1 << 20):
            octets = np.frombuffer(self._text, np.uint8, min(1 << 20, start - begin), begin)
            characters += int(np.count_nonzero((octets & 0xC0) != 0x80))
            yield
        return BadInput(f"JSON Parse error: {what} at offset: {characters}")


def _stripped(text: bytes, start: int, end: int) -> Steps[tuple[int, int]]:
    """The range without the white space at its ends."""
    start = yield from _skipped(text, start, end)
    while end > start and text[end - 1] in json_scan.WHITE:
        before = max(start, end - CHUNK)
        end = before + len(text[before:end].rstrip(json_scan.WHITE))
        if end == before:
            yield
    return start, end


def _skipped(text: bytes, start: int, end: int) -> Steps[int]:
    """Where white space ends."""
    while start < end and text[start] in json_scan.WHITE:
        after = min(end, start + CHUNK)
        start = after - len(text[start:after].lstrip(json_scan.WHITE))
        if start == after:
            yield
    return start
