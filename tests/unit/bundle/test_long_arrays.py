"""Fields that are arrays and long: read straight from the text, they are what msgspec's way makes of them."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct, field

from adapter.bundle.arrays import Bool, Float32, Float64, Int32, Int64, UInt8
from adapter.bundle.bodies import Bodies, Body
from adapter.bundle.long_arrays import Taken, decoded
from adapter.inference.tensor import BadInput
from adapter.inference.turns import at_once


class Inner(Struct):
    pixels: list[float]


class Sketch(Struct):
    pixels: Float32[-1, 3] | None = None
    weights: Float64 | None = None
    palette: UInt8[-1] | None = None
    counts: Int64 | None = None
    small: Int32 | None = None
    flags: Bool | None = None
    several: list[Float32] = []
    inner: Inner | None = None
    anything: Any = None
    named: Float32 | None = field(default=None, name="na me")


BODIES = Bodies(Sketch, 1000)
LONG = [[0.5, 1, -2e3]] * 400


def taken(body: str) -> Taken | None:
    steps = BODIES.taking("", body.encode())
    return None if steps is None else at_once(steps)


def outcome(body: str, of: Taken | None) -> Any:
    """The requests' fields, arrays as dtype, shape and bytes; or what is said of the mistake."""
    try:
        requests, many = BODIES.read(Body("", body.encode(), of))
    except BadInput as error:
        return str(error)
    return many, [{name: plain(getattr(r, name)) for name in Sketch.__struct_fields__} for r in requests]


