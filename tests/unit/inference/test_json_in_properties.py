"""Predict bodies of every shape, type, layout and damage, held to a plain and slow reading of TensorFlow Serving's rules."""

import contextlib
import json
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from adapter.inference import json_in, json_numbers, json_ragged, json_skeleton
from adapter.inference.tensor import (
    BFLOAT16,
    BOOL,
    DTYPES,
    FLOAT,
    INT32,
    INT64,
    STRING,
    UINT16,
    UINT32,
    UINT64,
    BadInput,
    DType,
)
from tests.unit.inference.json_bodies import X, pieces_of, refusal, signature, tensors
from tests.unit.steps import run

INT32_RANGE = (-(2**31), 2**31 - 1)
RANGES = {INT64: (-(2**63), 2**63 - 1), UINT64: (0, 2**64 - 1), UINT32: (0, 2**32 - 1), UINT16: (0, 2**16 - 1)}


# --- any shape, any type, any layout of the text --------------------------------------------------------------------

NUMERIC = [dtype for dtype in DTYPES.values() if dtype.numpy.kind in "iuf" and dtype is not BFLOAT16]


@st.composite
def arrays(draw: st.DrawFn) -> tuple[DType, np.ndarray[Any, Any]]:
    dtype = draw(st.sampled_from(NUMERIC))
    shape = draw(npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6))
    finite = {} if dtype.numpy.kind in "iu" else {"allow_nan": False, "allow_infinity": False}
    return dtype, draw(npst.arrays(dtype.numpy, shape, elements=npst.from_dtype(dtype.numpy, **finite)))


LAYOUTS: list[Callable[[object], str]] = [
    json.dumps,
    lambda value: json.dumps(value, separators=(",", ":")),
    lambda value: json.dumps(value, indent=2),
    lambda value: json.dumps(value, separators=(" ,\t", " : ")),
]


@given(arrays(), st.sampled_from(LAYOUTS), st.booleans(), st.booleans())
@settings(max_examples=300)
def test_numbers_of_every_shape_type_and_layout_come_through_exactly(
    typed: tuple[DType, np.ndarray[Any, Any]], layout: Callable[[object], str], row: bool, named: bool
) -> None:
    dtype, array = typed
    nested = array.tolist()
    if row and not (array.ndim and len(array)):
        return
    value: object = nested
    if named:
        value = [{"x": item} for item in nested] if row else {"x": nested}
    body = layout({"signature_name": "s", "instances" if row else "inputs": value})
    expected = array
    if 0 in array.shape:  # what is inside an empty list can't be seen
        expected = array.reshape(array.shape[: array.shape.index(0) + 1])
    for size in (None, 16):
        with pieces_of(size):
            found = tensors(body, signature(x=dtype))["x"].data
        assert found.shape == expected.shape
        assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("shape", [(), (7,), (2, 30), (3, 1, 2)])
@pytest.mark.parametrize(
    "damage", ["none", "one more", "one less", "in a list of its own", "a list less", "an empty list"]
)
def test_long_lists_are_read_if_all_are_as_long(shape: tuple[int, ...], damage: str) -> None:
    array = np.random.default_rng(2).random((2, *shape, 100)).round(5)
    value = array.tolist()
    row = value[1]
    while isinstance(row[0], list):
        outer, row = row, row[-1]
    match damage:
        case "one more":
            row.append(1.5)
        case "one less":
            row.pop()
        case "in a list of its own":
            row[50] = [row[50]]
        case "a list less":
            (outer if shape else value).pop()
        case "an empty list":
            row.clear()
    body = json.dumps({"instances": value}).encode()
    expected = read_or_none(body)
    if damage == "none" or (damage == "a list less" and not shape):
        assert expected is not None
        np.testing.assert_array_equal(tensors(body)["x"].data, expected)
    else:
        assert expected is None
        assert re.match(r"instances\[1\](\[\d+\])*: ", refusal(body))


def test_large_bodies_are_read_in_many_short_steps() -> None:
    array = np.random.default_rng(1).random((64, 128, 128)).round(6)
    for value in (array.tolist(), [{"x": item} for item in array.tolist()]):
        body = json.dumps({"instances": value}).encode()
        steps, found = run(json_in.parse(body).tensors_in_steps(X))
        np.testing.assert_array_equal(found["x"].data, array.astype(np.float32))
        assert steps >= len(body) // (json_numbers.PIECE + 200_000)


