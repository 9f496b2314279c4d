"""One connection, its server played by the test: every answer, every window, every way to fail."""

import asyncio
import struct
from collections.abc import Iterator
from typing import Any

import hpack
import pytest
from grpc import StatusCode
from hypothesis import given, settings
from hypothesis import strategies as st

from adapter.errors import CallFailed
from adapter.grpc_h2 import connection as module
from adapter.grpc_h2 import frames
from adapter.grpc_h2.headers import RequestHead
from tests.unit.grpc_h2 import peer as p
from tests.unit.grpc_h2.peer import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    OK_HEAD,
    OK_TAIL,
    PING,
    RST,
    SETTINGS,
    WINDOW,
    Peer,
    answer,
    fields,
    message,
    raw,
)

TAIL = END_HEADERS | END_STREAM


@pytest.fixture
async def peer() -> Iterator[Peer]:
    running = Peer()
    yield running
    running.lose()


def failed(stream: Any) -> CallFailed:
    """Why the call failed; it has."""
    error = stream.answer.exception()
    assert isinstance(error, CallFailed)
    return error


async def test_it_opens_with_the_preface_settings_that_ask_for_no_table_and_a_wide_window(peer: Peer) -> None:
    assert peer.opening.startswith(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    rest = Peer(greet=b"")
    rest.transport.written += peer.opening[24:]
    first, second = rest.sent()
    assert (first.kind, first.flags, first.stream) == (SETTINGS, 0, 0)
    values = dict(struct.iter_unpack(">HI", first.payload))
    assert (values[1], values[2], values[4]) == (0, 0, 2**31 - 1)
    assert (second.kind, second.stream, second.number) == (WINDOW, 0, 2**31 - 1 - 65_535)


async def test_it_is_ready_with_the_servers_settings_which_it_acknowledges() -> None:
    peer = Peer(greet=b"")
    assert not peer.connection.usable
    peer.say(p.settings())
    assert peer.connection.usable
    assert peer.connection.ready.done()
    assert peer.sent() == [(SETTINGS, ACK, 0, b"")]
    peer.lose()


async def test_a_call_is_a_head_and_one_message_and_its_answer_the_message_that_comes_back(peer: Peer) -> None:
    stream = peer.call(b"hello")
    head, data = peer.sent()
    assert (head.kind, head.flags, head.stream) == (HEADERS, END_HEADERS, 1)
    assert (":path", "/a.B/C") in hpack.Decoder().decode(head.payload)
    assert data == (DATA, END_STREAM, 1, message(b"hello"))
    peer.say(answer(1, b"world"))
    assert await stream.answer == b"world"
    assert peer.sent() == []
    assert [peer.call().id for _ in range(3)] == [3, 5, 7]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.binary(max_size=40_000), min_size=1, max_size=4), st.lists(st.integers(1, 5000), max_size=30), st.data()
)
def test_answers_are_whole_however_they_are_framed_cut_and_interleaved(
    bodies: list[bytes], cuts: list[int], data: st.DataObject
) -> None:
    async def play() -> None:
        peer = Peer()
        streams = [peer.call() for _ in bodies]
        todo = []
        for stream, body in zip(streams, bodies, strict=True):
            text, parts = message(body), [raw(HEADERS, END_HEADERS, stream.id, OK_HEAD)]
            while text:
                size = data.draw(st.integers(1, 20_000))
                parts.append(raw(DATA, 0, stream.id, text[:size]))
                text = text[size:]
            todo.append([*parts, raw(HEADERS, TAIL, stream.id, OK_TAIL)])
        wire = b""
        while todo:
            turn = data.draw(st.integers(0, len(todo) - 1))
            wire += todo[turn].pop(0)
            todo = [parts for parts in todo if parts]
        for cut in cuts:
            peer.say(wire[:cut])
            wire = wire[cut:]
        peer.say(wire)
        assert [bytes(await stream.answer) for stream in streams] == bodies
        assert not peer.connection._streams

    asyncio.run(play())


