"""Classify and regress: JSON examples to request messages, result messages to TFS's JSON. No I/O.

The rules are TensorFlow Serving's (tensorflow_serving/util/json_tensor.cc): a number with a fraction is a float, a whole
one or a bool an int64, a string or `{"b64": ...}` bytes; a feature is one of them or a list of one kind.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import chain
from struct import Struct
from typing import Any, Literal, TypeVar

import numpy as np
import orjson

from adapter.inference import json_out, json_parts, json_scan
from adapter.inference.base64 import decode_base64, is_base64
from adapter.inference.json_parts import Large
from adapter.inference.json_scan import Repeated, echo, type_name
from adapter.inference.json_strings import LongText
from adapter.inference.json_tree import signature_name
from adapter.inference.tensor import BadInput
from adapter.inference.tensor_proto import BYTES, fields
from adapter.inference.turns import LARGE
from adapter.inference.wire import field, varint, wrapped
from adapter.joining import joined, separated
from adapter.pb import serving_pb2, tensorflow_pb2

T = TypeVar("T")
Steps = Generator[None, None, T]
Kind = Literal["bytes", "float", "int64"]

_INT64_MAX = (1 << 63) - 1
# Features encoded in one go, and bytes of results written in one go: about 2 ms.
_TOGETHER = 1 << 9
_RUN = 1 << 13
# The list in a Feature that holds values of each kind (tensorflow.proto).
_FIELDS: dict[Kind, int] = {"bytes": 1, "float": 2, "int64": 3}
_ONE_FLOAT = Struct("<4sf")


def request(body: bytes, spec: serving_pb2.ModelSpec) -> Steps[bytes]:
    """The encoded ClassificationRequest to the servable of `spec`, or RegressionRequest: the two are alike.

    The signature is the body's to name. Yields every few milliseconds where a body is large.

    Raises:
        BadInput: it says what is wrong with the body.
    """
    tree = json_scan.load(body) if len(body) < LARGE else (yield from json_parts.read(body))
    named = serving_pb2.ModelSpec()
    named.CopyFrom(spec)
    named.signature_name = signature_name(tree)
    context = (yield from _example(tree["context"], "context", 2)) if "context" in tree else None
    examples = yield from _examples(tree)
    yield from json_parts.check(tree, wanted=("examples", "context"))
    if context is not None:
        examples += context
    size = sum(map(len, examples))
    # In an Input, a list of examples and one with a context are two fields.
    head = varint((1 if context is None else 2) << 3 | BYTES) + varint(size)
    head = field(1, named.SerializeToString()) + b"\x12" + varint(len(head) + size) + head
    return (yield from joined([head, *examples]))


def _examples(tree: json_scan.Object) -> Steps[list[bytes]]:
    """The examples as an ExampleList has them."""
    if "examples" not in tree:
        raise BadInput(
            f"JSON Value: {echo(tree)} When method is classify, key 'examples' is expected and was not found"
        )
    values = tree["examples"]
    if not isinstance(values, list):
        raise BadInput(f"JSON Value: {echo(tree)} Expecting 'examples' value to be an list/array")
    if not values and not isinstance(values, Large):
        raise BadInput(f"JSON Value: {echo(tree)} 'examples' value is an empty array")
    runs: list[bytes] = []
    run: list[bytes] = []
    position = done = 0
    for piece in json_parts.pieces(values):
        for value in (yield from piece):
            run += yield from _example(value, f"examples[{position}]", 1)
            position += 1
            done += len(value)
            if done > _TOGETHER:
                runs.append((yield from joined(run)))
                run.clear()
                done = 0
                yield
    runs.append((yield from joined(run)))
    return runs


def _example(value: Any, path: str, number: int) -> Steps[list[bytes]]:
    """An Example as field `number` of a message; in parts if it is long, to be copied once all are there.

    TensorFlow Serving sets one feature after the other: of one given twice the last stays, and each has to be right.
    """
    if not isinstance(value, dict):
        raise BadInput(f"{path}: Example must be JSON object but got JSON {type_name(value)}")
    try:
        if type(value) is Repeated:
            yield from _features(chain(value.items(), value.later))
            value.update(value.later)
        entries, long = yield from _features(value.items())
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None
    return wrapped(number, wrapped(1, entries)) if long else [field(number, field(1, b"".join(entries)))]


def _features(members: Iterable[tuple[str, Any]]) -> Steps[tuple[list[bytes], bool]]:
    """The entries of the map in a Features, in parts that hold some of them each, and whether these are long or many."""
    entries: list[bytes] = []
    run: list[bytes] = []
    long = False
    for done, (name, content) in enumerate(members, 1):
        if type(content) is Large or _is_long(content):
            long = True
            feature = yield from _feature_in_parts(content, name)
            entries += (b"".join(run), *wrapped(1, [field(1, name.encode()), *wrapped(2, feature)]))
            run.clear()
        else:
            run.append(field(1, field(1, name.encode()) + field(2, _feature(content, name))))
        if done % _TOGETHER == 0:
            long = True
            entries.append(b"".join(run))
            run.clear()
            yield
    return [*entries, b"".join(run)], long


def _feature(content: Any, name: str) -> bytes:
    """An encoded Feature."""
    if type(content) is float:  # by far the most
        try:
            return _ONE_FLOAT.pack(b"\x12\x06\x0a\x04", content)
        except OverflowError:
            pass
    values = content if type(content) is list else (content,)
    if not values:
        return b""
    kind = _kind(values, name)
    return field(_FIELDS[kind], _values(values, kind))


def _feature_in_parts(content: Any, name: str) -> Steps[list[bytes]]:
    """The same of one that may be long, in parts."""
    lists: list[bytes] = []
    kind: Kind | None = None
    for piece in json_parts.pieces(content if type(content) is Large else [content]):
        values = yield from piece
        found = _kind(values, name)
        kind = kind or found
        if found != kind:
            raise _mixed(name, kind)
        if _is_long(values[0]):  # and alone
            lists += wrapped(1, [_bytes(values[0])])
        else:
            lists.append(_values(values, kind))
    assert kind is not None  # noqa: S101 - a large list has values
    return wrapped(_FIELDS[kind], lists)


def _is_long(content: Any) -> bool:
    """Whether it is a long string, or a long one of bytes."""
    return type(content) is LongText or (is_base64(content) and type(content["b64"]) is LongText)


def _values(values: Sequence[Any], kind: Kind) -> bytes:
    """An encoded list of values; several of them one after the other are a longer list."""
    if kind == "bytes":
        return b"".join([field(1, _bytes(value)) for value in values])
    if kind == "int64":
        if len(values) == 1:
            return field(1, varint(int(values[0])))
        return tensorflow_pb2.Int64List(value=map(int, values)).SerializeToString()
    with np.errstate(over="ignore"):
        return field(1, np.array(values, np.float64).astype("<f4").tobytes())


def _bytes(value: Any) -> bytes:
    """A string, or one of bytes."""
    return value.encode() if isinstance(value, str) else decode_base64(value["b64"])


def _kind(values: Sequence[Any], name: str) -> Kind:
    """What the values are, which is one for all of them."""
    types = set(map(type, values))
    if types == {float}:
        return "float"
    if types == {str}:
        return "bytes"
    if types <= {int, bool} and max(values) <= _INT64_MAX:
        return "int64"
    kinds = [_kind_of_one(value, name) for value in values]
    if len(set(kinds)) > 1:
        raise _mixed(name, kinds[0])
    return kinds[0]


def _mixed(name: str, kind: Kind) -> BadInput:
    return BadInput(f"Unexpected element type in feature: {name[:256]} expecting type: {kind}")


def _kind_of_one(value: Any, name: str) -> Kind:
    if type(value) is float:
        return "float"
    if type(value) is int or type(value) is bool:
        if value > _INT64_MAX:
            raise BadInput(f"Feature: {name[:256]} has uint64_t element. Only int64_t is supported.")
        return "int64"
    if isinstance(value, str) or is_base64(value):
        return "bytes"
    raise BadInput(f"Feature: {name[:256]} has element with unexpected JSON type: {type_name(value)}")


def classify_results(answer: bytes, nonfinite: json_out.NonFinite = "tfs") -> Steps[bytes]:
    """The JSON of an encoded ClassificationResponse: for each example its classes as `[label, score]`."""
    texts = []
    for run in _runs(answer):
        results = serving_pb2.ClassificationResult.FromString(run).classifications
        scores = iter(_floats([element.score for result in results for element in result.classes], nonfinite))
        lists = [
            b"[%b]"
            % b",".join([b"[%b,%b]" % (orjson.dumps(element.label), next(scores)) for element in result.classes])
            for result in results
        ]
        texts.append(b",".join(lists))
        yield
    if not texts:
        raise BadInput("Cannot convert empty ClassificationResults to JSON")
    return (yield from joined([b'{"results":[', *separated(texts), b"]}"]))


def regress_results(answer: bytes, nonfinite: json_out.NonFinite = "tfs") -> Steps[bytes]:
    """The JSON of an encoded RegressionResponse: one number for each example."""
    texts = []
    for run in _runs(answer):
        results = serving_pb2.RegressionResult.FromString(run).regressions
        texts.append(b",".join(_floats([result.value for result in results], nonfinite)))
        yield
    if not texts:
        raise BadInput("Cannot convert empty RegressionResults to JSON")
    return (yield from joined([b'{"results":[', *separated(texts), b"]}"]))


def _runs(answer: bytes) -> Iterator[bytes]:
    """The result of an answer in messages of some examples each, which are one message if one follows the other."""
    for number, kind, start, end in fields(answer, 0, len(answer)):
        if number == 1 and kind == BYTES:
            for *_, stop in fields(answer, start, end):
                if stop - start >= _RUN or stop == end:
                    yield answer[start:stop]
                    start = stop


def _floats(values: list[float], nonfinite: json_out.NonFinite) -> list[bytes]:
    """The text of each number."""
    array = np.array(values, np.float32)
    return json_out.numbers(array, nonfinite)[1:-1].split(b",") if len(array) else []