@st.composite
def ragged(draw: st.DrawFn) -> tuple[list[Any], list[int]]:
    """Regular lists but for one that lost or gained a value, and the index of that one."""
    shape = draw(npst.array_shapes(min_dims=2, max_dims=4, min_side=2, max_side=4))
    value = np.ones(shape).tolist()
    index = [draw(st.integers(0, size - 1)) for size in shape[: draw(st.integers(1, len(shape) - 1))]]
    index[draw(st.integers(0, len(index) - 1))] = 1  # not the first of its kind, which is the pattern for the others
    inner = value
    for position in index:
        inner = inner[position]
    if draw(st.booleans()):
        inner.append(inner[-1])
    else:
        inner.pop()
    return value, index


@given(ragged())
def test_the_place_of_a_ragged_list_is_found_in_text_as_in_objects(case: tuple[list[Any], list[int]]) -> None:
    value, index = case
    skeleton = re.sub(rb"[0-9. ]", b"", json.dumps(value).encode())
    _, (found, what) = run(json_ragged.irregularity_in_steps(skeleton))
    assert list(found) == index
    assert "as in the lists before it" in what
    said = refusal(json.dumps({"inputs": value}))
    assert said.startswith("inputs" + "".join(f"[{position}]" for position in index) + ":")
    assert what.rpartition(", got")[0] in said


@pytest.mark.parametrize(
    ("late", "index", "what"),
    [
        ("[,]", (100_000,), "expected a list of 20 values as in the lists before it, got one of 2 values"),
        (f"[{',' * 20}]", (100_000,), "expected a list of 20 values as in the lists before it, got more"),
        ("", (100_000,), "expected a list of 20 values as in the lists before it, got a number"),
        (f"[[],{',' * 18}]", (100_000, 0), "expected a number as before it, got a list"),
    ],
)
def test_the_place_of_a_late_ragged_list_is_found_in_steps(late: str, index: tuple[int, ...], what: str) -> None:
    row = f"[{',' * 19}]"
    skeleton = f"[{','.join([row] * 100_000)},{late},{row}]".encode()
    steps, found = run(json_ragged.irregularity_in_steps(skeleton))
    assert found == (index, what)
    assert steps >= 2


@pytest.mark.parametrize(
    ("skeleton", "index", "what"),
    [
        ("", (), "JSON Parse error: expected a list"),
        ("[" * 65, (), "lists are nested more than 64 deep"),
        ("[,],[,]", (), "JSON Parse error: there is more after the end of the list"),
        ("[[,][,]]", (0,), "JSON Parse error: no comma"),
        ("[[,],[,", (1,), "JSON Parse error: the list has no end"),
    ],
)
def test_what_no_shape_has_is_said_of_a_skeleton(skeleton: str, index: tuple[int, ...], what: str) -> None:
    assert run(json_ragged.irregularity_in_steps(skeleton.encode()))[1] == (index, what)


@given(st.text("[],", min_size=1, max_size=12))
def test_every_irregular_skeleton_has_something_to_say(text: str) -> None:
    skeleton = text.encode()
    if json_skeleton.shape_of(skeleton) is None:
        _, (index, what) = run(json_ragged.irregularity_in_steps(skeleton))
        assert what
        assert all(position >= 0 for position in index)


# --- against a plain and slow reading of the rules ------------------------------------------------------------------


class Refused(Exception):
    pass


def read_slowly(body: bytes, dtype: DType) -> np.ndarray[Any, Any]:
    """json_tensor.cc for a signature with the one input `x`, value by value."""
    try:
        text = body.decode("utf-8-sig", "surrogateescape").lstrip(" \t\r\n")
        decoder = json.JSONDecoder(object_pairs_hook=first_wins, parse_float=finite, parse_int=whole)
        tree, end = decoder.raw_decode(text)
        text[:end].encode()  # what follows may be anything
    except (ValueError, RecursionError) as error:
        raise Refused from error
    if not isinstance(tree, dict) or ("instances" in tree) == ("inputs" in tree):
        raise Refused
    if not isinstance(tree.get("signature_name", ""), str):
        raise Refused
    value = column(tree["inputs"]) if "inputs" in tree else rows(tree["instances"])
    shape: list[int] = []
    first = value
    while isinstance(first, list):
        shape.append(len(first))
        first = first[0] if first else None
    leaves: list[float] = []
    fill(value, 0, shape, dtype, leaves)
    if dtype.numpy.kind != "f":
        return np.array(leaves, f"<u{dtype.numpy.itemsize}").view(dtype.numpy).reshape(shape)
    with np.errstate(over="ignore"):
        return np.array(leaves, np.float64).astype(dtype.numpy).reshape(shape)


def finite(text: str) -> float:
    """A literal; infinity is written as a word, and one that is too large is refused wherever it stands."""
    value = float(text)
    if math.isinf(value):
        raise Refused
    return value


def whole(text: str) -> int:
    finite(text)
    return int(text)


def first_wins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(reversed(pairs))


