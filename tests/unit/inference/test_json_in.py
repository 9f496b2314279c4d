"""Predict bodies: what TensorFlow Serving's JSON means as tensors, and what is said of a body that means none."""

import contextlib
import json
import math
import re
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter.inference import json_in, json_numbers, json_scan
from adapter.inference.tensor import (
    BFLOAT16,
    BOOL,
    COMPLEX64,
    DOUBLE,
    FLOAT,
    HALF,
    INT8,
    INT32,
    INT64,
    STRING,
    UINT8,
    UINT16,
    UINT32,
    UINT64,
    BadInput,
    DType,
)
from adapter.inference.turns import at_once
from tests.unit.inference.json_bodies import X, pieces_of, refusal, signature, tensors, values


@pytest.fixture(params=[None, 8], ids=["in one go", "in pieces of 8 bytes"])
def pieces(request: pytest.FixtureRequest) -> Iterator[None]:
    with pieces_of(request.param):
        yield


# --- the two formats ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"instances": [1.0, 2, 5e0]}', [1, 2, 5]),
        ('{"inputs": [1.0, 2, 5e0]}', [1, 2, 5]),
        ('{"instances": [{"x": 1.0}, {"x": 2}]}', [1, 2]),
        ('{"instances": [{"x": [1, 2]}]}', [[1, 2]]),
        ('{"inputs": {"x": [[1], [2]]}}', [[1], [2]]),
        ('{"inputs": {"x": 3}}', 3),
        ('{"inputs": 3}', 3),
        ('{"inputs": []}', []),
        ('{"inputs": [[], []]}', [[], []]),
        ('{"instances": [[], []]}', [[], []]),
        ('{"inputs": {"x": [1], "other": ["a", {}]}}', [1]),
        ('{"other": {"instances": 1}, "instances": [1]}', [1]),
        (' \t\r\n{ "instances" : [ 1 , 2 ] } \n', [1, 2]),
        ('{"instances": [1.0], "signature_name": "s"}', [1]),
        ('{"instances": [1.0] , "signature_name" : "s" }', [1]),
    ],
)
@pytest.mark.usefixtures("pieces")
def test_rows_and_columns_plain_and_named_are_read(body: str, expected: object) -> None:
    assert values(body) == expected


def test_the_format_of_the_answer_follows_the_key_of_the_request() -> None:
    assert json_in.parse(b'{"instances": [1]}').row
    assert not json_in.parse(b'{"inputs": [1]}').row


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ('{"instances": [1]}', ""),
        ('{"signature_name": "", "instances": [1]}', ""),
        ('{"signature_name": "s", "instances": [1]}', "s"),
        ('{"instances": [1], "signature_name": "s"}', "s"),
        ('{"instances": ["a"], "signature_name": "s"}', "s"),
        ('{"signature_name": "\\u00e4", "instances": [1]}', "ä"),
        ('{"signature_name": "ä", "instances": [1]}', "ä"),
        ('{"signature_name": "s", "instances": [1], "signature_name": "t"}', "s"),
        ('{"instances": [1], "signature_name": "s", "more": [1]}', "s"),
        ('{"instances": [{"x": 1}], "signature\\u005fname": "s", "more": [1]}', "s"),
        ('{"inputs": {"x": 1}, "more": {"signature_name": "t"}, "signature_name": "s"}', "s"),
        ('{"signature\\u005fname": "s", "instances": [1], "signature_name": "t"}', "s"),
    ],
)
def test_the_signature_name_stands_anywhere_and_the_first_counts(body: str, name: str) -> None:
    parsed = json_in.parse(body.encode())
    assert parsed.signature_name == name


def test_a_signature_name_after_the_end_of_the_object_is_not_its_own() -> None:
    for value in ('{"instances": [1]}', '{"inputs": {"x": [1]}}'):
        body = value + ', "signature_name": "s"}'
        assert json_in.parse(body.encode()).signature_name == ""
        assert values(body) == [1]
    assert "after the end" in refusal('{"instances": [1]}, {, "signature_name": "s"}')


