"""Classify and regress: JSON examples in, JSON results out, as TensorFlow Serving has them."""

import json
import math
import re
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter.inference import examples, json_outline, json_scan, json_strings
from adapter.inference.tensor import BadInput
from adapter.inference.turns import at_once
from adapter.pb import serving_pb2, tensorflow_pb2

SPEC = serving_pb2.ModelSpec(name="m", version_label="stable")


@pytest.fixture(params=["in one go", "in pieces of 8 bytes"], autouse=True)
def pieces(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every body is read, and every answer written, as small ones are and as large ones are."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param != "in one go":
            patch.setattr(examples, "LARGE", 0)
            patch.setattr(examples, "_RUN", 8)
            patch.setattr(json_outline, "CHUNK", 8)
            patch.setattr(json_strings, "PIECE", 32)
        yield


def features(example: tensorflow_pb2.Example) -> dict[str, list[object] | None]:
    found: dict[str, list[object] | None] = {}
    for name, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        found[name] = None if kind is None else [kind, *getattr(feature, kind).value]
    return found


def parsed(body: object) -> list[dict[str, list[object] | None]]:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return [features(example) for example in asked(text).input.example_list.examples]


def asked(text: bytes) -> serving_pb2.ClassificationRequest:
    return serving_pb2.ClassificationRequest.FromString(at_once(examples.request(text, SPEC)))


def test_the_kind_of_a_feature_is_that_of_its_json() -> None:
    feature = {
        "float": 1.5, "floats": [1.0, 2.5], "int": 1, "ints": [1, -2], "bool": True, "mixed": [True, 2],
        "text": "ä", "texts": ["a", {"b64": "aGk"}], "bytes": {"b64": "/w=="}, "none": [],
    }  # fmt: skip
    assert parsed({"examples": [feature]}) == [
        {
            "float": ["float_list", 1.5], "floats": ["float_list", 1.0, 2.5], "int": ["int64_list", 1],
            "ints": ["int64_list", 1, -2], "bool": ["int64_list", 1], "mixed": ["int64_list", 1, 2],
            "text": ["bytes_list", "ä".encode()], "texts": ["bytes_list", b"a", b"hi"],
            "bytes": ["bytes_list", b"\xff"], "none": None,
        }
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        ('{"x": 1.0, "x": 3.0}', {"x": ["float_list", 3.0]}),
        ('{"x": 3.0, "y": 1, "x": "x"}', {"x": ["bytes_list", b"x"], "y": ["int64_list", 1]}),
        ('{"x": [1, 2], "x": [3.5, 4.5], "x": [1, 2]}', {"x": ["int64_list", 1, 2]}),
        ('{"x": 1.5, "x": []}', {"x": None}),
        ('{"x": {"b64": "aGk"}, "y": 1, "y": 2, "y": 3}', {"x": ["bytes_list", b"hi"], "y": ["int64_list", 3]}),
        ('{"x": [1, 2, 3, 4, 5], "x": [6, 7, 8, 9, 10]}', {"x": ["int64_list", 6, 7, 8, 9, 10]}),
    ],
)
def test_of_a_feature_given_twice_the_last_counts(body: str, kept: dict[str, list[object] | None]) -> None:
    assert parsed(b'{"examples": [{}, %b]}' % body.encode()) == [{}, kept]
    found = asked(b'{"context": %b, "examples": [{}]}' % body.encode()).input
    assert features(found.example_list_with_context.context) == kept


def test_more_features_given_twice_than_anyone_means_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_scan, "MOST_REPEATED", 3)
    assert parsed(b'{"examples": [{"x": 1, "x": 2, "y": 1, "x": 3, "y": 2}]}') == [
        {"x": ["int64_list", 3], "y": ["int64_list", 2]}
    ]
    for body in (
        b'{"examples": [{"x": 1, "x": 2, "x": 3, "x": 4, "x": 5}]}',
        b'{"examples": [], %b}' % b", ".join([b'"y": 1'] * 5),
    ):
        with pytest.raises(BadInput, match="More than 3 keys that an object has already are not taken"):
            parsed(body)


def test_an_example_of_many_features_has_them_all() -> None:
    given = {f"f{number}": [number] if number % 3 else [float(number)] * 9 for number in range(1500)}
    (found,) = parsed({"examples": [given]})
    assert {name: kept[1:] for name, kept in found.items() if kept} == given


def test_of_examples_and_context_given_twice_the_first_counts() -> None:
    body = b'{"examples": [{"x": 1}], "context": {"c": 1}, "examples": [{"x": 2}], "context": {"c": 2}}'
    found = asked(body).input.example_list_with_context
    assert features(found.context) == {"c": ["int64_list", 1]}
    assert [features(example) for example in found.examples] == [{"x": ["int64_list", 1]}]


def test_floats_beyond_float32_are_infinite_and_words_are_taken() -> None:
    assert parsed(b'{"examples": [{"x": [1e39, -Infinity]}]}') == [{"x": ["float_list", math.inf, -math.inf]}]


