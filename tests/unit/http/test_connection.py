"""What a connection makes of the bytes that come, and when it ends."""

import asyncio
import gzip
import socket
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol
from aiohttp.web import RequestPayloadError
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from adapter.errors import Refused
from adapter.http import connection, server
from adapter.http.answer import Answer
from adapter.http.connection import Connection, Registry
from adapter.http.inflate import decoded
from adapter.http.request import Request
from adapter.http.server import Server

POST = b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b"
LAST = b"GET /last HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"


async def body_of(request: Request) -> bytes:
    return b"".join([part async for part in request.content.iter_any()]) if request.body is None else request.body


async def echo(request: Request) -> Answer:
    return Answer(200, b"%b %b" % (request.raw_path.encode(), await body_of(request)), {})


def unread(_: Request, refusal: Refused) -> Answer:
    return Answer(refusal.status, refusal.message.encode(), {})


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Awaitable["Client"]]]:
    servers = []

    async def started(
        handler: connection.Handler = echo, most_unsent: int = 1 << 30, head_timeout: float = 30.0
    ) -> "Client":
        running = Server(handler, most_unsent, head_timeout, unread)
        servers.append(running)
        return Client(running, *await asyncio.open_connection(*await running.listen("127.0.0.1", 0)))

    yield started
    for running in servers:
        await running.close()


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> "Taken":
    """What the connections of this test have taken from their sockets, and how many were lost."""
    return Taken(monkeypatch)


class Taken:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.data = b""
        self.lost = asyncio.Event()
        self._told = asyncio.Event()
        received, lost = Connection.data_received, Connection.connection_lost

        def data_received(subject: Connection, data: bytes) -> None:
            received(subject, data)
            self.data += data
            self._told.set()

        def connection_lost(subject: Connection, error: Exception | None) -> None:
            lost(subject, error)
            self.lost.set()

        monkeypatch.setattr(Connection, "data_received", data_received)
        monkeypatch.setattr(Connection, "connection_lost", connection_lost)

    async def to(self, end: bytes) -> None:
        """Until what was taken ends with this."""
        async with asyncio.timeout(30):
            while not self.data.endswith(end):
                self._told.clear()
                await self._told.wait()


