"""Any body to Python objects, as TensorFlow Serving's parser (rapidjson) would read it. No I/O, no tensors.

What it takes beyond RFC 8259: a byte order mark, text after the top-level object, and the numbers `NaN`, `Inf` and
`Infinity`, with or without a minus. Where a key is given twice the first one counts (`Repeated`). Most bodies need none of this
and go through orjson, which is far faster than the standard library's scanner but keeps the last of two equal keys.
"""

import json
import math
import re
from collections.abc import Iterable
from itertools import islice
from typing import Any

import orjson

from adapter.inference.tensor import BadInput, TooMuch

Object = dict[str, Any]

# Python objects take thirty times the room of their text; no body may take more than about 200 MB.
MOST_VALUES = 2_000_000
# Values of one object beyond the first of their keys: far more than anyone writes by hand, and read in a few milliseconds.
MOST_REPEATED = 10_000

# A string, or a word to replace outside strings. An unclosed string reaches to the end, so that this is linear.
_WORDS = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\Z)|-?Inf(?:inity)?|-NaN', re.DOTALL)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_KEY = re.compile(rb'"[ \t\r\n]*:')
_SPACE = re.compile(r"[ \t\r\n]*")
_ECHO = 256
_TYPES = {type(None): "Null", int: "Number", float: "Number"}
WHITE = b" \t\r\n"
TOO_DEEP = "JSON Parse error: nested too deeply"


class Repeated(dict[str, Any]):
    """An object in which some key stood twice; it holds the first value of each, and `later` all others, in their order."""

    def __init__(self, first: Object, later: list[tuple[str, Any]]) -> None:
        super().__init__(first)
        self.later = later


def load(body: bytes) -> Object:
    """The top-level object of a body; BadInput if there is none."""
    if not body:
        raise BadInput("JSON Parse error: The document is empty")
    if len(body) > MOST_VALUES and _has_too_many_values(body):
        raise too_many()
    tree = _parsed(body, alone=False)
    if not isinstance(tree, dict):
        raise BadInput(f"JSON Value: {echo(tree)} Is not object")
    return tree


def _has_too_many_values(body: bytes) -> bool:
    count = 0
    for character in (b",", b"[", b"{"):
        count += body.count(character)
        if count > MOST_VALUES:
            return True
    return False


def too_many() -> TooMuch:
    """What is said of more than `MOST_VALUES` values."""
    return TooMuch(f"More than {MOST_VALUES} values are taken only if all are numbers, in lists of equal length")


def whole(text: bytes) -> Any:
    """The JSON value that a text is; BadInput if it is none, or more than one."""
    return _parsed(text, alone=True)


def value(text: bytes) -> Any:
    """The JSON value without objects that a text is; BadInput if it is none, or more than one."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return _scan(text, True)


def _parsed(text: bytes, *, alone: bool) -> Any:
    """The JSON value that a text is, or, unless it is to be `alone`, that it begins with."""
    try:
        tree = orjson.loads(text)
    except orjson.JSONDecodeError:
        return _scan(text, alone)
    return tree if _each_key_stands_once(tree, text) else _scan(text, alone)


def _each_key_stands_once(tree: Any, body: bytes) -> bool:
    """True if the objects of the tree have as many keys as the text has at most: colons, or colons after a quote."""
    colons = body.count(b":")
    keys = 0
    level = [tree]
    while level and keys < colons:
        objects = [value for value in level if type(value) is dict]
        keys += sum(map(len, objects))
        if keys == colons:
            return True
        below = [value for value in level if type(value) is list]
        below += [list(value.values()) for value in objects]
        level = [item for items in below if not {dict, list}.isdisjoint(map(type, items)) for item in items]
    return keys == len(_KEY.findall(body))


def _scan(body: bytes, whole: bool) -> Any:
    text = body.decode("utf-8-sig", "surrogateescape")
    given = text
    try:
        if "Inf" in text or "-NaN" in text:
            text = _WORDS.sub(_standard_word, text)
        start = _SPACE.match(text).end()  # type: ignore[union-attr]  # it matches everything
        tree, end = _DECODER.raw_decode(text, start)
        if whole and text[end:].strip(" \t\r\n"):
            raise BadInput("JSON Parse error: there is more after the end of a value")
        text = text[start:end]
        if not _is_unicode(text):
            raise BadInput("JSON Parse error: the body is not UTF-8")
        if _SURROGATE.search(text) and not _is_unicode(json.dumps(tree, ensure_ascii=False)):
            raise BadInput("JSON Parse error: The surrogate pair in string is invalid.")
    except json.JSONDecodeError as error:
        raise BadInput(f"JSON Parse error: {error.msg} at offset: {_before_words(given, error.pos)}") from None
    except (RecursionError, MemoryError):
        raise TooMuch(TOO_DEEP) from None
    return tree


def _is_unicode(text: str) -> bool:
    """False where half a surrogate pair stands alone, be it escaped in JSON or what Python makes of invalid UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _standard_word(match: re.Match[str]) -> str:
    word = match[0]
    if word[0] == '"':
        return word
    return "NaN" if word == "-NaN" else "-Infinity" if word[0] == "-" else "Infinity"


def _before_words(text: str, position: int) -> int:
    """Where in a text that stands which is at a position once its words are standard ones."""
    grown = 0
    for match in _WORDS.finditer(text):
        if match.start() + grown >= position:
            break
        grown += len(_standard_word(match)) - len(match[0])
    return position - grown


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise BadInput("JSON Parse error: Number too big to be stored in double.")
    return value


def _integer(text: str) -> int | float:
    """Integers beyond 64 bits are doubles, as in rapidjson and orjson."""
    if len(text) < 19:
        return int(text)
    if len(text) <= 20 and -(1 << 63) <= (value := int(text)) < 1 << 64:
        return value
    return _float(text)


def _object(pairs: list[tuple[str, Any]]) -> Object:
    members = dict(pairs)
    if len(members) == len(pairs):
        return members
    first: Object = {}
    later: list[tuple[str, Any]] = []
    add(pairs, first, later)
    return Repeated(first, later)


def add(pairs: Iterable[tuple[str, Any]], members: Object, later: list[tuple[str, Any]]) -> None:
    """Add to an object the members that it has not, and to `later` those whose key it has.

    Raises:
        TooMuch: these are more than `MOST_REPEATED` now.
    """
    for key, value in pairs:
        if key in members:
            later.append((key, value))
        else:
            members[key] = value
    if len(later) > MOST_REPEATED:
        raise TooMuch(f"More than {MOST_REPEATED} keys that an object has already are not taken")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_float, parse_int=_integer)


def echo(value: Any) -> str:
    """The beginning of a JSON value, to remind a client of what it sent."""
    text = json.dumps(_beginning(value, 4), ensure_ascii=False)
    return text if len(text) <= _ECHO else text[:_ECHO] + "..."


def type_name(value: Any) -> str:
    """What rapidjson calls the type of a JSON value."""
    if isinstance(value, list):
        return "Array"
    if isinstance(value, str):
        return "String"
    return str(value) if type(value) is bool else _TYPES.get(type(value), "Object")


def _beginning(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return value[: _ECHO + 1]
    if isinstance(value, list):
        return [_beginning(item, depth - 1) for item in value[:16]] if depth else []
    if isinstance(value, dict):
        return {key[:_ECHO]: _beginning(value[key], depth - 1) for key in islice(value, 16)} if depth else {}
    return value