async def test_headers_may_be_padded_prioritised_continued_and_preceded_by_informational_ones(peer: Peer) -> None:
    stream = peer.call()
    early = raw(HEADERS, END_HEADERS, 1, fields((":status", "103")))
    head = raw(HEADERS, 0x28, 1, b"\x02" + bytes(5) + OK_HEAD[:3] + bytes(2)) + raw(CONTINUATION, 4, 1, OK_HEAD[3:])
    data = raw(DATA, 8, 1, b"\x07" + message(b"x")[:3] + bytes(7)) + raw(DATA, 8, 1, b"\0" + message(b"x")[3:])
    tail = raw(HEADERS, END_STREAM, 1, OK_TAIL[:2]) + raw(CONTINUATION, 4, 1, OK_TAIL[2:])
    peer.say(early + head + raw(DATA, 0, 1) + data + tail)
    assert await stream.answer == b"x"


async def test_a_status_with_its_words_comes_from_trailers_only_too(peer: Peer) -> None:
    one, two, bare = peer.call(), peer.call(), peer.call()
    words = ("grpc-message", "no%20such%20model%3A%20%E2%82%AC")
    only = fields((":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "5"), words)
    peer.say(raw(HEADERS, TAIL, one.id, only))
    peer.say(
        raw(HEADERS, END_HEADERS, two.id, OK_HEAD) + raw(HEADERS, TAIL, two.id, fields(("grpc-status", "5"), words))
    )
    peer.say(raw(HEADERS, END_HEADERS, bare.id, OK_HEAD) + raw(HEADERS, TAIL, bare.id, fields(("grpc-status", "77"))))
    for stream in (one, two):
        assert (failed(stream).code, failed(stream).message) == (StatusCode.NOT_FOUND, "no such model: €")
    assert (failed(bare).code, failed(bare).message) == (StatusCode.UNKNOWN, "UNKNOWN")


@pytest.mark.parametrize(
    ("http", "code"),
    [(400, "INTERNAL"), (401, "UNAUTHENTICATED"), (403, "PERMISSION_DENIED"), (404, "UNIMPLEMENTED"), (200, "UNKNOWN"),
     (429, "UNAVAILABLE"), (502, "UNAVAILABLE"), (503, "UNAVAILABLE"), (504, "UNAVAILABLE"), (418, "UNKNOWN")],
)  # fmt: skip
async def test_an_answer_without_a_grpc_status_has_the_one_of_its_http_status(peer: Peer, http: int, code: str) -> None:
    html = fields((":status", str(http)), ("content-type", "text/html"))
    with_body, without = peer.call(), peer.call()
    peer.say(raw(HEADERS, END_HEADERS, with_body.id, html) + raw(DATA, END_STREAM, with_body.id, b"<html>"))
    peer.say(raw(HEADERS, TAIL, without.id, html))
    for stream in (with_body, without):
        assert failed(stream).code is StatusCode[code]
        assert str(http) in failed(stream).message


@pytest.mark.parametrize(
    ("reset", "code"),
    [(0, "INTERNAL"), (1, "INTERNAL"), (2, "INTERNAL"), (3, "INTERNAL"), (4, "INTERNAL"), (5, "UNKNOWN"), (6, "INTERNAL"),
     (7, "UNAVAILABLE"), (8, "CANCELLED"), (9, "INTERNAL"), (10, "INTERNAL"), (11, "RESOURCE_EXHAUSTED"),
     (12, "PERMISSION_DENIED"), (0xBAD, "UNKNOWN")],
)  # fmt: skip
async def test_a_reset_call_has_the_status_of_its_error_code(peer: Peer, reset: int, code: str) -> None:
    stream, other = peer.call(), peer.call()
    peer.sent()
    peer.say(raw(RST, 0, 1, struct.pack(">I", reset)))
    assert failed(stream).code is StatusCode[code]
    assert peer.sent() == []
    peer.say(answer(other.id, b"x"))
    assert await other.answer == b"x"


@pytest.mark.parametrize(
    ("said", "code", "reset"),
    [
        (raw(HEADERS, TAIL, 1, OK_TAIL), "INTERNAL", 1),
        (raw(HEADERS, END_HEADERS, 1, OK_TAIL), "INTERNAL", 1),
        (raw(DATA, 0, 1, message(b"x")), "INTERNAL", 1),
        (raw(HEADERS, END_HEADERS, 1, OK_HEAD) * 2, "INTERNAL", 1),
        (raw(HEADERS, END_HEADERS, 1, OK_HEAD) + raw(HEADERS, END_HEADERS, 1, OK_TAIL), "INTERNAL", 1),
        (raw(HEADERS, END_HEADERS, 1, fields(("x", "y"), (":status", "200"))), "INTERNAL", 1),
        (raw(HEADERS, END_HEADERS, 1, OK_HEAD) + raw(DATA, 0, 1, message(b"x") * 2), "INTERNAL", 8),
        (raw(HEADERS, END_HEADERS, 1, OK_HEAD) + raw(DATA, 0, 1, message(b"x")) * 2, "INTERNAL", 8),
        (raw(HEADERS, END_HEADERS, 1, OK_HEAD) + raw(DATA, 0, 1, message(b"x", compressed=1)), "INTERNAL", 8),
        (raw(HEADERS, END_HEADERS, 1, OK_HEAD) + raw(DATA, 0, 1, b"\0\xff\xff\xff\xff"), "RESOURCE_EXHAUSTED", 8),
        (raw(HEADERS, END_HEADERS, 1, OK_HEAD) + raw(DATA, END_STREAM, 1, message(b"x")), "UNKNOWN", 8),
        (raw(HEADERS, END_HEADERS, 1, OK_HEAD) + raw(DATA, 0, 1, message(b"xy")[:6]) + raw(HEADERS, TAIL, 1, OK_TAIL),
         "INTERNAL", None),
        (raw(HEADERS, END_HEADERS, 1, OK_HEAD) + raw(HEADERS, TAIL, 1, OK_TAIL), "INTERNAL", None),
        (raw(WINDOW, 0, 1, bytes(4)), "INTERNAL", 1),
        (raw(WINDOW, 0, 1, b"\x7f\xff\xff\xff"), "INTERNAL", 3),
    ],
    ids=["trailers first", "no status", "data first", "headers twice", "trailers open", "malformed", "two messages",
         "two frames", "compressed", "too large", "no trailers", "cut off", "no message", "window of nothing", "window"],
)  # fmt: skip
async def test_an_answer_that_breaks_the_rules_fails_alone(
    peer: Peer, said: bytes, code: str, reset: int | None
) -> None:
    stream, other = peer.call(), peer.call()
    peer.sent()
    peer.say(said)
    assert failed(stream).code is StatusCode[code]
    assert [(frame.kind, frame.stream, frame.number) for frame in peer.sent()] == (
        [] if reset is None else [(RST, 1, reset)]
    )
    peer.say(raw(DATA, 0, 1, b"what was on its way") + answer(other.id, b"x"))
    assert await other.answer == b"x"


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (raw(HEADERS, END_HEADERS, 1, b"\xbe"), frames.COMPRESSION_ERROR),
        (raw(HEADERS, END_HEADERS, 5, OK_HEAD), frames.PROTOCOL_ERROR),
        (raw(DATA, 0, 2, b"x"), frames.PROTOCOL_ERROR),
        (raw(RST, 0, 7, bytes(4)), frames.PROTOCOL_ERROR),
        (raw(WINDOW, 0, 7, b"\0\0\0\1"), frames.PROTOCOL_ERROR),
        (raw(WINDOW, 0, 0, bytes(4)), frames.PROTOCOL_ERROR),
        (raw(WINDOW, 0, 0, b"\x7f\xff\xff\xff"), frames.FLOW_CONTROL_ERROR),
        (raw(PING, 0, 0, b"x"), frames.FRAME_SIZE_ERROR),
        (p.settings(window=2**31), frames.FLOW_CONTROL_ERROR),
        (p.settings(max_frame=1), frames.PROTOCOL_ERROR),
        (raw(WINDOW, 0, 1, b"\x7f\x00\x00\x00") + p.settings(window=2**31 - 1), frames.FLOW_CONTROL_ERROR),
        (raw(PING, 0, 0, bytes(8)) * 10_001, frames.ENHANCE_YOUR_CALM),
        (raw(HEADERS, END_HEADERS, 1, fields((":status", "100"))) * 10_001, frames.ENHANCE_YOUR_CALM),
        (raw(HEADERS, END_HEADERS, 1, OK_HEAD) + raw(DATA, 0, 1) * 10_001, frames.ENHANCE_YOUR_CALM),
        (raw(0xFA, 0, 0, b"?") * 10_001, frames.ENHANCE_YOUR_CALM),
    ],
)
async def test_a_connection_that_breaks_the_rules_is_closed_and_its_calls_are_safe_to_try_elsewhere(
    peer: Peer, said: bytes, code: int
) -> None:
    streams = [peer.call(), peer.call()]
    peer.sent()
    peer.say(said)
    assert {failed(stream).code for stream in streams} == {StatusCode.UNAVAILABLE}
    assert "broke HTTP/2" in failed(streams[0]).message
    goodbye = peer.sent()[-1]
    assert (goodbye.kind, int.from_bytes(goodbye.payload[4:8], "big")) == (GOAWAY, code)
    assert peer.transport.closing
    assert not peer.connection.usable
    assert peer.lost == [peer.connection]