def plain(value: Any) -> Any:
    return (value.dtype, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else repr(value)


LISTS: tuple[Callable[[int], Any], ...] = (
    lambda n: [0.25 * i for i in range(n)],
    lambda n: [[i, 1e-3 * i, -i] for i in range(n)],
    lambda n: [[i, i] for i in range(n)] + [[1]],
    lambda n: [i % 300 for i in range(n)],
    lambda n: [i % 200 for i in range(n)],
    lambda n: [2**62 + i for i in range(n)],
    lambda n: [2**63 + i for i in range(n)],
    lambda n: [10**400] * n,
    lambda n: [1e300] * n,
    lambda n: [True] * n,
    lambda n: [None] * n,
    lambda n: ["a"] * n,
    lambda n: [[]] * n,
    lambda n: [[[1.5]] * 3] * n,
)
VALUES = st.one_of(
    st.builds(lambda make, n: make(n), st.sampled_from(LISTS), st.integers(100, 2000)),
    st.sampled_from([None, [], [[1, 2, 3]], "list 0 of this text", 0, "x" * 600, {"pixels": [1.5] * 300}]),
)
REQUESTS = st.dictionaries(st.sampled_from([*Sketch.__struct_fields__[:-1], "na me", "more"]), VALUES, max_size=4)


@given(st.one_of(REQUESTS, st.fixed_dictionaries({"instances": st.lists(REQUESTS, max_size=4)})), st.booleans())
def test_whatever_a_body_holds_both_ways_make_the_same_of_it(request: Mapping[str, Any], with_space: bool) -> None:
    body = json.dumps(request, separators=None if with_space else (",", ":"), ensure_ascii=False)
    assert outcome(body, taken(body)) == outcome(body, None)


def test_long_arrays_leave_the_text_and_short_ones_stay() -> None:
    body = json.dumps({"instances": [{"pixels": LONG, "counts": [1, 2]}, {"palette": [7] * 3000}]})
    found = taken(body)
    assert found is not None
    assert found.text == (
        b'{"instances": [{"pixels": "list 0 of this text", "counts": [1, 2]}, {"palette": "list 1 of this text"}]}'
    )
    assert [(array.dtype.name, array.shape) for array in found.arrays.values()] == [
        ("float32", (400, 3)),
        ("int32", (3000,)),
    ]


@pytest.mark.parametrize("many", [False, True])
def test_what_was_read_from_the_text_is_what_the_handler_gets(many: bool) -> None:
    one = {"pixels": LONG, "weights": [0.1] * 300, "counts": [2**62 + 1] * 300, "small": [7] * 300, "anything": ["a"]}
    found = taken(json.dumps({"instances": [one, one]} if many else one))
    assert found is not None
    value = decoded(found, BODIES._many.type if many else Sketch)
    for request in value.instances if many else [value]:
        assert request.pixels.dtype == np.float32
        assert request.pixels.tolist() == LONG
        assert (request.weights == 0.1).all()
        assert request.counts.tolist() == [2**62 + 1] * 300
        assert request.small.dtype == np.int32
        assert request.anything == ["a"]
    assert not found.arrays  # each is the request's alone


def test_an_integer_beyond_its_type_is_left_to_msgspecs_way() -> None:
    for body in ('{"small": [%s1]}' % ("2147483648," * 500), '{"small": [%s1]}' % ("1.5," * 1500)):
        assert taken(body) is None


def test_a_list_of_arrays_stays_in_the_text() -> None:
    assert b'"several"' not in BODIES._arrays.keys


@pytest.mark.parametrize("nested", ['{"pixels": %s}', '{"nobody": %s}', '{"instances": [{"anything": %s}]}'])
def test_nesting_without_end_is_the_clients_mistake(nested: str) -> None:
    body = nested % ("[" * 5000 + "]" * 5000)
    with pytest.raises(BadInput, match="nested too deeply"):
        BODIES.read(Body("", body.encode(), taken(body)))


HOSTILE: dict[str, Callable[[], bytes]] = {
    "keys without lists": lambda: b"{" + b'"pixels":1,' * 6_000_000 + b'"weights":1}',
    "keys with short lists": lambda: b"{" + b'"pixels":[],' * 5_000_000 + b'"weights":1}',
    "keys far from each other": lambda: b"{" + (b'"j":"' + b"a" * 1_900_000 + b'","pixels":1,') * 30 + b'"weights":1}',
    "many lists": lambda: b'{"instances":[' + b",".join([b'{"pixels":[' + b"1," * 500 + b"1]}"] * 50_000) + b"]}",
    "a list without end": lambda: b'{"pixels":[' + b"1," * 30_000_000,
    "lists without keys": lambda: b'{"instances":[' + b"[1,2,3]," * 7_000_000 + b"1]}",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_body_of_sixty_megabytes_that_is_not_cut_is_given_up_soon(kind: str) -> None:
    """Half a second is many times what it takes; to look for every key took twenty."""
    steps = BODIES.taking("", HOSTILE[kind]())
    before = time.thread_time()
    assert steps is not None
    assert at_once(steps) is None
    assert time.thread_time() - before < 0.5


@pytest.mark.parametrize("name", ["pixels", "weights", "counts", "palette"])
def test_a_handler_may_work_in_place(name: str) -> None:
    body = json.dumps({name: LONG if name == "pixels" else [1] * 3000})
    ((request,), _) = BODIES.read(Body("", body.encode(), taken(body)))
    array = getattr(request, name)
    array += 1
    assert array.max() == 2


@pytest.mark.parametrize(
    "body",
    [
        '{"anything": "list 0 of this text", "pixels": %s}',  # a client's own
        '{"pixels": %s, "pixels": "list 0 of this text"}',
        r'{"anything": "\u006cist 0 of this text", "pixels": %s}',
        '{"pixels": %s, "anything": "' + "x" * 70_000 + '"}',  # too much is left
    ],
)
def test_a_name_that_may_not_be_ours_stands_for_nothing(body: str) -> None:
    assert taken(body % json.dumps(LONG)) is None


def test_a_long_list_that_is_no_field_of_an_array_is_msgspecs() -> None:
    body = json.dumps({"anything": {"pixels": LONG}, "weights": [1]})
    found = taken(body)
    assert found is not None
    assert decoded(found, Sketch) is None
    assert outcome(body, found) == outcome(body, None)


def test_a_body_that_is_small_or_no_json_is_left_alone() -> None:
    body = json.dumps({"pixels": LONG}).encode() * 10
    assert BODIES.taking("multipart/form-data; boundary=X", body) is None
    assert BODIES.taking("image/png", body) is None
    assert BODIES.taking("", b'{"pixels": [[1, 2, 3]]}') is None
    assert Bodies(Inner, 1).taking("", body) is None