def test_several_inputs_of_different_types_stand_in_rows_or_in_columns() -> None:
    wanted = signature(name=STRING, count=INT64, vec=FLOAT)
    rows = '{"instances": [{"name": "Ann", "count": 3, "vec": [1, 2]}, {"vec": [3, 4], "name": "Bob", "count": 4}]}'
    columns = '{"inputs": {"name": ["Ann", "Bob"], "count": [3, 4], "vec": [[1, 2], [3, 4]]}}'
    for body in (rows, columns):
        found = {name: tensor.data.tolist() for name, tensor in tensors(body, wanted).items()}
        assert found == {"name": [b"Ann", b"Bob"], "count": [3, 4], "vec": [[1, 2], [3, 4]]}


# --- what TensorFlow Serving's parser takes beyond JSON -------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"instances": [NaN, Infinity, -Infinity, Inf, -Inf]}', [None, math.inf, -math.inf, math.inf, -math.inf]),
        ('{"instances": [1.0]} xyz', [1]),
        (b'{"instances": [1.0]} \xff', [1]),
        (b'{"instances": [{"x": 1.0}]} }\xff', [1]),
        ('{"instances": [1.0]}}', [1]),
        ('{"instances": [1.0]} {"instances": [2.0]}', [1]),
        ('\ufeff{"instances": [1.0]}', [1]),
        ('{"instances": [1.0], "instances": [2.0]}', [1]),
        ('{"instances" : [1.0], "instances" : [2.0]}', [1]),
        ('{"inst\\u0061nces": [1.0], "instances": [2.0]}', [1]),
        ('{"inputs": {"x": [1.0], "x": [2.0]}}', [1]),
        ('{"instances": [{"x": 1.0, "x": 2.0}, {"x": 3.0}]}', [1, 3]),
        ('{"instances": [1e39, -1e39, 1e-50]}', [math.inf, -math.inf, 0]),
        ('{"instances": [1000000000000000000000000000000]}', [1e30]),
        ('{"instances": [-0]}', [0]),
        ('{"instances": [NaN, 1.1754943508222875e301, 2]}', [None, math.inf, 2]),  # what stands in for NaN meanwhile
        ('{"instances": [-1000000000000000000000]}', [-1e21]),
    ],
)
@pytest.mark.usefixtures("pieces")
def test_what_tfs_takes_beyond_json_is_taken(body: str, expected: list[float | None]) -> None:
    assert values(body) == pytest.approx(expected)


def test_a_word_for_a_number_inside_a_string_stays_as_it_is() -> None:
    assert values('{"instances": ["Inf \\" -Inf"], "x": Inf}', STRING) == ['Inf " -Inf']


# --- types ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "text", "expected"),
    [
        (DOUBLE, "[0.1, 1, 18446744073709551615]", [0.1, 1, 1.8446744073709552e19]),
        (INT64, "[9007199254740993, -9223372036854775808]", [9007199254740993, -(2**63)]),
        (UINT64, "[18446744073709551615, 0]", [2**64 - 1, 0]),
        (UINT32, "[4294967295]", [2**32 - 1]),
        (INT32, "[-2147483648, 2147483647]", [-(2**31), 2**31 - 1]),
        (UINT8, "[300, -1]", [44, 255]),
        (INT8, "[200]", [-56]),
        (UINT16, "[65535]", [65535]),
        (HALF, "[0.1, 1e9]", [0.0999755859375, math.inf]),
        (BFLOAT16, "[1, 1.00390625, 1.01171875, -2]", [0x3F80, 0x3F80, 0x3F82, 0xC000]),
        (BFLOAT16, "[1e39, NaN]", [0x7F80, 0x7FC0]),
        (BOOL, "[true, false]", [True, False]),
    ],
)
@pytest.mark.usefixtures("pieces")
def test_each_type_takes_its_values(dtype: DType, text: str, expected: list[object]) -> None:
    assert values(f'{{"instances": {text}}}', dtype) == expected