def test_the_request_names_servable_and_signature() -> None:
    body = b'{"signature_name": "s", "examples": [{"x": 1.0}]}'
    for message in (serving_pb2.ClassificationRequest, serving_pb2.RegressionRequest):
        request = message.FromString(at_once(examples.request(body, SPEC)))
        assert request.model_spec == serving_pb2.ModelSpec(name="m", version_label="stable", signature_name="s")
        assert [features(example) for example in request.input.example_list.examples] == [{"x": ["float_list", 1.0]}]
    assert SPEC.signature_name == ""


def test_a_context_is_shared_by_all_examples() -> None:
    found = asked(b'{"context": {"c": 1.5}, "examples": [{"x": 1}, {"x": 2}]}').input
    assert features(found.example_list_with_context.context) == {"c": ["float_list", 1.5]}
    assert [features(example) for example in found.example_list_with_context.examples] == [
        {"x": ["int64_list", 1]},
        {"x": ["int64_list", 2]},
    ]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("{}", "JSON Value: {} When method is classify, key 'examples' is expected and was not found"),
        ('{"examples": {"x": 1}}', "Expecting 'examples' value to be an list/array"),
        ('{"examples": []}', "'examples' value is an empty array"),
        ('{"examples": [{}, 1]}', r"examples\[1\]: Example must be JSON object but got JSON Number"),
        ('{"context": [], "examples": [{}]}', "context: Example must be JSON object but got JSON Array"),
        ('{"examples": [{"f": null}]}', r"examples\[0\]: Feature: f has element with unexpected JSON type: Null"),
        ('{"examples": [{"f": [[1]]}]}', r"examples\[0\]: Feature: f has element with unexpected JSON type: Array"),
        ('{"examples": [{"f": {"b": 1}}]}', "Feature: f has element with unexpected JSON type: Object"),
        ('{"examples": [{"f": null, "f": 3.0}]}', "Feature: f has element with unexpected JSON type: Null"),
        (
            '{"examples": [{"f": 1, "f": [1, 1.5], "f": 3.0}]}',
            "Unexpected element type in feature: f expecting type: int",
        ),
        (
            '{"examples": [{"f": {"b64": "aGk", "b64": "aGk"}}]}',
            "Feature: f has element with unexpected JSON type: Obj",
        ),
        ('{"examples": [{}], "examples": [1, 2, 3, 4 5]}', "JSON Parse error"),
        ('{"examples": [{"f": [1, 1.5]}]}', "Unexpected element type in feature: f expecting type: int64"),
        ('{"examples": [{"f": ["a", 1]}]}', "Unexpected element type in feature: f expecting type: bytes"),
        ('{"examples": [{"f": [1.5, true]}]}', "Unexpected element type in feature: f expecting type: float"),
        ('{"examples": [{"f": 9223372036854775808}]}', "Feature: f has uint64_t element. Only int64_t is supported."),
        ('{"examples": [{"f": {"b64": "*"}}]}', r"examples\[0\]: Unable to base64 decode"),
        ('{"signature_name": 1, "examples": [{}]}', "'signature_name' key must be a string value"),
        ("[]", "Is not object"),
        ("", "The document is empty"),
    ],
)
def test_a_mistake_is_named_with_its_place(body: str, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        asked(body.encode())
    assert re.search(message, str(caught.value))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["b64", "x", "examples"]), inner, max_size=3)
    ),
)


@given(JSON, JSON)
def test_any_json_is_refused_or_read(value: object, context: object) -> None:
    for tree in (value, {"examples": value}, {"examples": [value]}, {"examples": [{"f": value}], "context": context}):
        try:
            found = asked(json.dumps(tree).encode()).input
        except BadInput:
            continue
        assert found.WhichOneof("kind")


def test_classes_are_lists_of_label_and_score() -> None:
    answer = serving_pb2.ClassificationResponse()
    for scores in ([0.1, math.nan], []):
        classes = answer.result.classifications.add().classes
        for score in scores:
            classes.add(label='"ä', score=score)
    encoded = answer.SerializeToString()
    assert at_once(examples.classify_results(encoded)).decode() == '{"results":[[["\\"ä",0.1],["\\"ä",NaN]],[]]}'
    assert json.loads(at_once(examples.classify_results(encoded, "null")))["results"][0][1] == ['"ä', None]


@given(st.lists(st.floats(width=32), min_size=1))
def test_regression_values_come_through_exactly(values: list[float]) -> None:
    answer = serving_pb2.RegressionResponse()
    for value in values:
        answer.result.regressions.add(value=value)
    found = json.loads(at_once(examples.regress_results(answer.SerializeToString())))["results"]
    np.testing.assert_array_equal(np.array(found, np.float32), np.array(values, np.float32))


def test_an_answer_without_results_is_told_in_tfs_words() -> None:
    with pytest.raises(BadInput, match="Cannot convert empty ClassificationResults to JSON"):
        at_once(examples.classify_results(b""))
    with pytest.raises(BadInput, match="Cannot convert empty RegressionResults to JSON"):
        at_once(examples.regress_results(b""))