class Client:
    """One connection to `server`."""

    def __init__(self, running: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server = running
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> tuple[bytes, bytes]:
        """The status line and the body of the next answer."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return head.partition(b"\r\n")[0], await self.reader.readexactly(length)

    async def closed(self) -> bool:
        """Whether the other side ends it."""
        return not await asyncio.wait_for(self.reader.read(), 10)


async def test_a_head_that_comes_again_has_the_body_that_comes_with_it(serve):
    client = await serve()
    for body in (b"one", b"three", b"", b"x" * 1000, b"one"):
        client.send(POST % (len(body), body))
        assert await client.answer() == (b"HTTP/1.1 200 OK", b"/p " + body)


async def test_a_known_head_with_less_than_its_body_waits_for_the_rest(serve, taken):
    client = await serve()
    client.send(POST % (3, b"one"))
    await client.answer()
    client.send(POST % (5, b"th"))
    await taken.to(b"th")
    client.send(b"ree" + POST % (2, b"ok"))
    assert (await client.answer())[1] == b"/p three"
    assert (await client.answer())[1] == b"/p ok"


async def test_requests_that_come_at_once_are_answered_in_order_however_many(serve):
    client = await serve()
    client.send(b"".join([POST % (3, b"%03d" % number) for number in range(200)]) + LAST)
    assert [(await client.answer())[1] for _ in range(200)] == [b"/p %03d" % number for number in range(200)]
    assert (await client.answer())[1] == b"/last "
    assert await client.closed()


class Sent(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.data = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:  # type: ignore[override]
        self.data += data

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


header = st.sampled_from(
    [b"Content-Length: %d", b"content-length:%d", b"Content-Length: \t%d ", b"CONTENT-LENGTH: 0%d", b"", b"chunked"]
)
others = st.lists(
    st.sampled_from([b"A: content-length: 3", b"Content-Lengthy: 7", b"Accept: */*", b"Expect: 100-continue"]),
    max_size=3,
)
one_request = st.tuples(
    st.sampled_from([b"POST", b"PUT", b"GET"]), header, others, st.booleans(), st.binary(max_size=12)
)


def encoded(method: bytes, length: bytes, more: list[bytes], first: bool, body: bytes) -> tuple[bytes, bytes]:
    """A request, and the body that it has."""
    if length == b"chunked":
        lines = [b"Transfer-Encoding: chunked"]
        sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
    else:
        body = sent = body if length else b""
        lines = [length % len(body)] if length else []
    lines = [*lines, *more] if first else [*more, *lines]
    return b"\r\n".join([b"%b /p HTTP/1.1" % method, b"Host: h", *lines, b"", sent]), body


@settings(max_examples=150)
@given(st.lists(one_request, min_size=1, max_size=6), st.lists(st.integers(1, 60), max_size=12), st.booleans())
async def test_any_requests_cut_anywhere_are_what_was_sent(requests, cuts, whole):
    """Known heads or parsed ones, the handler sees the same."""
    seen: list[tuple[str, bytes, str]] = []

    async def handler(request: Request) -> Answer:
        seen.append((request.method, await body_of(request), request.headers.get("Accept", "")))
        return Answer(200, b"", {})

    subject = Connection(Registry(handler, 1 << 20, unread))
    subject.connection_made(Sent())
    texts = [encoded(*request) for request in requests]
    if whole:
        pieces = [text for text, _ in texts]
    else:
        stream, pieces = b"".join([text for text, _ in texts]), []
        for cut in cuts:
            pieces.append(stream[:cut])
            stream = stream[cut:]
        pieces.append(stream)
    for piece in pieces:
        subject.data_received(piece)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    while subject.task is not None:
        await asyncio.wait({subject.task}, timeout=5)
    wanted = [
        (method.decode(), body, "*/*" if b"Accept: */*" in more else "")
        for (method, _, more, _, _), (_, body) in zip(requests, texts, strict=True)
    ]
    assert seen == wanted


@pytest.mark.parametrize(
    "second",
    [
        b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 3\r\n\r\none",
        b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\none",
        b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 3,3\r\n\r\none",
        b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: \xb2\r\n\r\none",
        b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: \r\n\r\none",
        b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 3\n\none",
    ],
)
async def test_what_could_smuggle_a_request_is_refused_behind_a_known_head_too(serve, second):
    client = await serve()
    client.send(POST % (3, b"one"))
    await client.answer()
    client.send(second + LAST)
    assert (await client.answer())[0] == b"HTTP/1.1 400 Bad Request"
    assert await client.closed()


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("cut", [0, 3, 30, 62, 66])
async def test_requests_before_what_is_no_request_are_answered_first(serve, known, cut):
    client = await serve()
    if known:
        client.send(POST % (3, b"one"))
        await client.answer()
    stream = POST % (3, b"two") + POST % (5, b"three") + b"GARBAGE\r\n\r\n"
    if cut:
        client.send(stream[:cut])
        await asyncio.sleep(0.01)
    client.send(stream[cut:])
    assert (await client.answer())[1] == b"/p two"
    assert (await client.answer())[1] == b"/p three"
    assert (await client.answer())[0] == b"HTTP/1.1 400 Bad Request"
    assert await client.closed()


async def test_a_body_longer_than_announced_is_cut_off_where_it_was_said_to_end(serve):
    client = await serve()
    client.send(POST % (3, b"one, two"))
    assert (await client.answer())[1] == b"/p one"
    assert (await client.answer())[0] == b"HTTP/1.1 400 Bad Request"
    assert await client.closed()


async def test_what_cannot_be_read_is_told_to_a_client_that_goes_on_sending(serve):
    """A connection that is closed with bytes unread is reset, and a reset takes the answer along (RFC 9112 §9.6)."""
    client = await serve()
    client.send(b"GET / HTTP/1.1\r\nX: " + b"a" * 9000 + b"\r\n")
    for _ in range(100):
        client.send(b"b" * 10_000)
        await asyncio.sleep(0)
    assert (await client.answer())[0] == b"HTTP/1.1 431 Request Header Fields Too Large"
    assert await client.closed()


@pytest.mark.parametrize("cut", [0, 4, 12, 8000])
@pytest.mark.parametrize(
    ("head", "status", "path"),
    [
        (b"GET /v1/models/m HTTP/1.1\r\n\r\n", 400, "/v1/models/m"),
        (b"POST /v1/models/m HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 9000, 431, "/v1/models/m"),
        (b"GET /" + b"a" * 9000, 414, "/" + "a" * 2000),
        (b"GET /v1/h\xc3\xa9 HTTP/1.1\r\n", 400, "/v1/h"),
        (b"GARBAGE\r\n\r\n", 400, ""),
    ],
)
async def test_of_what_cannot_be_read_the_path_is_told_where_it_is_plain(cut, head, status, path):
    told: list[tuple[int, str]] = []

    def refuse(request: Request, refusal: Refused) -> Answer:
        told.append((refusal.status, request.path[:2001]))
        return Answer(refusal.status, b"", {})

    subject = Connection(Registry(echo, 1 << 20, refuse))
    subject.connection_made(Sent())
    subject.data_received(head[:cut])
    subject.data_received(head[cut:])
    assert told == [(status, path)]


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "GZIP", "deflate", "bare", "identity", "utf-8"])
async def test_a_body_is_unpacked_whatever_pieces_it_comes_in(serve, coding):
    body = bytes(range(256)) * 4000
    packed = {"bare": bare(body), "deflate": zlib.compress(body), "identity": body, "utf-8": body}.get(
        coding, gzip.compress(body[:7]) + gzip.compress(body[7:])
    )
    name = {"bare": "deflate"}.get(coding, coding)
    head = f"POST /p HTTP/1.1\r\nHost: h\r\nContent-Encoding: {name}\r\nContent-Length: {len(packed)}\r\n\r\n".encode()
    client = await serve()
    client.send(head + packed + head[:40])
    client.send(head[40:] + packed[:5])
    await asyncio.sleep(0.01)
    client.send(packed[5:] + POST % (3, b"one"))
    for _ in range(2):
        assert (await client.answer())[1] == b"/p " + body
    assert (await client.answer())[1] == b"/p one"


def bare(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


WHOLE = gzip.compress(b"one" * 1000)


@pytest.mark.parametrize(
    ("coding", "packed", "status", "said"),
    [
        *[("gzip", WHOLE[:-cut], 400, "checksum") for cut in range(1, len(WHOLE), 5)],
        ("gzip", WHOLE[:-8] + bytes(8), 400, "damaged"),
        ("gzip", WHOLE + b"more", 400, "gzip"),
        ("gzip", gzip.compress(b"") * 5000, 400, "more after the end"),
        ("gzip", b"plain", 400, "gzip"),
        ("deflate", zlib.compress(b"one")[:-1], 400, "checksum"),
        ("deflate", zlib.compress(b"one") * 2, 400, "more after the end"),
        ("br", b"\x1b", 415, "send gzip, deflate"),
        ("zstd", b"\x28\xb5\x2f\xfd", 415, "zstd"),
        ("gzip, gzip", WHOLE, 415, "gzip, gzip"),
        ("gzip\r\nContent-Encoding: br", WHOLE, 415, "gzip, br"),
    ],
)
async def test_a_body_that_cannot_be_unpacked_is_refused_and_the_connection_goes_on(
    serve, coding, packed, status, said
):
    async def handler(request: Request) -> Answer:
        try:
            return await echo(request)
        except Refused as refused:
            return Answer(refused.status, refused.message.encode(), refused.headers)

    head = f"POST /p HTTP/1.1\r\nHost: h\r\nContent-Encoding: {coding}\r\nContent-Length: {len(packed)}\r\n\r\n"
    client = await serve(handler)
    client.send(head.encode() + packed + POST % (3, b"one"))
    first, body = await client.answer()
    assert first.split()[1] == b"%d" % status
    assert said in body.decode()
    assert (await client.answer())[1] == b"/p one"


async def test_a_body_that_nobody_reads_may_have_any_coding(serve):
    async def handler(_: Request) -> Answer:
        return Answer(200, b"", {})

    client = await serve(handler)
    client.send(b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Encoding: br\r\nContent-Length: 3\r\n\r\none" + LAST)
    assert [(await client.answer())[0] for _ in range(2)] == [b"HTTP/1.1 200 OK"] * 2


async def test_a_bomb_is_unpacked_no_further_than_it_is_read():
    """What is sent is small and what it means is large; only the piece that is asked for exists."""
    content = StreamReader(BaseProtocol(asyncio.get_running_loop()), 1 << 18, loop=asyncio.get_running_loop())
    content.feed_data(gzip.compress(bytes(64 << 20), 9))
    pieces = decoded(content, CIMultiDictProxy(CIMultiDict({"Content-Encoding": "gzip"}))).iter_any()
    tracemalloc.start()
    try:
        assert len(await anext(pieces)) <= 1 << 18
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


async def test_a_target_with_a_host_means_its_path(serve):
    client = await serve()
    client.send(b"GET http://h/a%62?c=d HTTP/1.1\r\nHost: h\r\n\r\n")
    assert (await client.answer())[1] == b"/a%62?c=d "


async def test_a_request_to_speak_another_protocol_is_answered_as_http_and_so_is_the_next(serve):
    client = await serve()
    upgrade = b"GET /u HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    client.send(upgrade + POST % (3, b"one") + upgrade)
    assert [(await client.answer())[1] for _ in range(3)] == [b"/u ", b"/p one", b"/u "]


async def test_a_client_that_leaves_has_its_request_cancelled(serve):
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def handler(_: Request) -> Answer:
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError

    client = await serve(handler)
    client.send(POST % (3, b"one"))
    await begun.wait()
    client.writer.close()
    await asyncio.wait_for(cancelled.wait(), 10)
    assert client.server.connections() == 0


async def test_garbage_in_the_middle_of_a_body_is_told_to_who_reads_it(serve, taken):
    found: list[Exception] = []

    async def handler(request: Request) -> Answer:
        try:
            await body_of(request)
        except RequestPayloadError as error:
            found.append(error)
        return Answer(400, b"no", {"Connection": "close"})

    client = await serve(handler)
    client.send(b"POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
    await taken.to(b"one\r\n")
    client.send(b"no length\r\n")
    assert await client.answer() == (b"HTTP/1.1 400 Bad Request", b"no")
    assert found
    assert await client.closed()


async def test_the_body_of_a_refused_request_is_taken_so_that_the_answer_is_read_and_the_connection_goes_on(serve):
    async def handler(request: Request) -> Answer:
        return Answer(413 if request.content_length else 200, b"", {})

    client = await serve(handler)
    client.send(POST % (1 << 22, b"x" * (1 << 22)) + b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert (await client.answer())[0] == b"HTTP/1.1 413 Request Entity Too Large"
    assert (await client.answer())[0] == b"HTTP/1.1 200 OK"


async def test_a_refused_body_that_goes_on_for_too_long_ends_the_connection(serve, monkeypatch):
    monkeypatch.setattr(connection, "_LINGER", 0.05)

    async def handler(_: Request) -> Answer:
        return Answer(413, b"", {})

    client = await serve(handler)
    client.send(POST % (1 << 30, b"x"))
    assert (await client.answer())[0] == b"HTTP/1.1 413 Request Entity Too Large"
    assert await client.closed()


@pytest.mark.parametrize(("patience", "most_unsent"), [(0.05, 1 << 30), (60, 1 << 20)], ids=["time", "bytes"])
async def test_a_client_that_does_not_read_its_answer_cannot_hold_it(serve, taken, monkeypatch, patience, most_unsent):
    monkeypatch.setattr(connection, "_PATIENCE", patience)

    async def handler(_: Request) -> Answer:
        return Answer(200, bytes(64 << 20), {})

    client = await serve(handler, most_unsent)
    client.writer.transport.pause_reading()
    client.send(POST % (0, b""))
    await asyncio.wait_for(taken.lost.wait(), 30)
    assert client.server.connections() == 0


async def test_a_long_answer_leaves_in_bits_with_others_between(monkeypatch):
    monkeypatch.setattr(connection, "_ONE_GO", 1 << 12)
    body = bytes(range(256)) * 400
    turn, written = 0, []

    class Timed(Sent):
        def write(self, data: bytes | bytearray | memoryview) -> None:  # type: ignore[override]
            super().write(data)
            written.append((turn, len(data)))

    async def handler(_: Request) -> Answer:
        return Answer(200, body, {})

    transport = Timed()
    subject = Connection(
        Registry(handler, 1, unread)
    )  # what the client takes at once counts as nothing that waits for it
    subject.connection_made(transport)
    subject.data_received(POST % (0, b""))
    while subject.task is not None:
        await asyncio.sleep(0)
        turn += 1
    assert transport.data.endswith(b"\r\n\r\n" + body)
    assert max(size for _, size in written) == 1 << 12
    assert len({turn for turn, _ in written}) == len(body) // (1 << 12)


async def test_an_idle_connection_ends_after_a_while_and_a_busy_one_does_not(serve, monkeypatch):
    monkeypatch.setattr(server, "_SWEEP", 0.02)
    monkeypatch.setattr(server, "KEEP_ALIVE", 0.1)
    release = asyncio.Event()

    async def handler(request: Request) -> Answer:
        if request.body:
            await release.wait()
        return Answer(200, b"", {})

    busy, idle = await serve(handler), await serve(handler)
    busy.send(POST % (3, b"one"))
    idle.send(POST % (0, b""))
    await idle.answer()
    assert await idle.closed()
    release.set()
    assert (await busy.answer())[0] == b"HTTP/1.1 200 OK"


async def test_a_head_that_takes_too_long_ends_the_connection(serve, monkeypatch):
    monkeypatch.setattr(server, "_SWEEP", 0.02)
    client = await serve(head_timeout=0.1)
    client.send(b"POST /p HTTP/1.1\r\nHost: h\r\n")
    assert await client.closed()


async def test_at_the_end_a_body_on_its_way_is_still_taken_and_answered(serve, taken):
    client = await serve()
    idle = Client(client.server, *await asyncio.open_connection(*client.writer.get_extra_info("peername")))
    client.send(POST % (5, b"th"))
    await taken.to(b"th")
    client.server.pre_shutdown()
    assert await idle.closed()
    ended = asyncio.create_task(client.server.shutdown(10))
    client.send(b"ree")
    assert (await client.answer())[1] == b"/p three"
    assert await client.closed()
    await ended


async def test_at_the_end_an_answer_that_is_given_is_read_to_its_last_byte(serve):
    given = asyncio.Event()

    async def handler(request: Request) -> Answer:
        request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        given.set()
        return Answer(200, bytes(60_000), {})

    client = await serve(handler)
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(client.writer.get_extra_info("peername"))
        slow.sendall(b"GET /p HTTP/1.1\r\nHost: x\r\n\r\n")
        await given.wait()
        ended = asyncio.create_task(client.server.shutdown(None))
        done, _ = await asyncio.wait({ended}, timeout=0.1)
        assert not done, "the answer was to wait for its reader"
        answer = await asyncio.to_thread(lambda: b"".join(iter(lambda: slow.recv(65_536), b"")))
    await ended
    assert answer.endswith(b"\r\n\r\n" + bytes(60_000))


async def test_at_the_end_a_request_that_takes_too_long_is_cut_off(serve):
    begun = asyncio.Event()

    async def handler(_: Request) -> Answer:
        begun.set()
        await asyncio.sleep(60)
        raise AssertionError

    client = await serve(handler)
    client.send(POST % (3, b"one"))
    await begun.wait()
    await client.server.shutdown(0.05)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await client.reader.readexactly(1)


async def test_a_client_whose_connection_was_not_accepted_yet_when_the_port_closes_is_answered() -> None:
    running = Server(echo, 1 << 30)
    address = await running.listen("127.0.0.1", 0)
    with socket.create_connection(address) as waiting:  # the kernel has it; the loop has not run since
        waiting.sendall(LAST)
        await running.stop()
        waiting.setblocking(False)
        assert (await asyncio.get_running_loop().sock_recv(waiting, 1000)).startswith(b"HTTP/1.1 200")
    await running.close()


async def test_a_client_that_comes_while_the_port_closes_is_refused_before_it_sends_anything() -> None:
    running = Server(echo, 1 << 30)
    address = await running.listen("127.0.0.1", 0)
    stopping = asyncio.create_task(running.stop())
    await asyncio.sleep(0)
    with socket.socket() as late:
        late.setblocking(False)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.get_running_loop().sock_connect(late, address)
    await stopping
    await running.close()
