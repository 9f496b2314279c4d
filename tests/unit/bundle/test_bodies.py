"""Bodies of `/predict`: JSON, forms and files to requests, and what is said of those that are none."""

from typing import Annotated

import pytest
from msgspec import Meta, Struct

from adapter.bundle.arrays import Float32, UInt8
from adapter.bundle.bodies import Bodies, Body
from adapter.errors import Refused
from adapter.inference.tensor import BadInput
from adapter.inference.turns import at_once

FORM = "multipart/form-data; boundary=XX"


class Point(Struct):
    x: float
    tags: list[str] = []


class Picture(Struct):
    image: bytes
    size: int = 8
    title: str = ""
    tags: list[str] = []
    crop: Annotated[list[float], Meta(max_length=4)] | None = None


class Sketch(Struct):
    pixels: Float32[2, 3]
    palette: UInt8[-1] | None = None


def form(*fields: tuple[str, bytes]) -> bytes:
    parts = [b'--XX\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (n.encode(), v) for n, v in fields]
    return b"".join(parts) + b"--XX--\r\n"


def read(
    request: type[Struct], body: bytes | str, content_type: str = "application/json", most: int = 3
) -> list[Struct]:
    data = body.encode() if isinstance(body, str) else body
    bodies = Bodies(request, most)
    steps = bodies.taking(content_type, data)
    return list(bodies.read(Body(content_type, data, at_once(steps) if steps is not None else None)).requests)


def refusal(request: type[Struct], body: bytes | str, content_type: str = "application/json") -> str:
    with pytest.raises(BadInput) as caught:
        read(request, body, content_type)
    return str(caught.value)


def test_one_request_and_a_batch_are_told_apart_by_their_first_key() -> None:
    bodies = Bodies(Point, 3)
    assert bodies.read(Body("", b' {"x": 1}')) == ([Point(1.0)], False)
    assert bodies.read(Body("", b' { "instances" : [{"x": 1}, {"x": 2, "tags": ["a"]}]}')) == (
        [Point(1.0), Point(2.0, ["a"])],
        True,
    )


@pytest.mark.parametrize("content_type", ["", "application/json; charset=utf-8", "application/x-www-form-urlencoded"])
def test_json_is_json_whatever_curl_calls_it(content_type: str) -> None:
    assert read(Point, '{"x": 1}', content_type) == [Point(1.0)]


@pytest.mark.parametrize(
    ("request_type", "body", "said"),
    [
        (Point, '{"x": "a"}', "x: expected float, got str"),
        (Point, '{"instances": [{"x": 1}, {"x": null}]}', "instances[1].x: expected float, got null"),
        (Point, '{"instances": [{}]}', "instances[0]: object missing required field x"),
        (Point, '{"instances": [{"x": 1, "tags": ["a", 2]}]}', "instances[0].tags[1]: expected str, got int"),
        (Point, '{"instances": []}', "instances: expected at least one request"),
        (Point, '{"instances": [{"x": 1}], "more": 1}', "object contains unknown field more"),
        (Point, "[1]", "expected object, got array"),
        (Point, "{", "the body is no JSON: Input data was truncated"),
        (Point, b'{"x": 1, "tags": ["\xff"]}', "the body is no JSON"),
        (Point, "", "the body is empty"),
        (Picture, '{"image": "@@"}', "image: invalid base64 encoded string"),
        (Sketch, '{"instances": [{"pixels": [[1, 2]]}]}', "instances[0].pixels: expected float32[2, 3], got shape [1, 2]"),
        (Sketch, '{"pixels": [1, 2, 3]}', "pixels: expected float32[2, 3], got 3 values"),
        (Sketch, '{"pixels": [[1, 2, 3], [4]]}', "pixels: expected float32[2, 3], got lists of unequal length"),
        (Sketch, '{"pixels": [[1, 2, 3], [4, 5, -4e38]]}', "pixels: expected float32[2, 3], got values out of its range"),
        (Sketch, '{"pixels": "abc"}', "pixels: expected float32[2, 3], got str"),
        (Sketch, '{"pixels": [[1,2,3],[4,5,6]], "palette": [256]}', "palette: expected uint8[?], got values out of its range"),
        (Sketch, '{"pixels": [[1,2,3],[4,5,6]], "palette": [0.5]}', "palette: expected uint8[?], got other values than integers"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_place(request_type: type[Struct], body: bytes | str, said: str) -> None:
    assert said in refusal(request_type, body)


def test_an_array_field_is_an_array() -> None:
    (sketch,) = read(Sketch, '{"pixels": [[1, 2, 3], [4, 5, 6.5]], "palette": []}')
    assert isinstance(sketch, Sketch)
    assert sketch.pixels.dtype == "float32"  # type: ignore[attr-defined]
    assert sketch.pixels.tolist() == [[1, 2, 3], [4, 5, 6.5]]  # type: ignore[attr-defined]
    assert sketch.palette.dtype == "uint8"  # type: ignore[union-attr]


def test_too_many_instances_are_refused() -> None:
    with pytest.raises(Refused, match="at most 3 requests are accepted at one time, got 4") as caught:
        read(Point, '{"instances": [{"x": 1}, {"x": 2}, {"x": 3}, {"x": 4}]}')
    assert caught.value.status == 413


def test_a_raw_body_is_the_one_field_of_bytes() -> None:
    assert read(Picture, b"\x89PNG\r\n", "image/png") == [Picture(b"\x89PNG\r\n")]
    assert read(Picture, b"\x00", "application/octet-stream") == [Picture(b"\x00")]
    with pytest.raises(Refused, match="this service takes JSON") as caught:
        read(Point, b"x", "image/png")
    assert caught.value.status == 415


def test_a_form_is_one_request_by_the_names_of_its_fields() -> None:
    body = form(("image", b"\x00\r\n--X\xff"), ("size", b"16"), ("title", b"7"), ("tags", b"a"), ("tags", b"2"))
    assert read(Picture, body, FORM) == [Picture(b"\x00\r\n--X\xff", 16, "7", ["a", "2"])]
    assert read(Picture, form(("image", b""), ("tags", b"one")), FORM) == [Picture(b"", tags=["one"])]


def test_a_form_may_begin_with_a_preamble_and_quote_its_boundary() -> None:
    body = b"hello\r\n" + form(("image", b"i"))
    assert read(Picture, body, 'Multipart/Form-Data; charset=x; boundary="XX"') == [Picture(b"i")]


@pytest.mark.parametrize(
    ("body", "content_type", "said"),
    [
        (form(("picture", b"i")), FORM, "picture: no such field; expected image, size, title, tags, crop"),
        (form(("size", b"1")), FORM, "object missing required field image"),
        (form(("image", b"i"), ("size", b"big")), FORM, "size: expected int, got str"),
        (form(("image", b"i"), ("title", b"\xff")), FORM, "title: not UTF-8"),
        (form(("image", b"i"), ("image", b"j")), FORM, "image: expected bytes, got array"),
        (form(("image", b"i"))[:-8], FORM, "it ends in the middle of a field"),
        (b"--XX\r\nContent-Disposition: form-data\r\n\r\nx\r\n--XX--", FORM, "a part has no name"),
        (b"--YY--", FORM, "the boundary that Content-Type names does not occur"),
        (form(("image", b"i")), "multipart/form-data", "its Content-Type names no boundary"),
        (
            b'--XX\r\nContent-Disposition: form-data; name="image"\r\nContent-Transfer-Encoding: base64\r\n\r\nx\r\n--XX--',
            FORM,
            "Content-Transfer-Encoding is not used in HTTP",
        ),
        (form(*[("tags", b"t")] * 300), FORM, "at most 256 fields are accepted"),
    ],
)
def test_a_form_that_is_none_is_told_why(body: bytes, content_type: str, said: str) -> None:
    assert said in refusal(Picture, body, content_type)


def test_a_form_for_a_handler_without_bytes_is_refused() -> None:
    with pytest.raises(Refused, match="no field of its requests is bytes"):
        read(Point, form(("x", b"1")), FORM)


def test_a_request_may_not_have_a_field_of_the_batch_s_name() -> None:
    class Odd(Struct):
        instances: int

    with pytest.raises(TypeError, match="a field 'instances'"):
        Bodies(Odd, 1)