async def test_pings_are_answered_and_answers_to_pings_are_not(peer: Peer) -> None:
    peer.say(
        raw(PING, 0, 0, b"12345678") + raw(PING, ACK, 0, b"87654321") + raw(2, 0, 1, bytes(5)) + raw(0xFA, 0, 9, b"?")
    )
    assert peer.sent() == [(PING, ACK, 0, b"12345678")]


async def test_the_connections_window_is_given_back_before_it_runs_out(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = peer.call()
    peer.sent()
    peer.connection._received = frames.MAX_WINDOW // 2 - 10
    peer.say(raw(HEADERS, END_HEADERS, 1, OK_HEAD) + raw(DATA, 8, 1, b"\x0a" + message(b"x") + bytes(10)))
    assert peer.sent() == [(WINDOW, 0, 0, (frames.MAX_WINDOW // 2 - 10 + 17).to_bytes(4, "big"))]
    peer.say(raw(HEADERS, TAIL, 1, OK_TAIL))
    assert await stream.answer == b"x"


# What the client may send.


def data_of(seen: list[p.Seen], stream: int) -> bytes:
    return b"".join(frame.payload for frame in seen if frame.kind == DATA and frame.stream == stream)


async def test_no_more_is_sent_than_the_windows_allow_and_the_rest_when_they_do(peer: Peer) -> None:
    body = bytes(range(256)) * 1000
    peer.call(body)
    seen = peer.sent()
    assert data_of(seen, 1) == message(body)[:65_535]
    assert max(len(frame.payload) for frame in seen) == 16_384
    peer.say(raw(WINDOW, 0, 1, (100_000).to_bytes(4, "big")))
    assert peer.sent() == []  # the connection's is used up
    peer.say(raw(WINDOW, 0, 0, (50_000).to_bytes(4, "big")))
    more = peer.sent()
    assert data_of(more, 1) == message(body)[65_535:115_535]
    assert not any(frame.flags for frame in more)
    peer.say(raw(WINDOW, 0, 0, (2**30).to_bytes(4, "big")) + raw(WINDOW, 0, 1, (2**30).to_bytes(4, "big")))
    last = peer.sent()
    assert data_of(last, 1) == message(body)[115_535:]
    assert last[-1].flags == END_STREAM


async def test_a_changed_initial_window_changes_those_of_open_streams_and_may_make_them_negative() -> None:
    peer = Peer(greet=p.settings(window=1000))
    body = bytes(5000)
    peer.call(body)
    assert len(data_of(peer.sent(), 1)) == 1000
    peer.say(p.settings(window=400) + raw(WINDOW, 0, 1, (600).to_bytes(4, "big")))
    assert data_of(peer.sent(), 1) == b""
    peer.say(raw(WINDOW, 0, 1, (1).to_bytes(4, "big")))
    assert len(data_of(peer.sent(), 1)) == 1
    peer.say(p.settings(window=10_000))
    assert len(data_of(peer.sent(), 1)) == 4004
    peer.lose()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(0, 200_000), min_size=1, max_size=4),
    st.integers(0, 40_000),
    st.sampled_from([16_384, 100_000]),
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 200_000)), max_size=20),
)
def test_messages_arrive_whole_through_any_windows(
    sizes: list[int], window: int, max_frame: int, grants: list[tuple[int, int]]
) -> None:
    """A server that gives out window as it likes: the client never sends beyond, and all of it in the end."""

    async def play() -> None:
        peer = Peer(greet=p.settings(window=window, max_frame=max_frame))
        bodies = [bytes([65 + number]) * size for number, size in enumerate(sizes)]
        streams = [peer.call(body) for body in bodies]
        windows = {0: 65_535, **{stream.id: window for stream in streams}}
        got = {stream.id: b"" for stream in streams}
        ended: set[int] = set()
        everything = [(number, 1_000_000) for number in range(len(streams) + 1)]
        for turn, more in [(0, 1), *grants, *everything]:
            number = 0 if turn == 0 else streams[turn % len(streams)].id
            windows[number] += more
            peer.say(raw(WINDOW, 0, number, more.to_bytes(4, "big")))
            for frame in peer.sent():
                if frame.kind == DATA:
                    assert frame.stream not in ended
                    assert len(frame.payload) <= max_frame
                    got[frame.stream] += frame.payload
                    for number in (0, frame.stream):
                        windows[number] -= len(frame.payload)
                        assert windows[number] >= 0
                    if frame.flags & END_STREAM:
                        ended.add(frame.stream)
        assert [got[stream.id] for stream in streams] == [message(body) for body in bodies]
        peer.lose()
        for stream in streams:
            assert failed(stream).code is StatusCode.UNAVAILABLE

    asyncio.run(play())


