"""HTTP/2 frames: read the same however the bytes are cut, and what a server may not send is refused by its error code."""

import itertools
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapter.grpc_h2 import frames
from adapter.grpc_h2.frames import Frame, ProtocolError, Reader

SETTINGS = frames.settings({})


def raw(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame by the letter of RFC 9113 §4.1, not by the code under test."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def read(data: bytes, cuts: list[int] | None = None) -> list[Frame]:
    """All frames after the SETTINGS; pieces of one DATA frame put together again."""
    reader = Reader(1 << 20)
    found: list[Frame] = []
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts or [])})
    open_data = False
    for start, stop in itertools.pairwise(edges):
        for kind, flags, stream, payload, counted in reader.feed(data[start:stop]):
            if kind == frames.DATA and open_data and found[-1][2] == stream:
                _, _, _, before, counted_before = found.pop()
                payload, counted = bytes(before) + bytes(payload), counted + counted_before
            found.append((kind, flags, stream, bytes(payload), counted))
            open_data = kind == frames.DATA and reader._in_data
    return found[1:]


padding = st.one_of(st.none(), st.integers(0, 255))


@st.composite
def sent_and_meant(draw: st.DrawFn) -> tuple[bytes, Frame]:
    """The bytes of a frame (with CONTINUATIONs), and what it is."""
    stream = draw(st.integers(1, frames.MAX_STREAM))
    kind = draw(st.sampled_from(["data", "headers", "ping", "reset", "window", "goaway", "settings", "unknown"]))
    payload = draw(st.binary(max_size=9000))
    if kind in ("data", "headers"):
        pad, end = draw(padding), draw(st.booleans())
        prefix, suffix = (b"", b"") if pad is None else (bytes((pad,)), b"\0" * pad)
        flags = frames.END_STREAM * end | frames.PADDED * (pad is not None)
        if kind == "data":
            whole = prefix + payload + suffix
            return raw(0, flags, stream, whole), (0, int(end), stream, payload, len(whole))
        parts = draw(st.lists(st.binary(max_size=300), max_size=4))
        priority = draw(st.booleans())
        flags |= frames.WITH_PRIORITY * priority | frames.END_HEADERS * (not parts)
        first = raw(1, flags, stream, prefix + b"12345" * priority + payload + suffix)
        rest = [raw(9, 4 * (number == len(parts) - 1), stream, part) for number, part in enumerate(parts)]
        return first + b"".join(rest), (1, flags, stream, payload + b"".join(parts), 0)
    eight, four = draw(st.binary(min_size=8, max_size=8)), draw(st.binary(min_size=4, max_size=4))
    kind_number, at, payload = {
        "ping": (6, 0, eight),
        "reset": (3, stream, four),
        "window": (8, draw(st.sampled_from([0, stream])), four),
        "goaway": (7, 0, eight + payload),
        "settings": (4, 0, payload[: len(payload) // 6 * 6]),
        "unknown": (draw(st.integers(10, 255)), stream, payload),
    }[kind]
    return raw(kind_number, 0, at, payload), (kind_number, 0, at, payload, 0)


@settings(max_examples=300, deadline=None)
@given(st.lists(sent_and_meant(), max_size=6), st.lists(st.integers(0, 100_000), max_size=30))
def test_frames_are_read_as_they_were_meant_however_the_bytes_are_cut(
    sent: list[tuple[bytes, Frame]], cuts: list[int]
) -> None:
    data = SETTINGS + b"".join(part for part, _ in sent)
    assert read(data, cuts) == [meant for _, meant in sent]


def test_frames_are_read_as_they_were_meant_byte_by_byte() -> None:
    data = SETTINGS + raw(1, 0x8, 1, b"\x02ab\0\0") + raw(9, 0x4, 1, b"c") + raw(0, 0x9, 1, b"\x03xyz\0\0\0")
    assert read(data, list(range(len(data)))) == [(1, 0x8, 1, b"abc", 0), (0, 0x1, 1, b"xyz", 7)]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=40), sent_and_meant().map(lambda pair: pair[0])), max_size=6))