def column(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "x" not in value:
        raise Refused
    return value["x"]


def rows(value: Any) -> Any:
    if not isinstance(value, list) or not value:
        raise Refused
    if not any(isinstance(item, dict) for item in value):
        return value
    if not all(isinstance(item, dict) and item.keys() == {"x"} for item in value):
        raise Refused
    return [item["x"] for item in value]


def fill(item: Any, level: int, shape: list[int], dtype: DType, leaves: list[float]) -> None:
    if isinstance(item, list):
        if level >= len(shape) or len(item) != shape[level]:
            raise Refused
        for inner in item:
            fill(inner, level + 1, shape, dtype, leaves)
        return
    if level != len(shape) or type(item) not in (int, float):
        raise Refused
    if dtype.numpy.kind == "f":
        leaves.append(float(item))
        return
    low, high = RANGES.get(dtype, INT32_RANGE)
    if not isinstance(item, int) or not low <= item <= high:
        raise Refused
    leaves.append(item & ((1 << 8 * dtype.numpy.itemsize) - 1))


def read_or_none(body: bytes, dtype: DType = FLOAT) -> np.ndarray[Any, Any] | None:
    try:
        return read_slowly(body, dtype)
    except Refused:
        return None


def assert_reads_as_the_slow_reading_does(body: bytes, dtype: DType) -> None:
    expected = read_or_none(body, dtype)
    try:
        found = tensors(body, signature(x=dtype))["x"].data
    except BadInput:
        found = None
    if expected is None or found is None:
        assert expected is found, body
        return
    tree, _ = json.JSONDecoder(object_pairs_hook=first_wins).raw_decode(
        body.decode("utf-8-sig", "surrogateescape").lstrip(" \t\r\n")
    )
    assert json_in.parse(body).signature_name == tree.get("signature_name", "")
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    if dtype.numpy.kind == "f":
        np.testing.assert_array_equal(found, expected)
    else:
        assert found.tobytes() == expected.tobytes()


@st.composite
def nested(draw: st.DrawFn) -> str:
    """Text like that of nested lists, mostly wrong, and often only just."""
    return draw(st.text("[[[]]],,,,12- .e", max_size=24))


@settings(max_examples=1500)
@given(nested(), st.sampled_from([FLOAT, INT32]), st.sampled_from(["instances", "inputs"]), st.sampled_from([4, None]))
def test_malformed_lists_are_never_read_as_numbers(text: str, dtype: DType, key: str, size: int | None) -> None:
    with pieces_of(size):
        assert_reads_as_the_slow_reading_does(f'{{"{key}": {text}}}'.encode(), dtype)


@st.composite
def damaged(draw: st.DrawFn) -> tuple[bytes, DType]:
    """A good body with characters changed, cut out or put in."""
    dtype, array = draw(arrays())
    row = draw(st.booleans())
    value: object = array.tolist()
    if draw(st.booleans()):
        value = [{"x": item} for item in value] if row and isinstance(value, list) else {"x": value}
    items: list[tuple[str, object]] = [("instances" if row else "inputs", value)]
    items += draw(st.lists(st.sampled_from([("signature_name", "s"), ("more", [1]), ("inputs", [1])]), max_size=2))
    text = draw(st.sampled_from(LAYOUTS))(dict(draw(st.permutations(items)))).encode()
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(text)))
        stop = draw(st.integers(start, start + 3))
        patch = draw(
            st.sampled_from([b"", b"", b"[", b"]", b",", b"{", b"}", b":", b'"', b"1", b"-", b".", b" ", b"\n", b"e9"])
        )
        patch = patch or draw(
            st.sampled_from([b"", b"", b"\\", b"true", b"null", b'"x"', b'"x":', b"[1,2]", b"\xff", b"\0", b"NaN"])
        )
        text = text[:start] + patch + text[stop:]
    return text, dtype


@settings(max_examples=1500)
@given(damaged(), st.sampled_from([4, 32, None]))
def test_damaged_bodies_are_refused_or_read_by_the_rules(case: tuple[bytes, DType], size: int | None) -> None:
    with pieces_of(size):
        assert_reads_as_the_slow_reading_does(*case)


@settings(max_examples=500)
@given(
    st.binary(max_size=60),
    st.sampled_from([b"%b", b'{"instances": %b}', b'{"inputs": {"x": %b}}', b'{"instances": ["%b"]}']),
)
def test_arbitrary_bytes_are_refused_or_read_never_anything_else(data: bytes, frame: bytes) -> None:
    for dtype in (FLOAT, STRING, BOOL):
        with contextlib.suppress(BadInput):
            json_in.parse(frame.replace(b"%b", data)).tensors(signature(x=dtype))
