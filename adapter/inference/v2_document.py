"""The JSON of an inference request, read with what is long in it left where it lies. No I/O.

Long lists under a key `data` are cut out of the text before it is parsed (`json_lists`), and read later, straight into an
array. Where it can't be proved that this is the same, and where a mistake is found in one, the text is parsed whole, in
pieces if it is large.
"""

import re
from collections.abc import Generator, Mapping
from typing import Any

import orjson

from adapter.inference import json_parts
from adapter.inference.json_lists import LONG, Span, without_long_lists
from adapter.inference.json_parts import Large
from adapter.inference.json_scan import echo
from adapter.inference.tensor import BadInput
from adapter.inference.turns import LARGE

Object = Mapping[str, Any]
# Strings, and what Python's writers and others put for the numbers that JSON does not have.
_BARE = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\Z)|-?Infinity|NaN', re.DOTALL)


def read(text: bytes, length: int) -> Generator[None, None, tuple[Object, Mapping[str, Span]]]:
    """The JSON object in the first bytes of a text, and its long lists, in place of which it has names.

    Yields every few milliseconds where the text is large.

    Raises:
        BadInput: it is not JSON, or no object.
    """
    cut = (yield from _cut(text, length)) if length >= LONG else None
    return ((yield from loaded(text, length)), {}) if cut is None else cut


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


def _cut(text: bytes, length: int) -> Generator[None, None, tuple[Object, Mapping[str, Span]] | None]:
    """The request with names in place of the long lists that inputs have for their data, and where these lie.

    None if there are none, or it can't be proved that each of them belongs to an input.
    """
    cut = yield from without_long_lists(text, length, (b'"data"',))
    if cut is None:
        return None
    try:
        tree = orjson.loads(cut.text)
    except orjson.JSONDecodeError:
        return None
    inputs = tree.get("inputs") if type(tree) is dict else None
    if type(inputs) is not list:
        return None
    data = [given["data"] for given in inputs if type(given) is dict and type(given.get("data")) is str]
    return (tree, cut.lists) if [name for name in data if name in cut.lists] == list(cut.lists) else None