def test_any_bytes_are_frames_or_a_protocol_error_and_little_is_kept(parts: list[bytes]) -> None:
    reader = Reader(frames.LARGEST_FRAME_SIZE)
    try:
        for part in [SETTINGS, *parts]:
            for kind, _, stream, _, counted in reader.feed(part):
                assert 0 <= stream <= frames.MAX_STREAM
                assert counted == 0 or kind == frames.DATA
    except ProtocolError as error:
        assert 0 < error.code <= frames.HTTP_1_1_REQUIRED
    assert len(reader._rest) <= frames.MAX_CONTROL + 9
    assert len(reader._block) <= 2 * frames.MAX_CONTROL


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (raw(6, 0, 0, bytes(8)), frames.PROTOCOL_ERROR),
        (raw(4, 1, 0), frames.PROTOCOL_ERROR),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", frames.PROTOCOL_ERROR),
        (SETTINGS + raw(0, 0, 0, b"x"), frames.PROTOCOL_ERROR),
        (SETTINGS + raw(1, 4, 0, b"x"), frames.PROTOCOL_ERROR),
        (SETTINGS + raw(3, 0, 0, bytes(4)), frames.PROTOCOL_ERROR),
        (SETTINGS + raw(6, 0, 1, bytes(8)), frames.PROTOCOL_ERROR),
        (SETTINGS + raw(4, 0, 1), frames.PROTOCOL_ERROR),
        (SETTINGS + raw(7, 0, 1, bytes(8)), frames.PROTOCOL_ERROR),
        (SETTINGS + raw(5, 4, 1, bytes(8)), frames.PROTOCOL_ERROR),
        (SETTINGS + raw(9, 4, 1, b"x"), frames.PROTOCOL_ERROR),
        (SETTINGS + raw(1, 0, 1, b"x") + raw(9, 4, 3, b"x"), frames.PROTOCOL_ERROR),
        (SETTINGS + raw(1, 0, 1, b"x") + raw(0, 0, 1, b"x"), frames.PROTOCOL_ERROR),
        (SETTINGS + raw(0, 8, 1, b"\x04abc"), frames.PROTOCOL_ERROR),
        (SETTINGS + raw(0, 8, 1, b""), frames.PROTOCOL_ERROR),
        (SETTINGS + raw(1, 0xC, 1, b"\x02a"), frames.PROTOCOL_ERROR),
        (SETTINGS + raw(1, 0xC, 1, b""), frames.PROTOCOL_ERROR),
        (SETTINGS + raw(1, 0x24, 1, b"abcd"), frames.PROTOCOL_ERROR),
        (SETTINGS + raw(4, 0, 0, bytes(5)), frames.FRAME_SIZE_ERROR),
        (SETTINGS + raw(4, 1, 0, bytes(6)), frames.FRAME_SIZE_ERROR),
        (SETTINGS + raw(6, 0, 0, bytes(7)), frames.FRAME_SIZE_ERROR),
        (SETTINGS + raw(3, 0, 1, bytes(5)), frames.FRAME_SIZE_ERROR),
        (SETTINGS + raw(8, 0, 1, bytes(3)), frames.FRAME_SIZE_ERROR),
        (SETTINGS + raw(2, 0, 1, bytes(4)), frames.FRAME_SIZE_ERROR),
        (SETTINGS + raw(7, 0, 0, bytes(7)), frames.FRAME_SIZE_ERROR),
        (SETTINGS + (1 << 20).to_bytes(3, "big") + b"\1\4\0\0\0\1", frames.FRAME_SIZE_ERROR),
        (SETTINGS + (1 << 17).to_bytes(3, "big") + b"\7\0\0\0\0\0", frames.ENHANCE_YOUR_CALM),
        (SETTINGS + raw(1, 0, 1, b"x") + raw(9, 0, 1) * 99, frames.ENHANCE_YOUR_CALM),
        (SETTINGS + raw(1, 0, 1, bytes(60_000)) + raw(9, 0, 1, bytes(9_000)), frames.ENHANCE_YOUR_CALM),
    ],
)
def test_what_a_server_may_not_send_is_refused_by_the_code_of_the_mistake(data: bytes, code: int) -> None:
    reader = Reader((1 << 20) - 1)
    with pytest.raises(ProtocolError) as caught:
        list(reader.feed(data))
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({frames.ENABLE_PUSH: 1}, frames.PROTOCOL_ERROR),
        ({frames.INITIAL_WINDOW_SIZE: 1 << 31}, frames.FLOW_CONTROL_ERROR),
        ({frames.MAX_FRAME_SIZE: 16_383}, frames.PROTOCOL_ERROR),
        ({frames.MAX_FRAME_SIZE: 1 << 24}, frames.PROTOCOL_ERROR),
    ],
)
def test_settings_out_of_range_are_refused(values: dict[int, int], code: int) -> None:
    with pytest.raises(ProtocolError) as caught:
        frames.read_settings(frames.settings(values)[9:])
    assert caught.value.code == code


def test_of_settings_said_twice_the_last_counts_and_unknown_ones_are_let_be() -> None:
    payload = struct.pack(">HIHIHI", 5, 20_000, 5, 30_000, 0xFFFF, 7)
    assert frames.read_settings(payload) == {5: 30_000, 0xFFFF: 7}


@given(st.binary(max_size=500), st.integers(1, 120))
def test_a_long_header_block_goes_out_in_frames_that_the_server_takes(block: bytes, size: int) -> None:
    data = frames.headers(5, block, size)
    parts, at = [], 0
    while at < len(data):
        stop = at + 9 + int.from_bytes(data[at : at + 3], "big")
        parts.append((data[at + 3], data[at + 4], data[at + 9 : stop]))
        at = stop
    assert [kind for kind, _, _ in parts] == [frames.HEADERS] + [frames.CONTINUATION] * (len(parts) - 1)
    assert [flags for _, flags, _ in parts] == [0] * (len(parts) - 1) + [frames.END_HEADERS]
    assert b"".join(part for _, _, part in parts) == block
    assert max(len(part) for _, _, part in parts) <= size