@pytest.mark.usefixtures("pieces")
def test_complex_numbers_are_pairs() -> None:
    found = tensors('{"inputs": [[1, 2], [0.5, -1]]}', signature(x=COMPLEX64))["x"].data
    assert found.tolist() == [1 + 2j, 0.5 - 1j]
    assert tensors('{"inputs": [1, 2]}', signature(x=COMPLEX64))["x"].data.tolist() == 1 + 2j
    for body, shape in (("[]", (0,)), ("[[], []]", (2, 0)), ("[[[1, 2]]]", (1, 1))):
        assert tensors(f'{{"inputs": {body}}}', signature(x=COMPLEX64))["x"].data.shape == shape


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"inputs": [1.5]}', "inputs[0]: expected a complex64 value as a pair [real, imaginary], found 1.5"),
        ('{"inputs": [1, 2, 3]}', "inputs[0]: expected a complex64 value as a pair [real, imaginary], found 1"),
        ('{"inputs": 1}', "inputs: expected a complex64 value as a pair [real, imaginary], found 1"),
        (
            '{"inputs": [[1, 2, 3], [1, 2, 3]]}',
            "inputs[0]: expected a complex64 value as a pair [real, imaginary], found a list of 3",
        ),
        (
            '{"inputs": [[[1], [2]]]}',
            "inputs[0][0]: expected a complex64 value as a pair [real, imaginary], found a list of 1",
        ),
        ('{"instances": [1, 2]}', "instances[0]: expected a complex64 value as a pair [real, imaginary], found 1"),
        ('{"instances": [{"x": 1}, {"x": 2}]}', "instances[0].x: expected a complex64 value as a pair"),
        ('{"inputs": [true]}', "inputs[0]: "),
    ],
)
def test_what_is_no_pair_is_named_with_its_place(body: str, said: str) -> None:
    assert refusal(body, signature(x=COMPLEX64)).replace("1.0", "1").startswith(said)


@pytest.mark.usefixtures("pieces")
def test_an_offset_is_that_of_the_text_which_was_sent() -> None:
    for words in ("[Inf, -NaN, -Inf, Infinity, NaN]", '["Inf", "-NaN"]', "[1]", "[Inf, Inf, Inf, Inf, Inf]"):
        body = f'{{"ünd": {words}, "inputs": [1 2]}}'
        assert refusal(body).endswith(f"at offset: {body.index('2]')}")


@pytest.mark.parametrize(
    ("dtype", "wrong"),
    [
        (FLOAT, ['"a"', "null", "true", "{}", '{"b64": "aGk="}']),
        (INT64, ["1.0", "1e2", "true", "9223372036854775808", "NaN", '"1"']),
        (UINT64, ["-1", "18446744073709551616"]),
        (INT32, ["3000000000", "1.5"]),
        (UINT8, ["3000000000"]),
        (UINT16, ["-1", "65536", "70000"]),
        (UINT32, ["-1", "4294967296"]),
        (BOOL, ["1", "0.0", '"true"', "null"]),
        (
            STRING,
            ["1", "true", "null", '{"b64": 1}', '{"b64": "aGk=", "x": 1}', "{}", '{"b64": "YQ==", "b64": "YQ=="}'],
        ),
    ],
)
@pytest.mark.usefixtures("pieces")
def test_values_of_another_type_are_refused_with_their_place(dtype: DType, wrong: list[str]) -> None:
    right = {FLOAT: "1", BOOL: "true", STRING: '"a"'}.get(dtype, "1")
    for text in wrong:
        message = refusal(f'{{"inputs": [[{right}], [{text}]]}}', signature(x=dtype))
        assert message.startswith("inputs[1][0]: ")
        assert (
            "not formatted correctly for base64 data" in message or f"is not of expected type: {dtype.name}" in message
        )


# --- strings --------------------------------------------------------------------------------------------------------


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1), st.booleans())
def test_strings_become_utf8(texts: list[str], ascii_only: bool) -> None:
    body = json.dumps({"instances": texts}, ensure_ascii=ascii_only)
    assert tensors(body, signature(x=STRING))["x"].data.tolist() == [text.encode() for text in texts]


@given(st.lists(st.binary(), min_size=1), st.booleans())
def test_base64_becomes_bytes_with_or_without_padding(items: list[bytes], padded: bool) -> None:
    encoded = [b64encode(item).decode() for item in items]
    body = json.dumps({"instances": [{"b64": text if padded else text.rstrip("=")} for text in encoded]})
    assert tensors(body, signature(x=STRING))["x"].data.tolist() == items


