"""One long string in a JSON body: read in pieces, it is what it is when it is read in one go, and so are its mistakes."""

import json
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter.inference import examples, json_in, json_lists, json_outline, json_parts, json_strings, v2_document, v2_in
from adapter.inference.base64 import decode_base64, decoded_in_steps
from adapter.inference.json_strings import LongText
from adapter.inference.tensor import FLOAT, STRING, BadInput
from adapter.inference.turns import at_once
from adapter.pb import serving_pb2
from tests.unit.inference.json_bodies import refusal, signature, tensors

LONG = "Straße, 東京 and 😀; " * 8
IN_BASE64 = b64encode(LONG.encode()).decode()


def in_pieces(patch: pytest.MonkeyPatch) -> None:
    """As bodies of many megabytes are read; a piece has more room than a cut may have to go back."""
    for module in (json_in, json_lists, examples, v2_document):
        patch.setattr(module, "LARGE", 0)
    patch.setattr(json_outline, "CHUNK", 8)
    patch.setattr(json_strings, "PIECE", 24)


@pytest.fixture(params=["in one go", "in pieces of 24 bytes"])
def pieces(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if request.param != "in one go":
            in_pieces(patch)
        yield


def read(body: bytes, rules: json_parts.Rules, piece: int) -> Any:
    """What a body holds, or what is wrong with it, where strings longer than `piece` are read in pieces of that size."""
    with pytest.MonkeyPatch.context() as patch:
        in_pieces(patch)
        patch.setattr(json_strings, "PIECE", piece)
        try:
            return at_once(json_parts.materialized(at_once(json_parts.read(body, rules))))
        except BadInput as error:
            return str(error)


# --- any text --------------------------------------------------------------------------------------------------------

RIGHT = st.sampled_from(
    [
        *(b"a", b"abcdefgh", b" ", b"NaN", b"-Inf", b":", b"[", b",", b"}"),
        *("é".encode(), "東".encode(), "😀".encode(), "\ufeff".encode(), b"\x7f"),
        *(rb"\"", rb"\\", rb"\\\\", rb"\n", rb"\/", rb"\":", rb"\u00e9", rb"\u4e2d", rb"\ud83d\ude00", rb"\\ud83d"),
    ]
)
WRONG = [b"\n", b"\x00", rb"\x", rb"\u12g4", rb"\ude00", b'"', b'""', b'",', b'"\\"']
# The words that orjson has for these, or the place that it names, depend on what else is in a text.
UNLIKE = [b"\xff", rb"\ud83d", rb"\ude00\ud83d"]


def texts(*wrong: bytes) -> st.SearchStrategy[bytes]:
    """What may stand between two quotes, with at most one mistake."""
    mistakes = st.sampled_from([b"", *wrong])
    fragments = st.lists(RIGHT, max_size=40).map(b"".join)
    return st.tuples(fragments, mistakes, fragments).map(b"".join)


BODIES = st.sampled_from([b'{"a":["%b"]}', b'{"a":"%b"}', b'{"\xc3\xa9":1,"a":[1,{"b":[ "%b" ]},2]}'])


@given(texts(*WRONG, *UNLIKE), BODIES)
def test_any_string_is_read_in_pieces_as_in_one_go(text: bytes, body: bytes) -> None:
    body %= text
    assert read(body, json_parts.TFS, 24) == read(body, json_parts.TFS, 1 << 18)


@given(texts(), st.sampled_from([b" 1", b"x", b" " * 40 + b"2", b':"b"', b'"b"', rb"\"", "é".encode()]))
def test_what_stands_behind_a_string_is_refused_as_in_one_go(text: bytes, more: bytes) -> None:
    body = b'{"a":["%b"%b]}' % (text, more)
    assert read(body, json_parts.TFS, 24) == read(body, json_parts.TFS, 1 << 18)


@given(texts(*WRONG), BODIES)
def test_any_string_of_an_inference_request_is_read_in_pieces_as_in_one_go(text: bytes, body: bytes) -> None:
    body %= text
    assert read(body, v2_document.RULES, 24) == read(body, v2_document.RULES, 1 << 18)


@pytest.mark.parametrize("repeated", [rb"\\", rb"\ud83d\ude00", rb"\u4e2d", "😀".encode(), b"a"])
def test_a_string_is_cut_everywhere_into_pieces_of_about_the_size(
    repeated: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_strings, "PIECE", 64)
    for offset in range(12):
        text = b"_" * offset + repeated * 100
        start, found = 0, []
        while start < len(text):
            stop = json_strings.cut(text, start, len(text))
            assert stop == len(text) or 64 - 22 <= stop - start <= 64
            found.append(json.loads(b'"%b"' % text[start:stop]))
            start = stop
        assert "".join(found) == json.loads(b'"%b"' % text)


# --- base64 ----------------------------------------------------------------------------------------------------------


def decoded(text: str) -> bytes | None:
    try:
        return decode_base64(text)
    except BadInput:
        return None


@given(
    st.binary(max_size=100),
    st.lists(
        st.tuples(
            st.integers(0, 150), st.sampled_from([" ", "\r\n", "\t \f\v", " " * 40, "=", "==", "!", "é", "A", "_"])
        )
    ),
    st.integers(0, 3),
)
def test_any_base64_is_decoded_in_pieces_as_in_one_go(data: bytes, more: list[tuple[int, str]], short: int) -> None:
    text = b64encode(data).decode()
    text = text[: len(text) - short]
    for place, inserted in more:
        text = text[:place] + inserted + text[place:]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_strings, "PIECE", 24)
        assert at_once(decoded_in_steps(LongText(text.encode()))) == decoded(text)


