"""A predict body in TensorFlow Serving's JSON to tensors: which way a body goes. No I/O.

Two ways lead from text to tensors. Numbers go straight from the text into their arrays (`json_numbers`), which takes a
body of the usual form: its outer structure is matched here, every number and all nesting there. Anything else (strings,
bools, NaN, a key given twice, a byte order mark, text after the object, every mistake) is parsed into Python objects
(`json_scan`) and converted with care (`json_tree`), which words the errors too. The first way takes a body only if it is
provably right, so the second alone says what is right.

The rules are TensorFlow Serving's (tensorflow_serving/util/json_tensor.cc). Where it refuses or garbles, this answers:
half, bfloat16 and uint16 are taken like the types beside them, a complex number is a pair `[real, imaginary]`, and of a
key given twice the first counts inside an instance too (TFS takes both and shifts the rows). Invalid UTF-8 is refused.
"""

import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from adapter.inference import json_long, json_parts, json_scan, json_tree
from adapter.inference.json_columns import values
from adapter.inference.json_numbers import PIECE, numbers, numbers_at_once
from adapter.inference.json_tree import Path, Piecewise, path_from
from adapter.inference.tensor import Array, BadInput, Signature, Tensor, TensorSpec, TooMuch
from adapter.inference.turns import LARGE, at_once

Steps = Generator[None, None, dict[str, Tensor]]

_SIGNATURE = rb'"signature_name"[ \t\r\n]*:[ \t\r\n]*"([^"\\\x00-\x1f]*)"[ \t\r\n]*'
_HEAD = re.compile(
    rb"[ \t\r\n]*\{[ \t\r\n]*(?:" + _SIGNATURE + rb',[ \t\r\n]*)?"(instances|inputs)"[ \t\r\n]*:[ \t\r\n]*'
)
_TAIL = re.compile(rb",[ \t\r\n]*" + _SIGNATURE + rb"\Z")
# Where there is more, it is white space, and is read with care.
_LONGEST_HEAD, _LONGEST_TAIL = 4096, 512
_KEY = b"signature_name"
_COMMA = ord(",")
# A list of numbers takes as long as the text of so many, besides its own.
_EACH = 1 << 10
# Text that is looked at for the key, and for braces, in one go: about 2 ms.
_LOOKED_AT = 1 << 21
_NUMBER_OR_LIST = b"[-0123456789 \t\r\n"


@dataclass(slots=True, eq=False)
class PredictBody:
    """A predict body that has told which signature it means; its tensors are made once the caller has looked that up.

    The value of `instances` (`row`) or `inputs` is still text, between `start` and `end` of `body`, or all is in `tree`,
    but for what is `Large`.
    """

    signature_name: str
    row: bool
    body: bytes = b""
    start: int = 0
    end: int = 0
    tree: dict[str, Any] | None = None

    def tensors(self, signature: Signature) -> dict[str, Tensor]:
        """The signature's inputs as tensors; BadInput says what is wrong with the body."""
        inputs = signature.inputs
        # The way of most requests: one input, a list of lists of numbers, and not many of them.
        if (
            self.tree is None
            and len(inputs) == 1
            and self.end - self.start <= PIECE
            and self.body[self.start + 1] in _NUMBER_OR_LIST
        ):
            ((name, spec),) = inputs.items()
            array = numbers_at_once(self.body[self.start : self.end], spec.dtype)
            if array is not None and (not self.row or _has_rows(array)):
                return {name: Tensor(spec.dtype, array)}
        return at_once(self.tensors_in_steps(signature))

    def check_in_steps(self) -> Generator[None, None, None]:
        """Read all of the body where no tensor comes of it. Raises BadInput where it is not JSON.

        One that is too much for the careful way may be right all the same: numbers without end are read in the other.
        """
        tree = self.tree
        try:
            if tree is None:
                tree = (yield from json_parts.read(self.body)) if len(self.body) >= LARGE else json_scan.load(self.body)
            yield from json_parts.check(tree)
        except TooMuch:
            pass

    def tensors_in_steps(self, signature: Signature) -> Steps:
        """The same for large bodies: yields every few milliseconds, so that others get their turn."""
        inputs = signature.inputs
        if not inputs:
            raise BadInput(f"Failed to get input map for signature: {signature.name or 'DEFAULT'}")
        if self.tree is None:
            found = yield from self._from_text(inputs)
            if found is not None:
                return found
            large = len(self.body) >= LARGE
            self.tree = (yield from _read(self.body)) if large else json_scan.load(self.body)
            if json_tree.signature_name(self.tree) != self.signature_name:
                # What looked like the body's last member came after its end, and the signature has been looked up.
                raise BadInput("JSON Parse error: there is a 'signature_name' after the end of the object")
        return (yield from json_long.tensors(self.tree, inputs))

    def _from_text(self, inputs: Mapping[str, TensorSpec]) -> Generator[None, None, dict[str, Tensor] | None]:
        """All inputs by way of `json_numbers`, or None if the text takes more care."""
        objects = yield from values(self.body, self.start, self.end, self.row, inputs)
        if objects is None:
            return None
        only = next(iter(inputs))
        arrays: dict[str, list[Array]] = {name: [] for name in inputs}
        done = 0
        for position, found in enumerate(objects):
            for key, start, end in found:
                spec = inputs[key or only]
                if end - start <= PIECE:
                    array = numbers_at_once(self.body[start:end], spec.dtype)
                else:
                    careful = Piecewise(spec.dtype, self._path(key, position))
                    array = yield from numbers(self.body, start, end, spec.dtype, careful)
                if array is None:
                    return None
                column = arrays[spec.name]
                column.append(array)
                if array.shape != column[0].shape:
                    shapes = f"expected shape {list(column[0].shape)} as before it, got {list(array.shape)}"
                    raise BadInput(f"{self._path(key, position)(())}: {shapes}")
                done += end - start + _EACH
                if done > PIECE:
                    done = 0
                    yield
        if objects[0][0].name is None:
            array = arrays[only][0]
            return {only: Tensor(inputs[only].dtype, array)} if not self.row or _has_rows(array) else None
        if any(len(column) != len(objects) for column in arrays.values()):
            return None
        return {name: Tensor(inputs[name].dtype, self._together(column)) for name, column in arrays.items()}

    def _together(self, column: list[Array]) -> Array:
        """The values that one input has in all objects."""
        if self.row:
            return np.stack(column) if len(column) > 1 else column[0][np.newaxis]
        return column[0]

    def _path(self, key: str | None, position: int) -> Path:
        if key is None:
            return path_from("instances" if self.row else "inputs")
        return path_from(f"instances[{position}].{key}" if self.row else f"inputs.{key}")