def test_strings_and_base64_may_stand_side_by_side_and_alone() -> None:
    assert values('{"instances": ["a", {"b64": "aGk="}]}', STRING) == ["a", "hi"]
    assert values('{"inputs": {"b64": "aGk"}}', STRING) == "hi"
    assert values('{"inputs": {"x": {"b64": "a G\\nk="}}}', STRING) == "hi"
    assert values('{"instances": [{"x": {"b64": "aGk="}}]}', STRING) == ["hi"]


@pytest.mark.parametrize("text", ["***", "_-==", "aGk==", "a", "aG=k", "====", "aGk=x"])
def test_what_is_no_base64_is_refused(text: str) -> None:
    assert refusal(json.dumps({"inputs": [{"b64": text}]}), signature(x=STRING)) == "inputs[0]: Unable to base64 decode"


# --- mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "JSON Parse error: The document is empty"),
        ("hello", "JSON Parse error: .* at offset: 0"),
        ("[1, 2, 3]", r"JSON Value: \[1, 2, 3\] Is not object"),
        ("null", "JSON Value: null Is not object"),
        ('{"instances": [1, 2', "JSON Parse error: .* at offset: 19"),
        ('{"instances": [1,, 2]}', "JSON Parse error: .* at offset: 17"),
        ('{"instances": [,1]}', "JSON Parse error"),
        ('{"instances": [1,]}', "JSON Parse error"),
        ('{"instances": [01]}', "JSON Parse error"),
        ('{"instances": ["a\tb"]}', "JSON Parse error"),
        ('{"instances": [1e400]}', "Number too big to be stored in double"),
        ('{"instances": [%s]}' % ("9" * 5000), "Number too big to be stored in double"),
        ('{"instances": ["\\ud800"]}', "surrogate"),
        ('{"instances": [1], "inputs": [1]}', "expecting only one of 'inputs' or 'instances'"),
        ('{"foo": [1]}', "Missing 'inputs' or 'instances' key"),
        ("{}", "Missing 'inputs' or 'instances' key"),
        ('{"instances": [1, 2, 3],}', "JSON Parse error"),
        ('{"inputs": [1, 2], "signature_name": "s"[', "JSON Parse error"),
        ('{"inputs": [1, 2], "signature_name": "s"', "JSON Parse error"),
        ('{"inputs": }', "JSON Parse error"),
        ('{"instances": 1}', "Expecting 'instances' to be an list/array"),
        ('{"instances": {"x": 1}}', "Expecting 'instances' to be an list/array"),
        ('{"instances": []}', "No values in 'instances' array"),
        ('{"instances": [{"z": 1}]}', r"instances\[0\]: .*does not have named input: z"),
        ('{"instances": [{"x": 1}, {}]}', r"instances\[1\]: .*keys must be equal to: x"),
        ('{"instances": [{"x": 1}, 2]}', "Expecting object but got list at item 1 of input list"),
        ('{"instances": [2, {"x": 1}]}', "Expecting value/list but got object at item 1 of input list"),
        ('{"inputs": {"z": 1}}', "Missing named input: x in 'inputs' object."),
        ('{"instances": [[1, 2], [3]]}', r"^instances\[1\]: expected a list of 2 values .*, got one of 1 value$"),
        (
            '{"instances": [{"x": [1, 2]}, {"x": [3]}]}',
            r"^instances\[1\]\.x: expected (a list of 2 values|shape \[2\])",
        ),
        (
            '{"inputs": {"x": [[[1], [2]], [[3], 4]]}}',
            r"^inputs\.x\[1\]\[1\]: expected a list of 1 value .*, got (Number 4|a number)$",
        ),
        (
            '{"inputs": [1, [2]]}',
            r"^inputs\[1\]: (.*Array is not of expected type: float|expected a number .*, got a list)",
        ),
        ('{"instances": [{"x": [1, "a"]}]}', r"^instances\[0\]\.x\[1\]: JSON Value: \"a\" Type: String"),
    ],
)
@pytest.mark.usefixtures("pieces")
def test_a_mistake_is_named_with_its_place(body: str, message: str) -> None:
    assert re.search(message, refusal(body))


