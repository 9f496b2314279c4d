"""A large JSON body in pieces that take a few milliseconds each, however it is made. No I/O.

A parser that is given sixty megabytes comes back when it has read them all. So the text is looked through first, a chunk
at a time, for where it can be cut (`json_outline`), and is then parsed from comma to comma, as lists of a few values. A
list too long for that is `Large`: its values are read when they are wanted and gone before the next are read, so that a
body never stands in memory as Python objects.

    {"instances": [ {"x":1},{"x":2}, … ,{"x":8} ]}       looked through: the first and the last comma of each depth
                    └────── piece ─────┘└─ piece           in a chunk; pieces end there

Each piece is parsed between the brackets that it stands in, all joints are commas, and no piece is empty: so the whole
is JSON where the pieces are. The rules are `json_scan`'s, one text after the other: what it takes beyond JSON is taken.
"""

from collections.abc import Callable, Collection, Iterator
from itertools import chain
from typing import Any, NamedTuple

from adapter.inference import json_outline, json_scan, json_strings
from adapter.inference.base64 import decoded_in_steps
from adapter.inference.json_outline import CUT_DEPTH, Outline, Steps, skipped, stripped, wrong
from adapter.inference.json_scan import Object, Repeated
from adapter.inference.json_strings import LongText
from adapter.inference.tensor import BadInput, TooMuch
from adapter.joining import joined

_LONGEST_NUMBER = _LONGEST_KEY = 1 << 16
_CLOSING = {b"[": b"]", b"{": b"}"}
# Members of an object that are looked at in one go: about 2 ms.
_TOGETHER = 1 << 14


class Large(list[Any]):
    """A list that is too long to be parsed in one go, between two offsets of a text. As a list, it is empty."""

    __slots__ = ("_depth", "_end", "_reader", "_start")

    def __init__(self, reader: "_Reader", start: int, end: int, depth: int) -> None:
        super().__init__()
        self._reader, self._start, self._end, self._depth = reader, start, end, depth

    def pieces(self) -> Iterator[Steps[list[Any]]]:
        """Readers of its values, some at a time, to be run one after the other.

        A value that is too long itself comes alone; it is `Large`, or an object that holds such lists.
        """
        return self._reader.pieces(self._start, self._end, self._depth)


_NESTED = (Large, dict)
_IN_PARTS = (Large, dict, LongText)


def pieces(values: list[Any]) -> Iterator[Steps[list[Any]]]:
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
    start = yield from skipped(body, start, len(body))
    opening = body[start : start + 1]
    if opening not in _CLOSING:
        return json_scan.load(body[start : start + json_outline.CHUNK])  # which is no object, and refused
    outline = Outline(body)
    end = yield from outline.look_through(start)
    if rules.strict and (yield from skipped(body, end, len(body))) < len(body):
        raise (yield from wrong(body, "there is more after the end of the object", end))
    value = yield from _Reader(body, rules, outline).value(start, end, 0)
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
        for done, (key, member) in enumerate(value.items(), 1):
            if isinstance(member, _IN_PARTS):
                value[key] = yield from materialized(member)
            if done % _TOGETHER == 0:
                yield
    return value.whole() if type(value) is LongText else value


def check(value: Any, wanted: Collection[str] = ()) -> Steps[None]:
    """Read a value to its end, but for the members that somebody else reads. Raises BadInput where it is not JSON."""
    if isinstance(value, Large):
        for piece in value.pieces():
            values = yield from piece
            if len(values) == 1:
                yield from check(values[0])
    elif isinstance(value, dict):
        later = value.later if type(value) is Repeated else ()
        members = chain((item for item in value.items() if item[0] not in wanted), later)
        for done, (_, member) in enumerate(members, 1):
            if isinstance(member, _NESTED):
                yield from check(member)
            if done % _TOGETHER == 0:
                yield


class _Reader:
    """Parses a text between the places where its outline can be cut."""

    def __init__(self, text: bytes, rules: Rules, outline: Outline) -> None:
        self._text, self._rules, self._outline = text, rules, outline

    def pieces(self, start: int, end: int, depth: int) -> Iterator[Steps[list[Any]]]:
        """Readers of the values of the list between two offsets, `depth` being the depth in it."""
        return (self.values(first, last, depth) for first, last in self._outline.ranges(start, end, depth))

    def value(self, start: int, end: int, depth: int) -> Steps[Any]:
        """The one value between two offsets, `depth` being the depth around it."""
        start, end = yield from stripped(self._text, start, end)
        opening = self._text[start : start + 1]
        closing = _CLOSING.get(opening)
        if end - start <= 2 * json_outline.CHUNK:
            return (yield from self._parsed(start, end, b"%b"))
        if closing is None:
            return (yield from self._long_text(start, end) if opening == b'"' else self._long_number(start, end))
        if self._text[end - 1 : end] != closing:
            raise (yield from wrong(self._text, "no end of a list or object", start))
        if depth + 1 >= CUT_DEPTH:
            raise TooMuch(json_scan.TOO_DEEP)
        if (yield from skipped(self._text, start + 1, end)) == end - 1:
            return [] if opening == b"[" else {}
        if opening == b"[":
            return Large(self, start, end, depth + 1)
        members: Object = {}
        later: list[tuple[str, Any]] = []
        for first, last in self._outline.ranges(start, end, depth + 1):
            more = yield from self._members(first, last, depth + 1)
            if self._rules.strict:
                members.update(more)
            else:
                json_scan.add(more.items(), members, later)
                if type(more) is Repeated:
                    json_scan.add(more.later, members, later)
        return Repeated(members, later) if later else members

    def values(self, start: int, end: int, depth: int) -> Steps[list[Any]]:
        """The values of a list that stand between two offsets inside it."""
        if end - start > 2 * json_outline.CHUNK:
            return [(yield from self.value(start, end, depth))]
        values = yield from self._parsed(start, end, b"[%b]")
        if not values:
            raise (yield from wrong(self._text, "no value between commas", start))
        return values  # type: ignore[no-any-return]

    def _members(self, start: int, end: int, depth: int) -> Steps[Object]:
        if end - start <= 2 * json_outline.CHUNK:
            members = yield from self._parsed(start, end, b"{%b}")
            if not members:
                raise (yield from wrong(self._text, "no member between commas", start))
            return members  # type: ignore[no-any-return]
        colon = self._outline.colon(start, end, depth)
        if colon < 0:
            raise (yield from wrong(self._text, "no colon after a key", start))
        first, last = yield from stripped(self._text, start, colon)
        if last - first > _LONGEST_KEY:
            raise TooMuch(f"JSON Parse error: a key of {last - first} bytes")
        key = yield from self._parsed(first, last, b"%b")
        if type(key) is not str:
            raise (yield from wrong(self._text, "no string for a key", start))
        value = yield from self.value(colon + 1, end, depth)
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
            more = yield from skipped(self._text, last + 1, end)
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
            more = int(offset) - between.index(b"%")
        finally:
            yield
        raise (yield from wrong(self._text, said.removeprefix("JSON Parse error: "), start, more))