def _has_rows(array: Array) -> bool:
    return array.ndim > 0 and len(array) > 0


def parse(body: bytes) -> PredictBody:
    """The outer structure of a predict body; BadInput if it has none."""
    usual = _usual(body)
    if usual is None or _may_name_a_signature(body, usual.start, usual.end):
        return _named(json_scan.load(body))
    if _may_end_early(usual) and _opened(body, usual.start, usual.end):
        return _named(json_scan.load(body))
    return usual


def parse_in_steps(body: bytes) -> Generator[None, None, PredictBody]:
    """The same for large bodies: yields every few milliseconds."""
    usual = _usual(body)
    if usual is None:
        return _named((yield from _read(body)))
    counted = _may_end_early(usual)
    opened = 0
    for start in range(usual.start, usual.end, _LOOKED_AT):
        stop = min(start + _LOOKED_AT, usual.end)
        if _may_name_a_signature(body, start, min(stop + len(_KEY), usual.end)):
            return _named((yield from _read(body)))
        opened += _opened(body, start, stop) if counted else 0
        yield
    return usual if not opened else _named((yield from _read(body)))


def _read(body: bytes) -> Generator[None, None, dict[str, Any]]:
    tree = yield from json_parts.read(body)
    yield from json_parts.check(tree, wanted=("instances", "inputs"))
    return tree


def _named(tree: dict[str, Any]) -> PredictBody:
    return PredictBody(json_tree.signature_name(tree), "instances" in tree, tree=tree)


def _usual(body: bytes) -> PredictBody | None:
    """A body of the usual form, its value unparsed: `{` signature name or none `,` instances or inputs `}`.

    Or the signature name comes last, as long as the value has all its braces: `_may_end_early` and `_opened` tell.
    What follows the last brace is no part of the body, as in TFS; if it is not the right brace, the value won't parse.
    """
    head = _HEAD.match(body, 0, _LONGEST_HEAD)
    if head is None:
        return None
    name, key = head.groups()
    start, end = head.end(), body.rfind(b"}")
    if end < start:
        return None
    if name is None and body[end - 1] in b'" \t\r\n':
        window = max(start, end - _LONGEST_TAIL)
        tail = _TAIL.search(body[window:end])
        if tail is not None:
            name, end = tail[1], window + tail.start()
    if start == end:
        return None
    try:
        signature_name = name.decode() if name else ""
    except UnicodeDecodeError:
        return None
    return PredictBody(signature_name, key == b"instances", body, start, end)


def _may_end_early(usual: PredictBody) -> bool:
    """Whether the object may end before what looks like its last member."""
    return usual.body[usual.end] == _COMMA and usual.body.find(b"}", usual.start, usual.end) >= 0


def _opened(body: bytes, start: int, end: int) -> int:
    """How many more braces are opened than closed between two offsets."""
    return body.count(b"{", start, end) - body.count(b"}", start, end)


def _may_name_a_signature(body: bytes, start: int, end: int) -> bool:
    """Whether the key stands between two offsets, where a usual body has no keys but those of its inputs."""
    quote = body.find(b'"', start, end)
    return quote >= 0 and (body.find(b"\\", quote, end) >= 0 or body.find(_KEY, quote, end) >= 0)