def test_several_inputs_need_names() -> None:
    wanted = signature(a=FLOAT, b=FLOAT)
    assert "instances is a plain list" in refusal('{"instances": [1, 2]}', wanted)
    assert "instances is a plain list" in refusal('{"instances": [{"b64": "aGk="}]}', wanted)
    assert "inputs is a plain value/list" in refusal('{"inputs": [1, 2]}', wanted)
    assert "keys must be equal to: a,b" in refusal('{"instances": [{"a": 1}]}', wanted)


def test_a_signature_name_that_is_no_string_is_refused_before_the_signature_is_asked_for() -> None:
    with pytest.raises(BadInput, match="'signature_name' key must be a string value"):
        json_in.parse(b'{"signature_name": 5, "instances": [1]}')


@pytest.mark.usefixtures("pieces")
def test_what_stands_under_a_key_given_twice_has_to_be_json_though_the_first_counts() -> None:
    for wrong in ("[1.0, 2.0, 3.0, 4.0 5.0]", '{"x": [1.0, 2.0, 3.0, 4.0,]}'):
        assert "JSON Parse error" in refusal(f'{{"instances": [1.0, 2.0, 3.0], "instances": {wrong}}}')
        assert "JSON Parse error" in refusal(f'{{"more": {{"y": 1, "y": {wrong}}}, "instances": [1.0, 2.0, 3.0]}}')


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize(
    ("body", "right"),
    [
        ('{"instances": [1.0, [2], {"x": "a"}]}', True),
        ('{"signature_name": "s", "inputs": [NaN, "a", {"x": [1, 2, 3]}, true]} and more', True),
        ('{"more": [1, 2, {"x": 3}]}', True),
        ('{"instances": [1.0, 2.0, 3.0,]}', False),
        ('{"signature_name": "s", "inputs": [1.0, 2.0, 3.0}', False),
        ('{"inputs": {"x": [1.0, 2.0, 3.0, nan]}}', False),
        ('{"instances": [{"x": [1.0, 2.0, 01, 3.0]}, {"x": [1.0]}]}', False),
        ('{"instances": [1.0, 2.0, 3.0], "more": [1, 2, 3, 4 5]}', False),
    ],
)
def test_a_body_can_be_checked_where_no_tensor_comes_of_it(body: str, right: bool) -> None:
    with contextlib.nullcontext() if right else pytest.raises(BadInput, match="JSON Parse error"):
        text = body.encode()
        parsed = json_in.parse(text) if len(text) < json_in.LARGE else at_once(json_in.parse_in_steps(text))
        at_once(parsed.check_in_steps())


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances": [%b]}' % b",".join([b"1.5"] * 2_100_000),
        b'{"instances": [%b]}' % b",".join([b'"a"'] * 2_100_000),
        b'{"instances": %b}' % (b"[" * 2000 + b"1" + b"]" * 2000),
    ],
    ids=["numbers", "strings", "deep"],
)
def test_a_body_that_is_too_much_to_be_checked_is_not_called_wrong(body: bytes) -> None:
    at_once(json_in.parse(body).check_in_steps())
    at_once(at_once(json_in.parse_in_steps(body)).check_in_steps())


def test_bytes_that_are_not_utf8_are_refused() -> None:
    for body in (b'{"instances": ["\xff"]}', b'{"signature_name": "\xff", "instances": [1]}', b'{"\xff": 1}'):
        with pytest.raises(BadInput, match="not UTF-8"):
            json_in.parse(body).tensors(X)