async def test_small_calls_overtake_large_ones_that_wait_for_window() -> None:
    peer = Peer()
    peer.say(raw(WINDOW, 0, 0, (1_000_000).to_bytes(4, "big")))
    peer.call(bytes(500_000))
    peer.sent()
    small = peer.call(b"small")
    assert data_of(peer.sent(), small.id) == message(b"small")
    peer.lose()


async def test_no_more_streams_are_open_than_the_server_takes_and_those_who_gave_up_are_never_sent() -> None:
    peer = Peer(greet=p.settings(max_streams=2))
    first, second, third, fourth = (peer.call(bytes([number])) for number in range(4))
    assert {frame.stream for frame in peer.sent()} == {1, 3}
    peer.connection.cancel(third)
    assert peer.sent() == []
    peer.say(answer(first.id, b"x"))
    assert await first.answer == b"x"
    opened = peer.sent()
    assert [frame.stream for frame in opened] == [5, 5]
    assert opened[1].payload == message(b"\3")
    peer.say(p.settings(max_streams=0))
    fifth = peer.call()
    peer.say(answer(second.id, b"y") + answer(fourth.id, b"z"))
    assert [frame.kind for frame in peer.sent()] == [SETTINGS]
    peer.say(p.settings(max_streams=1))
    assert {frame.stream for frame in peer.sent()} == {0, 7}
    peer.say(answer(7, b"!"))
    assert await fifth.answer == b"!"
    peer.lose()