# --- all that a long string may stand for ----------------------------------------------------------------------------


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("given_as", [LONG, {"b64": IN_BASE64}], ids=["text", "base64"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_long_string_is_a_value_wherever_a_short_one_is(given_as: Any, ascii_only: bool) -> None:
    for body, expected in (
        ({"instances": [given_as]}, [LONG]),
        ({"instances": ["a", given_as, {"b64": "YQ"}]}, ["a", LONG, "a"]),
        ({"instances": [{"x": given_as}, {"x": "a"}]}, [LONG, "a"]),
        ({"instances": [["a", given_as], [given_as, "b"]]}, [["a", LONG], [LONG, "b"]]),
        ({"inputs": given_as}, LONG),
        ({"inputs": {"x": [given_as]}}, [LONG]),
    ):
        found = tensors(json.dumps(body, ensure_ascii=ascii_only), signature(x=STRING))["x"].data
        assert json.loads(json.dumps(found.tolist(), default=bytes.decode)) == expected


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"instances": [LONG]}, 'instances[0]: JSON Value: "Straße'),
        ({"inputs": {"x": LONG}}, "Type: String is not of expected type: float"),
        ({"instances": [1, [LONG]]}, "instances"),
        ({"instances": LONG}, "Expecting 'instances' to be an list/array"),
        ({"instances": [{"x": {"b64": IN_BASE64}}]}, "instances[0].x: JSON Value: "),
        ({"signature_name": [LONG], "instances": [1]}, "'signature_name' key must be a string value"),
    ],
)
def test_errors_tell_of_a_long_string_by_its_beginning(body: object, said: str) -> None:
    text = json.dumps(body, ensure_ascii=False)
    assert said in refusal(text)
    with pytest.MonkeyPatch.context() as patch:
        in_pieces(patch)
        assert said in refusal(text)


@pytest.mark.usefixtures("pieces")
def test_what_is_no_base64_is_said_where_it_stands() -> None:
    body = json.dumps({"instances": [["a", {"b64": IN_BASE64 + "!"}]]})
    assert refusal(body, signature(x=STRING)) == "instances[0][1]: Unable to base64 decode"


@pytest.mark.usefixtures("pieces")
def test_a_long_name_of_a_signature_is_all_of_it() -> None:
    body = json.dumps({"inputs": [1], "signature_name": LONG * 100}).encode()
    parsed = at_once(json_in.parse_in_steps(body)) if json_in.LARGE == 0 else json_in.parse(body)
    assert str(parsed.signature_name) == LONG * 100


@pytest.mark.usefixtures("pieces")
def test_a_long_string_is_a_feature_of_an_example() -> None:
    body = {
        "context": {"c": LONG},
        "examples": [
            {"a": 1, "x": {"b64": IN_BASE64}, "y": ["a", {"b64": IN_BASE64}, LONG]},
            # One whose name means something elsewhere.
            {"b64": IN_BASE64},
        ],
    }
    request = serving_pb2.ClassificationRequest.FromString(
        at_once(examples.request(json.dumps(body).encode(), serving_pb2.ModelSpec(name="m")))
    )
    given_examples = request.input.example_list_with_context
    assert given_examples.context.features.feature["c"].bytes_list.value == [LONG.encode()]
    first, second = [example.features.feature for example in given_examples.examples]
    assert first["a"].int64_list.value == [1]
    assert first["x"].bytes_list.value == [LONG.encode()]
    assert first["y"].bytes_list.value == [b"a", LONG.encode(), LONG.encode()]
    assert second["b64"].bytes_list.value == [IN_BASE64.encode()]


@pytest.mark.usefixtures("pieces")
def test_a_feature_is_of_one_kind_however_long() -> None:
    body = json.dumps({"examples": [{"x": [1, {"b64": IN_BASE64}]}]}).encode()
    with pytest.raises(BadInput, match=r"examples\[0\]: Unexpected element type in feature: x expecting type: int64"):
        at_once(examples.request(body, serving_pb2.ModelSpec(name="m")))


@pytest.mark.usefixtures("pieces")
def test_a_long_string_is_an_element_of_an_inference_request() -> None:
    body = {
        "id": LONG * 100,
        "inputs": [
            {"name": "x", "shape": [3], "datatype": "BYTES", "data": ["a", LONG, "b"], "parameters": {"p": LONG}}
        ],
    }
    text = json.dumps(body).encode()
    request = at_once(v2_in.parse(text, None))
    assert request.id == LONG * 100
    found = at_once(request.tensors_in_steps(signature(x=STRING)))["x"].data
    assert found.tolist() == [b"a", LONG.encode(), b"b"]
    wrong = json.dumps({"inputs": [{"name": "x", "shape": [2], "datatype": "FP32", "data": [1, LONG]}]}).encode()
    with pytest.raises(BadInput, match=r'inputs\[0\] "x": data\[1\]: expected a number \(FP32\), got "Straße, 東京'):
        at_once(at_once(v2_in.parse(wrong, None)).tensors_in_steps(signature(x=FLOAT)))


def test_a_key_of_megabytes_is_refused() -> None:
    with pytest.raises(BadInput, match="a key of 1000002 bytes"):
        at_once(json_parts.read(b'{"%b":1}' % (b"k" * 1_000_000)))