@pytest.mark.parametrize("depth", [65, 300, 1000, 100_000])
@pytest.mark.parametrize("opening", ['{"instances": %s}', '{"x": %s, "instances": [1]}', '{"inputs": {"x": %s}}', "%s"])
def test_deep_nesting_is_refused_or_skipped_and_never_exhausts_the_stack(depth: int, opening: str) -> None:
    for text in ("[" * depth, "[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth):
        try:
            found = values(opening % text)
        except BadInput as error:
            message = str(error)
            assert len(message) < 1000
        else:
            assert found == [1]  # nobody looks under keys that mean nothing


def test_messages_stay_short_whatever_was_sent() -> None:
    long = "a" * 100_000
    for body in (
        {"instances": [long]},
        {"instances": {long: 1}},
        {"instances": [{long: 1}]},
        {"inputs": {"x": [{long: 1}]}},
        [long] * 9,
    ):
        assert len(refusal(json.dumps(body))) < 1000


def test_a_body_of_too_many_values_that_are_not_all_numbers_is_refused_unparsed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(json_scan, "MOST_VALUES", 100)
    assert values(json.dumps({"instances": [1] * 1000})) == [1] * 1000
    assert values(json.dumps({"instances": ["a"] * 90}), STRING) == ["a"] * 90
    for body in ({"instances": ["a"] * 1000}, {"inputs": {"x": [{}] * 1000}}, {"instances": [[True]] * 1000}):
        assert re.search("More than 100 values are taken only if", refusal(json.dumps(body)))


@pytest.mark.parametrize("wrong", ["1, [2", "[1, [2], 3]", "[[1, 2], [3]]", "[[1, 2], 3]", "[1, true]", "[1, 1e999]"])
def test_the_parser_is_free_again_after_a_text_that_it_refused(wrong: str) -> None:
    with pieces_of(1 << 20):
        assert json_numbers.numbers_at_once(wrong.encode(), FLOAT) is None
        found = json_numbers.numbers_at_once(b"[[1, 2], [3, 4]]", FLOAT)
    assert found is not None
    assert found.tolist() == [[1, 2], [3, 4]]


def test_without_a_careful_reader_large_texts_are_read_or_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_numbers, "PIECE", 8)
    monkeypatch.setattr(json_numbers, "CACHED", 8)

    def read(text: bytes, dtype: DType) -> list[Any] | None:
        steps = json_numbers.numbers(text, 0, len(text), dtype)
        while True:
            try:
                next(steps)
            except StopIteration as stop:
                return None if stop.value is None else stop.value.tolist()

    assert read(b"[[1, 2], [3, 4], [5, 6]]", FLOAT) == [[1, 2], [3, 4], [5, 6]]
    for text in (b"[1, 2, 3, [4, 5, 6]]", b"[1, 2, 3, 4, 5, NaN]", b"[1, 2, 3, 4, 5, ,6]", b'["a", "b", "c", "d"]'):
        assert read(text, FLOAT) is None
    for text in (b"[        ,        ]", b"[[]        ,        ,        []]", b"[        ,        ,        ]"):
        assert read(text, FLOAT) is None
    for dtype in (STRING, BOOL):
        assert read(b"[1, 2, 3, 4, 5, 6]", dtype) is None
    assert read(b"[1, 2, 3, 3000000000]", INT32) is None


def recorded(kind: str) -> list[Any]:
    """Predict bodies that a real TensorFlow Serving answered with 200, or refused as bodies."""
    data = Path(__file__).parents[2] / "golden" / "data" / "rest_cases.json"
    found = []
    for case in json.loads(data.read_text()):
        request, response = case["request"], case["response"]
        path = re.fullmatch("/v1/models/(half_plus_two|multi)[^:?]*:predict", request["path"])
        if request["method"] != "POST" or path is None or not isinstance(request["body"], str):
            continue
        code = response["status_line"].split()[1]
        # What the graph, the versions or the output's type refuse is no matter of the body.
        elsewhere = code != "200" and re.search(
            "node|label|version|Servable|signature def|type: half", str(response["body"])
        )
        if not elsewhere and response["body"] and (code == "200") == (kind == "accepted"):
            found.append(pytest.param(path[1], request["body"], id=case["id"]))
    return found


MULTI = {
    "": signature(name=STRING, count=INT64, vec=FLOAT),
    "scalar_in": X,
    "matrix": signature(m=FLOAT),
    "ints": signature(flag=BOOL, n=INT32, u=UINT8),
    "half_out": X,
    "nonfinite": X,
    "scalar_out": X,
    "dbl": X,
}


@pytest.mark.parametrize(("model", "body"), recorded("accepted"))
def test_bodies_that_tfs_took_are_taken(model: str, body: str) -> None:
    parsed = json_in.parse(body.encode())
    assert parsed.tensors(X if model == "half_plus_two" else MULTI[parsed.signature_name])


@pytest.mark.parametrize(("model", "body"), recorded("refused"))
def test_bodies_that_tfs_refused_are_refused(model: str, body: str) -> None:
    with pytest.raises(BadInput):
        tensors(body, X if model == "half_plus_two" else MULTI["matrix" if "matrix" in body else ""])
