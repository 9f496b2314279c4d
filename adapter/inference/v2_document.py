"""The JSON of an inference request, read with what is long in it left where it lies. No I/O.

Lists of numbers under a key `data` are cut out of the text before it is parsed, and read later, straight into an array.
Where it can't be proved that this is the same, and where a mistake is found in one, the text is parsed whole, in pieces
if it is large.

    {"inputs": [{"name": "x", …, "data": [1.5, 2.5, … ]}]}  ─►  {"inputs": [{"name": "x", …, "data": 0}]}, spans[0]
"""

import re
from collections.abc import Generator, Mapping
from typing import Any

import orjson

from adapter.inference import json_parts
from adapter.inference.json_parts import Large
from adapter.inference.json_scan import echo
from adapter.inference.tensor import BadInput
from adapter.inference.turns import LARGE, at_once

Object = Mapping[str, Any]
Span = tuple[int, int]
"""Where a list lies in a text."""

# Lists of numbers shorter than this are parsed with the rest: there orjson is as fast.
_LONG = 512
_DATA = b'"data"'
# Keys that are looked at in one go: about 2 ms.
_TOGETHER = 1 << 10
# Text that is looked through for a key in one go: about 2 ms.
_LOOKED_AT = 1 << 21
_VALUE_FOLLOWS = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*")
# Strings, and what Python's writers and others put for the numbers that JSON does not have.
_BARE = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\Z)|-?Infinity|NaN', re.DOTALL)


def read(text: bytes, length: int) -> tuple[Object, list[Span]]:
    """The JSON object in the first bytes of a text, and its long lists, in place of which it has their numbers.

    Raises:
        BadInput: it is not JSON, or no object.
    """
    cut = at_once(_without_long_lists(text, length)) if length >= _LONG else None
    return (_load(text, length), []) if cut is None else cut


def read_in_steps(text: bytes, length: int) -> Generator[None, None, tuple[Object, list[Span]]]:
    """The same of a large text: yields every few milliseconds."""
    cut = yield from _without_long_lists(text, length)
    return ((yield from loaded(text, length)), []) if cut is None else cut


def _load(body: bytes, end: int) -> Object:
    text, what = (body, "The body") if end == len(body) else (body[:end], f"The first {end} bytes of the body")
    try:
        tree = _parsed(text)
    except orjson.JSONDecodeError as error:
        raise BadInput(f"{what}: expected JSON, {error}") from None
    if type(tree) is not dict:
        raise BadInput(f"{what}: expected an object, got {echo(tree)}")
    return tree


def loaded(body: bytes, end: int) -> Generator[None, None, Object]:
    """All of the object, in pieces if there is much of it: lists under the keys `data` may be `Large`. Raises as `read`."""
    if end < LARGE:
        return _load(body, end)
    text, what = (body, "The body") if end == len(body) else (body[:end], f"The first {end} bytes of the body")
    try:
        tree = yield from json_parts.read(text, RULES)
        for key in tree:
            tree[key] = yield from (_listed(tree[key]) if key == "inputs" else json_parts.materialized(tree[key]))
    except json_parts.NoObject as error:
        raise BadInput(f"{what}: expected an object, got {error.echo}") from None
    except BadInput as error:
        raise BadInput(f"{what}: expected JSON, {str(error).removeprefix('JSON Parse error: ')}") from None
    return tree


def _listed(inputs: Any) -> Generator[None, None, Any]:
    """The inputs of a request, with what is long in their data left as it is."""
    if not isinstance(inputs, list):
        return (yield from json_parts.materialized(inputs))
    found: list[Any] = []
    for piece in json_parts.pieces(inputs):
        for given in (yield from piece):
            if type(given) is dict and type(given.get("data")) is Large:
                data = given.pop("data")
                found.append({**(yield from json_parts.materialized(given)), "data": data})
            else:
                found.append((yield from json_parts.materialized(given)))
    return found


def _parsed(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if b"NaN" not in text and b"Infinity" not in text:
            raise
        try:
            return orjson.loads(_BARE.sub(_quoted, text))
        except orjson.JSONDecodeError:
            raise error from None


def _piece(text: bytes) -> Any:
    try:
        return _parsed(text)
    except orjson.JSONDecodeError as error:
        raise BadInput(f"JSON Parse error: {error.msg} at offset: {error.pos}") from None


RULES = json_parts.Rules(_piece, strict=True)


def _quoted(match: re.Match[bytes]) -> bytes:
    token = match[0]
    return token if token[:1] == b'"' else b'"%b"' % token


def _without_long_lists(text: bytes, length: int) -> Generator[None, None, tuple[Object, list[Span]] | None]:
    """The request with the number k in place of the k-th long list under a key `data`, and where these lists lie.

    None if it can't be proved that each of them belongs to an input. With no backslash in the text, `"data"` before a
    colon is a key, each one has a list for its value, and so a number there can only be one of ours.
    """
    spans: list[Span] = []
    parts: list[bytes] = []
    done = position = looked_at = 0
    while (position := (yield from _next_data(text, position, length))) >= 0:
        position += len(_DATA)
        looked_at += 1
        if looked_at % _TOGETHER == 0:
            yield
        colon = _VALUE_FOLLOWS.match(text, position, min(position + _LONG, length))
        if colon is None:  # a name, not a key
            continue
        start = colon.end()
        if text[start : start + 1] != b"[":
            return None
        quote = text.find(b'"', start, length)
        brace = text.find(b"}", start, quote if quote >= 0 else length)
        stop = max(brace, quote) if min(brace, quote) < 0 else min(brace, quote)
        end = text.rfind(b"]", start, stop) + 1
        if end - start >= _LONG and stop - end < _LONG and text[end:stop].strip(b" \t\r\n") in (b"", b","):
            parts += (text[done:start], b"%d" % len(spans))
            spans.append((start, end))
            done = position = end
    if not spans or sum(map(len, parts)) + length - done >= LARGE:
        return None
    parts.append(text[done:length])
    head = b"".join(parts)
    if b"\\" in head:
        return None
    try:
        tree = orjson.loads(head)
    except orjson.JSONDecodeError:
        return None
    inputs = tree.get("inputs") if type(tree) is dict else None
    if type(inputs) is not list:
        return None
    placed = [given["data"] for given in inputs if type(given) is dict and type(given.get("data")) is int]
    return (tree, spans) if placed == list(range(len(spans))) else None


def _next_data(text: bytes, position: int, length: int) -> Generator[None, None, int]:
    """Where `_DATA` stands next; negative where it does not."""
    while (near := position + _LOOKED_AT) < length:
        found = text.find(_DATA, position, near)
        if found >= 0:
            return found
        position = near - len(_DATA) + 1
        yield
    return text.find(_DATA, position, length)