async def test_frames_grow_with_the_servers_largest() -> None:
    peer = Peer(greet=p.settings(max_frame=60_000, window=2**20))
    peer.call(bytes(65_000))
    assert [len(frame.payload) for frame in peer.sent() if frame.kind == DATA] == [60_000, 5_005]
    peer.lose()


async def test_frames_stay_so_small_that_a_full_socket_is_noticed() -> None:
    peer = Peer(greet=p.settings(max_frame=2**24 - 1, window=2**30) + raw(WINDOW, 0, 0, (2**30).to_bytes(4, "big")))
    peer.call(bytes(16 << 20))
    assert max(len(frame.payload) for frame in peer.sent()) == 1 << 18
    peer.lose()


async def test_a_head_that_is_longer_than_a_frame_is_continued(peer: Peer) -> None:
    long = RequestHead("/a/b", "x", "y").block(1, [("baggage", "b" * 40_000)])
    peer.call(b"hello", head=long)
    seen = peer.sent()
    assert [frame.kind for frame in seen] == [HEADERS, CONTINUATION, CONTINUATION, DATA]
    block = b"".join(frame.payload for frame in seen[:3])
    assert dict(hpack.Decoder().decode(block))["baggage"] == "b" * 40_000


async def test_while_the_socket_is_full_little_is_written_and_calls_wait_their_turn() -> None:
    peer = Peer(greet=p.settings(window=2**30))
    peer.say(raw(WINDOW, 0, 0, (2**30).to_bytes(4, "big")))
    peer.transport.room = 100_000
    peer.call(bytes(8 << 20))
    later = peer.call(b"later")
    assert peer.transport.held < 1 << 20
    assert later.id == 0
    seen = peer.sent()
    for _ in range(100):
        peer.transport.read()
        seen += peer.sent()
    assert len(data_of(seen, 1)) == (8 << 20) + 5
    assert data_of(seen, 3) == message(b"later")
    peer.lose()


