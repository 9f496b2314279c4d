"""Classify and regress: JSON examples to request messages, result messages to TFS's JSON. No I/O.

The rules are TensorFlow Serving's (tensorflow_serving/util/json_tensor.cc): a number with a fraction is a float, a whole
one or a bool an int64, a string or `{"b64": ...}` bytes; a feature is one of them or a list of one kind.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import orjson

from adapter.inference import json_out, json_scan
from adapter.inference.base64 import decode_base64, is_base64
from adapter.inference.json_scan import echo, type_name
from adapter.inference.json_tree import signature_name
from adapter.inference.tensor import BadInput
from adapter.pb import serving_pb2, tensorflow_pb2

_INT64_MAX = (1 << 63) - 1


def classify_request(body: bytes, spec: serving_pb2.ModelSpec) -> bytes:
    """The encoded ClassificationRequest to the servable of `spec`; its signature is the body's to name."""
    name, examples = parse(body)
    return serving_pb2.ClassificationRequest(model_spec=_named(spec, name), input=examples).SerializeToString()


def regress_request(body: bytes, spec: serving_pb2.ModelSpec) -> bytes:
    """The encoded RegressionRequest to the servable of `spec`; its signature is the body's to name."""
    name, examples = parse(body)
    return serving_pb2.RegressionRequest(model_spec=_named(spec, name), input=examples).SerializeToString()


def _named(spec: serving_pb2.ModelSpec, signature: str) -> serving_pb2.ModelSpec:
    named = serving_pb2.ModelSpec()
    named.CopyFrom(spec)
    named.signature_name = signature
    return named


def parse(body: bytes) -> tuple[str, serving_pb2.Input]:
    """The signature's name ("" if there is none) and the examples of a body; BadInput says what is wrong with it."""
    tree = json_scan.load(body)
    name = signature_name(tree)
    context = _example(tree["context"], "context") if "context" in tree else None
    if "examples" not in tree:
        raise BadInput(
            f"JSON Value: {echo(tree)} When method is classify, key 'examples' is expected and was not found"
        )
    values = tree["examples"]
    if type(values) is not list:
        raise BadInput(f"JSON Value: {echo(tree)} Expecting 'examples' value to be an list/array")
    if not values:
        raise BadInput(f"JSON Value: {echo(tree)} 'examples' value is an empty array")
    examples = [_example(value, f"examples[{position}]") for position, value in enumerate(values)]
    if context is None:
        return name, serving_pb2.Input(example_list=serving_pb2.ExampleList(examples=examples))
    shared = serving_pb2.ExampleListWithContext(examples=examples, context=context)
    return name, serving_pb2.Input(example_list_with_context=shared)


def _example(value: Any, path: str) -> tensorflow_pb2.Example:
    if not isinstance(value, dict):
        raise BadInput(f"{path}: Example must be JSON object but got JSON {type_name(value)}")
    features = {name: _feature(content, name, path) for name, content in value.items()}
    return tensorflow_pb2.Example(features=tensorflow_pb2.Features(feature=features))


def _feature(content: Any, name: str, path: str) -> tensorflow_pb2.Feature:
    values = content if type(content) is list else [content]
    try:
        kinds = [_kind(value, name) for value in values]
        if len(set(kinds)) > 1:
            raise BadInput(f"Unexpected element type in feature: {name[:256]} expecting type: {kinds[0]}")
        match kinds[:1]:
            case []:
                return tensorflow_pb2.Feature()
            case ["bytes"]:
                items = [value.encode() if type(value) is str else decode_base64(value["b64"]) for value in values]
                return tensorflow_pb2.Feature(bytes_list=tensorflow_pb2.BytesList(value=items))
            case ["int64"]:
                return tensorflow_pb2.Feature(int64_list=tensorflow_pb2.Int64List(value=map(int, values)))
        with np.errstate(over="ignore"):
            floats = np.array(values, np.float64).astype(np.float32)
        return tensorflow_pb2.Feature(float_list=tensorflow_pb2.FloatList(value=floats.tolist()))
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None


def _kind(value: Any, name: str) -> str:
    if type(value) is float:
        return "float"
    if type(value) is int or type(value) is bool:
        if value > _INT64_MAX:
            raise BadInput(f"Feature: {name[:256]} has uint64_t element. Only int64_t is supported.")
        return "int64"
    if type(value) is str or is_base64(value):
        return "bytes"
    raise BadInput(f"Feature: {name[:256]} has element with unexpected JSON type: {type_name(value)}")


def classify_results(answer: bytes, nonfinite: json_out.NonFinite = "tfs") -> bytes:
    """The JSON of an encoded ClassificationResponse: for each example its classes as `[label, score]`."""
    results = serving_pb2.ClassificationResponse.FromString(answer).result.classifications
    if not results:
        raise BadInput("Cannot convert empty ClassificationResults to JSON")
    scores = iter(_floats([element.score for result in results for element in result.classes], nonfinite))
    lists = [
        b"[%b]" % b",".join([b"[%b,%b]" % (orjson.dumps(element.label), next(scores)) for element in result.classes])
        for result in results
    ]
    return b'{"results":[%b]}' % b",".join(lists)


def regress_results(answer: bytes, nonfinite: json_out.NonFinite = "tfs") -> bytes:
    """The JSON of an encoded RegressionResponse: one number for each example."""
    results = serving_pb2.RegressionResponse.FromString(answer).result.regressions
    if not results:
        raise BadInput("Cannot convert empty RegressionResults to JSON")
    return b'{"results":[%b]}' % b",".join(_floats([result.value for result in results], nonfinite))


def _floats(values: Iterable[float], nonfinite: json_out.NonFinite) -> list[bytes]:
    """The text of each number."""
    array = np.array(values, np.float32)
    return json_out.numbers(array, nonfinite)[1:-1].split(b",") if len(array) else []
