"""Header blocks: `hpack` reads what we write and writes what we read, and no block leaves anything behind."""

from urllib.parse import quote

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter.grpc_h2 import frames, headers
from adapter.grpc_h2.frames import ProtocolError
from adapter.grpc_h2.headers import Head, Malformed, RequestHead

Fields = list[tuple[str, str]]


def block(fields: Fields, table: int = 0) -> bytes:
    encoder = hpack.Encoder()
    encoder.header_table_size = table
    encoded: bytes = encoder.encode(fields)
    return encoded


def test_a_requests_head_says_what_the_protocol_asks_for_in_its_order() -> None:
    head = RequestHead("/package.Service/Method", "localhost", "grpc-test/1")
    fields = hpack.Decoder().decode(head.block(1.5, [("traceparent", "00-1-2-01")]))
    assert [(name, value) for name, value in fields] == [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/package.Service/Method"),
        (":authority", "localhost"),
        ("grpc-timeout", "1501m"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "grpc-test/1"),
        ("traceparent", "00-1-2-01"),
    ]


@given(st.floats(0, 1e9, exclude_min=True))
def test_the_timeout_has_eight_digits_at_most_and_is_never_shorter_than_ours(seconds: float) -> None:
    fields = dict(hpack.Decoder().decode(RequestHead("/a/b", "x", "y").block(seconds)))
    digits = fields["grpc-timeout"].removesuffix("m")
    assert digits.isdigit()
    assert len(digits) <= 8
    assert int(digits) >= min(seconds * 1000, 99_999_999)


names = st.from_regex(r"[0-9a-z_.-]{1,20}", fullmatch=True)
values = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=400)


@given(st.lists(st.tuples(names, values), max_size=6), st.integers(0, 3))
def test_metadata_of_any_length_is_read_by_hpack_as_it_was_given(metadata: Fields, times: int) -> None:
    metadata += [("long", "x" * 127 * 128 * times)]
    decoder = hpack.Decoder(1 << 30)
    fields = decoder.decode(RequestHead("/a/b", "x", "y").block(1, metadata))
    assert [(name, value) for name, value in fields][8:] == metadata
    assert not decoder.header_table.dynamic_entries


@pytest.mark.parametrize(
    "pair", [("Upper", "x"), ("", "x"), ("a:b", "x"), ("a", "line\nbreak"), ("a", "é"), ("a", "\0")]
)
def test_metadata_that_grpc_cannot_carry_is_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="cannot carry"):
        RequestHead("/a/b", "x", "y").block(1, [pair])


@given(
    st.integers(0, 16),
    st.text(max_size=300),
    st.sampled_from([0, 4096]),
    st.lists(st.tuples(names, values), max_size=3),
)
def test_trailers_say_status_and_words_however_they_are_encoded(
    status: int, message: str, table: int, others: Fields
) -> None:
    fields = [("grpc-status", str(status)), ("grpc-message", quote(message)), *others]
    others = [pair for pair in others if pair[0] not in headers_that_matter]
    encoded = block([*fields[:2], *others], table)
    if table == 0:
        assert headers.read(encoded) == headers.read(encoded) == Head(None, False, status, message)


headers_that_matter = {"grpc-status", "grpc-message", "content-type", "connection", "transfer-encoding", "keep-alive",
                       "proxy-connection", "upgrade"}  # fmt: skip


@pytest.mark.parametrize(
    ("encoded", "words"),
    [
        ("no%20room", "no room"),
        ("50%", "50%"),
        ("%zz and %41", "%zz and A"),
        ("%ff", "\N{REPLACEMENT CHARACTER}"),
        ("%e2%82%ac", "€"),
        ("%0Anew line", "\nnew line"),
    ],
)
def test_words_that_are_badly_encoded_are_kept_as_far_as_they_go(encoded: str, words: str) -> None:
    assert headers.read(block([("grpc-status", "2"), ("grpc-message", encoded)])).message == words


@pytest.mark.parametrize(
    ("content_type", "is_grpc"),
    [("application/grpc", True), ("application/grpc+proto", True), ("application/grpc;charset=utf-8", True),
     ("application/grpc-web", False), ("text/html", False)],
)  # fmt: skip
def test_only_grpc_is_grpc(content_type: str, is_grpc: bool) -> None:
    assert headers.read(block([(":status", "200"), ("content-type", content_type)])) == Head(200, is_grpc, None, "")


@pytest.mark.parametrize("status", ["x", "-1", "1e0", "", "256"])
def test_a_status_that_is_none_is_unknown(status: str) -> None:
    assert headers.read(block([("grpc-status", status)])).status == 2


@pytest.mark.parametrize(
    "fields",
    [
        [(":path", "/")],
        [("x", "y"), (":status", "200")],
        [(":status", "200"), (":status", "200")],
        [(":status", "20")],
        [(":status", "999")],
        [(":status", "200"), ("Content-Type", "application/grpc")],
        [(":status", "200"), ("connection", "close")],
    ],
)
def test_what_is_no_header_section_of_an_answer_is_malformed(fields: Fields) -> None:
    with pytest.raises(Malformed):
        headers.read(block(fields))


@pytest.mark.parametrize("encoded", [b"\x80", b"\xbe", b"\x3f\xe1\x1f", b"\x00\x05ab", b"\x40\x0a\xff"])
def test_what_is_no_hpack_or_needs_a_table_ends_the_connection(encoded: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        headers.read(encoded)
    assert caught.value.code == frames.COMPRESSION_ERROR


def test_a_header_list_that_grows_beyond_its_bound_ends_the_connection() -> None:
    with pytest.raises(ProtocolError) as caught:
        headers.read(block([("x", "y" * 70_000)]))
    assert caught.value.code == frames.ENHANCE_YOUR_CALM


def test_what_is_kept_of_blocks_is_bounded() -> None:
    for number in range(2000):
        headers.read(block([("grpc-status", "0"), ("x", f"{number}")]))
        headers.read(block([("grpc-status", "3"), ("grpc-message", "m" * 2000 + str(number))]))
    assert headers._kept.cache_info().currsize <= 256


@given(st.binary(max_size=60))
def test_any_bytes_are_a_head_or_one_of_the_two_errors(data: bytes) -> None:
    try:
        head = headers.read(data)
    except (ProtocolError, Malformed):
        return
    assert head == headers._read(data)