async def test_a_server_that_asks_much_and_reads_nothing_is_given_up(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_GIVEN_UP", 5_000)
    stream = peer.call()
    peer.transport.room = 1_000
    peer.say(raw(PING, 0, 0, bytes(8)) * 1000)
    assert peer.transport.aborted
    assert peer.transport.held < 6_000
    assert failed(stream).code is StatusCode.UNAVAILABLE


# The end of calls.


async def test_a_call_that_is_cancelled_is_reset_at_the_server_and_what_still_comes_of_it_is_dropped(
    peer: Peer,
) -> None:
    stream, other = peer.call(), peer.call()
    peer.sent()
    peer.connection.cancel(stream)
    assert peer.sent() == [(RST, 0, 1, b"\0\0\0\x08")]
    assert stream.answer.cancelled()
    peer.say(answer(1, b"late") + raw(RST, 0, 1, bytes(4)) + raw(WINDOW, 0, 1, b"\0\0\0\1") + answer(other.id, b"x"))
    assert await other.answer == b"x"


async def test_a_cancelled_call_sends_nothing_of_what_it_still_had(peer: Peer) -> None:
    stream = peer.call(bytes(100_000))
    peer.sent()
    peer.connection.cancel(stream)
    peer.say(raw(WINDOW, 0, 0, (2**20).to_bytes(4, "big")))
    assert [frame.kind for frame in peer.sent()] == [RST]
    assert not peer.connection._sending.queue


async def test_a_deadline_fails_the_call_in_time_and_resets_it_at_the_server(peer: Peer) -> None:
    late, soon, never = peer.call(seconds=0.04), peer.call(seconds=0.02), peer.call()
    peer.sent()
    await asyncio.wait([soon.answer])
    assert not late.answer.done()
    await asyncio.wait([late.answer])
    assert {failed(stream).code for stream in (soon, late)} == {StatusCode.DEADLINE_EXCEEDED}
    assert [(frame.kind, frame.stream, frame.number) for frame in peer.sent()] == [(RST, 3, 8), (RST, 1, 8)]
    assert not never.answer.done()


async def test_a_deadline_passes_for_a_call_that_was_never_sent_too() -> None:
    peer = Peer(greet=p.settings(max_streams=0))
    waiting = peer.call(seconds=0.01)
    await asyncio.wait([waiting.answer])
    assert failed(waiting).code is StatusCode.DEADLINE_EXCEEDED
    assert not peer.connection._waiting
    peer.lose()


async def test_a_server_that_cancels_after_the_deadline_says_that_it_passed(peer: Peer) -> None:
    stream = peer.call(seconds=-0.001)
    peer.say(raw(RST, 0, 1, b"\0\0\0\x08"))
    assert failed(stream).code is StatusCode.DEADLINE_EXCEEDED


async def test_an_answer_that_comes_before_the_request_is_sent_stops_the_sending(peer: Peer) -> None:
    stream = peer.call(bytes(1_000_000))
    peer.sent()
    peer.say(raw(HEADERS, TAIL, 1, fields((":status", "200"), ("grpc-status", "8"), ("grpc-message", "full"))))
    assert (failed(stream).code, failed(stream).message) == (StatusCode.RESOURCE_EXHAUSTED, "full")
    assert peer.sent() == [(RST, 0, 1, bytes(4))]
    peer.say(raw(WINDOW, 0, 0, (2**20).to_bytes(4, "big")))
    assert peer.sent() == []


async def test_a_server_that_goes_away_finishes_what_it_has_and_the_rest_is_safe_to_try_elsewhere() -> None:
    peer = Peer(greet=p.settings(max_streams=2))
    begun, unseen, waiting = peer.call(), peer.call(), peer.call()
    peer.say(raw(GOAWAY, 0, 0, struct.pack(">II", 1, 0) + b"max age"))
    assert not peer.connection.usable
    assert {failed(stream).code for stream in (unseen, waiting)} == {StatusCode.UNAVAILABLE}
    assert "max age" in failed(unseen).message
    assert not peer.transport.closing
    peer.say(answer(1, b"x"))
    assert await begun.answer == b"x"
    assert peer.transport.closing
    assert peer.lost == [peer.connection]


async def test_a_lost_connection_fails_every_call_and_says_why_once() -> None:
    peer = Peer(greet=p.settings(max_streams=2))
    streams = [peer.call() for _ in range(3)]
    peer.lose(ConnectionResetError("reset by peer"))
    assert {failed(stream).code for stream in streams} == {StatusCode.UNAVAILABLE}
    assert {failed(stream).message for stream in streams} == {"reset by peer"}
    peer.connection.close()
    assert peer.lost == [peer.connection]


async def test_out_of_stream_numbers_it_finishes_what_it_has(peer: Peer) -> None:
    peer.connection._next_id = frames.MAX_STREAM
    stream = peer.call()
    assert stream.id == frames.MAX_STREAM
    assert not peer.connection.usable
    peer.say(answer(stream.id, b"last"))
    assert await stream.answer == b"last"
    assert peer.transport.closing


frame_bytes = st.one_of(
    st.builds(
        raw,
        st.integers(0, 10),
        st.sampled_from([0, 1, 4, 5, 8, 9, 0x20, 0x2D]),
        st.sampled_from([0, 1, 1, 3, 3, 5, 7, 2]),
        st.one_of(
            st.binary(max_size=12), st.sampled_from([OK_HEAD, OK_TAIL, message(b"x"), message(b"x")[:4], bytes(4)])
        ),
    ),
    st.sampled_from([p.settings(), p.settings(max_streams=1), p.settings(window=0), answer(1, b"a"), answer(3, b"b")]),
    st.builds(lambda window: raw(WINDOW, 0, 0, window.to_bytes(4, "big")), st.integers(0, 2**31 - 1)),
    st.binary(max_size=20),
)


@settings(max_examples=500, deadline=None)
@given(st.lists(st.one_of(frame_bytes, st.sampled_from(["call", "large", "cancel", "full", "read"])), max_size=25))
def test_whatever_a_server_says_every_call_ends_once_and_nothing_is_left(events: list[Any]) -> None:
    async def play() -> None:
        peer = Peer()
        streams = [peer.call(), peer.call(bytes(70_000))]
        for happens in events:
            if isinstance(happens, bytes):
                peer.say(happens)
            elif happens == "cancel":
                peer.connection.cancel(streams[len(events) % len(streams)])
            elif happens == "full":
                peer.transport.room = 0
            elif happens == "read":
                peer.transport.room = 1 << 40
                if not peer.transport.closing:
                    peer.transport.read()
            elif peer.connection.usable:
                streams.append(peer.call(b"x" if happens == "call" else bytes(70_000)))
        peer.lose()
        for stream in streams:
            assert stream.answer.done()
            if not stream.answer.cancelled() and (error := stream.answer.exception()) is not None:
                assert isinstance(error, CallFailed)
        connection = peer.connection
        assert not connection._streams
        assert not connection._waiting
        assert not connection._sending.queue
        assert connection._timer is None
        assert peer.lost == [connection]

    asyncio.run(play())
