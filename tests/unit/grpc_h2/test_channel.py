"""The channel on a real socket: what `grpc.aio` says of a call, it says too; and it comes back from every loss."""

import asyncio
import json
import random
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc import StatusCode

from adapter.errors import CallFailed
from adapter.grpc_h2 import channel as module
from adapter.grpc_h2 import frames
from adapter.grpc_h2.channel import H2Channel
from adapter.inference.channel import Channel
from adapter.inference.grpc_aio import GrpcAio
from tests.unit.grpc_h2 import peer as p

CLIENTS: list[Callable[[str], Channel]] = [H2Channel, GrpcAio]


class Server(grpc.GenericRpcHandler):
    """A grpc.aio server that does what it is told by the method's name; `left` gets the calls that were cancelled."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.begun = asyncio.Event()
        self.left: asyncio.Queue[str] = asyncio.Queue()

    async def start(self, *options: tuple[str, int]) -> None:
        self.server = grpc.aio.server(
            options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), *options]
        )
        self.server.add_generic_rpc_handlers((self,))
        self.server.add_insecure_port(self.target.replace("unix://", "unix:"))
        await self.server.start()

    def service(self, details: Any) -> Any:
        method = getattr(self, details.method.rpartition("/")[2], None)
        return method and grpc.unary_unary_rpc_method_handler(method)

    async def Echo(self, request: bytes, context: Any) -> bytes:
        return request

    async def Large(self, request: bytes, context: Any) -> bytes:
        return b"x" * int(request)

    async def Fail(self, request: bytes, context: Any) -> bytes:
        number, details = json.loads(request)
        await context.abort(next(code for code in StatusCode if code.value[0] == number), details)
        raise AssertionError

    async def FailWithMetadata(self, request: bytes, context: Any) -> bytes:
        context.set_trailing_metadata((("hint", "x" * 3000), ("some-bin", b"\0\1")))
        await context.send_initial_metadata((("early", "1"),))
        await context.abort(StatusCode.ABORTED, "with metadata")
        raise AssertionError

    async def Raise(self, request: bytes, context: Any) -> bytes:
        raise RuntimeError("on purpose")

    async def Metadata(self, request: bytes, context: Any) -> bytes:
        return json.dumps(sorted(map(list, context.invocation_metadata()))).encode()

    async def Time(self, request: bytes, context: Any) -> bytes:
        return str(context.time_remaining()).encode()

    async def Wait(self, request: bytes, context: Any) -> bytes:
        self.begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.left.put_nowait("Wait")
            raise
        return b""

    async def Short(self, request: bytes, context: Any) -> bytes:
        self.begun.set()
        await asyncio.sleep(0.2)
        return b"done"


@pytest.fixture
def target(tmp_path: Path) -> str:
    return f"unix://{tmp_path}/s"


@pytest.fixture
async def server(target: str) -> AsyncIterator[Server]:
    running = Server(target)
    await running.start()
    yield running
    await running.server.stop(None)


async def outcome(channel: Channel, method: str, request: bytes, timeout: float = 20, **rest: Any) -> Any:
    try:
        return bytes(await channel.unary(f"/a.B/{method}", request, timeout, **rest))
    except CallFailed as error:
        return error.code, error.message


async def both(target: str, *call: Any, **rest: Any) -> Any:
    """The outcome of a call, which is the same by either client."""
    found = []
    for client in CLIENTS:
        channel = client(target)
        found.append(await outcome(channel, *call, **rest))
        await channel.close()
    assert found[0] == found[1]
    return found[0]


@pytest.mark.parametrize("size", [0, 1, 16_379, 16_380, 65_530, 65_531, 65_536, 65_537, 1_000_000])
async def test_messages_of_any_size_come_back_as_by_grpc_aio(server: Server, size: int) -> None:
    request = random.Random(size).randbytes(size)
    assert await both(server.target, "Echo", request) == request


async def test_messages_of_64_mib_pass_both_ways_and_small_calls_are_answered_beside_them(server: Server) -> None:
    channel = H2Channel(server.target)
    request = random.Random(64).randbytes(1 << 20) * 64
    large = asyncio.create_task(channel.unary("/a.B/Echo", request, 60))
    small = 0
    while not large.done():
        assert await channel.unary("/a.B/Echo", b"small", 60) == b"small"
        small += 1
    assert await large == request
    assert small > 3
    await channel.close()


@pytest.mark.parametrize("details", ["", "plain", "50% of a line\nand another\ttab", "é € 🙂", "%41", "x" * 5000])
@pytest.mark.parametrize("number", [1, 3, 5, 8, 14, 16])
async def test_every_status_and_its_words_are_as_by_grpc_aio(server: Server, number: int, details: str) -> None:
    code, words = await both(server.target, "Fail", json.dumps([number, details]).encode())
    assert code.value[0] == number
    assert words == (details or code.name)


async def test_other_failures_are_as_by_grpc_aio(server: Server) -> None:
    assert (await both(server.target, "FailWithMetadata", b"")) == (StatusCode.ABORTED, "with metadata")
    assert (await both(server.target, "Raise", b""))[0] is StatusCode.UNKNOWN
    assert (await both(server.target, "None", b""))[0] is StatusCode.UNIMPLEMENTED
    late = [await outcome(client(server.target), "Wait", b"", 0.05) for client in CLIENTS]
    assert [code for code, _ in late] == [StatusCode.DEADLINE_EXCEEDED] * 2
    assert late[0][1] == "Deadline Exceeded"


async def test_the_server_sees_metadata_and_the_deadline(server: Server) -> None:
    metadata = [
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("baggage", "a=" + "b" * 7000),
    ]
    channel = H2Channel(server.target)
    seen = json.loads(await channel.unary("/a.B/Metadata", b"", 10, metadata))
    assert [pair for pair in metadata if list(pair) not in seen] == []
    assert 9 < float(await channel.unary("/a.B/Time", b"", 10)) < 10.1
    await channel.close()


async def test_a_cancelled_call_is_cancelled_at_the_server(server: Server) -> None:
    channel = H2Channel(server.target)
    call = asyncio.create_task(channel.unary("/a.B/Wait", b"", 30))
    await server.begun.wait()
    call.cancel()
    async with asyncio.timeout(5):
        assert await server.left.get() == "Wait"
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await outcome(channel, "Echo", b"after") == b"after"
    await channel.close()


async def test_a_call_whose_deadline_passes_is_cancelled_at_the_server(server: Server) -> None:
    channel = H2Channel(server.target)
    assert (await outcome(channel, "Wait", b"", 0.05))[0] is StatusCode.DEADLINE_EXCEEDED
    async with asyncio.timeout(5):
        assert await server.left.get() == "Wait"
    await channel.close()


async def test_hundreds_of_calls_at_once_get_each_its_own_answer(target: str) -> None:
    server = Server(target)
    await server.start(("grpc.max_concurrent_streams", 20))
    channel = H2Channel(target)
    generator = random.Random(1)
    requests = [generator.randbytes(generator.choice([0, 10, 1000, 20_000, 200_000])) for _ in range(300)]

    async def echo(request: bytes) -> bytes:
        while True:
            try:
                return await channel.unary("/a.B/Echo", request, 60)
            except CallFailed as error:  # the server counts a call a moment longer than its answer takes
                assert (error.code, "error 7" in error.message) == (StatusCode.UNAVAILABLE, True)

    assert await asyncio.gather(*map(echo, requests)) == requests
    await channel.close()
    await server.server.stop(None)


async def test_a_server_that_stops_finishes_its_calls_and_the_next_one_gets_the_next_calls(target: str) -> None:
    first, second = Server(target), Server(target)
    await first.start()
    channel = H2Channel(target)
    call = asyncio.create_task(channel.unary("/a.B/Short", b"", 10))
    await first.begun.wait()
    stopping = asyncio.create_task(first.server.stop(5))
    assert await call == b"done"
    await stopping
    assert (await outcome(channel, "Echo", b"x"))[0] is StatusCode.UNAVAILABLE
    await second.start()
    async with asyncio.timeout(5):
        while await outcome(channel, "Echo", b"x") != b"x":
            await asyncio.sleep(0.01)  # it tells nobody that it has connected, here and below
    await channel.close()
    await second.server.stop(None)


async def test_a_server_that_dies_fails_its_calls_as_unavailable(server: Server) -> None:
    channel = H2Channel(server.target)
    call = asyncio.create_task(channel.unary("/a.B/Wait", b"", 30))
    await server.begun.wait()
    await server.server.stop(None)
    with pytest.raises(CallFailed) as caught:
        await call
    assert caught.value.code in (StatusCode.UNAVAILABLE, StatusCode.CANCELLED)
    await channel.close()


async def test_over_tcp_it_is_the_same() -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Server(""),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    request = random.Random(0).randbytes(600_000)
    for host in ("127.0.0.1", "localhost"):
        assert await both(f"{host}:{port}", "Echo", request) == request
    await server.stop(None)


async def test_it_tells_when_the_connection_is_lost_and_keeps_one_up_until_then(target: str) -> None:
    channel = H2Channel(target)
    lost = asyncio.create_task(channel.lost())
    await outcome(channel, "Echo", b"")
    server = Server(target)
    await server.start()
    async with asyncio.timeout(5):
        while channel._connection is None:  # nobody calls
            await asyncio.sleep(0.01)
        assert not lost.done()
        await server.server.stop(None)
        await lost
    await channel.close()


# Servers that are none, or not always.


class Scripted:
    """Accepts connections and says what it is told; what the clients said is in `heard`."""

    def __init__(self, target: str) -> None:
        self.path = target.removeprefix("unix://")
        self.connections = 0
        self.heard = b""
        self.more = asyncio.Event()
        self.greeting = b""
        self.writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> "Scripted":
        self.server = await asyncio.start_unix_server(self._accept, self.path)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        for writer in self.writers:
            writer.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        writer.write(self.greeting)
        while data := await reader.read(65536):
            self.heard += data
            self.more.set()

    async def hear(self, wanted: bytes) -> None:
        async with asyncio.timeout(5):
            while wanted not in self.heard:
                self.more.clear()
                await self.more.wait()


async def test_nobody_there_is_unavailable_at_once_and_is_not_asked_at_every_call(target: str) -> None:
    channel = H2Channel(target)
    whys = {(await outcome(channel, "Echo", b""))[0] for _ in range(50)}
    assert whys == {StatusCode.UNAVAILABLE}
    assert "No such file" in (await outcome(channel, "Echo", b""))[1]
    async with Scripted(target) as server:
        server.greeting = p.settings() + p.answer(1, b"")
        assert server.connections == 0
        async with asyncio.timeout(5):
            while not server.connections:
                await outcome(channel, "Echo", b"", 1)
                await asyncio.sleep(0.005)
        await channel.close()


async def test_it_closes_while_a_server_says_nothing(target: str) -> None:
    channel = H2Channel(target)
    async with Scripted(target) as server, asyncio.timeout(5):
        call = asyncio.create_task(outcome(channel, "Echo", b"", 5))
        await server.hear(b"PRI")
        await channel.close()
        assert (await call)[0] is StatusCode.UNAVAILABLE


async def test_a_connection_that_is_lost_as_soon_as_it_is_up_is_told_too(target: str) -> None:
    channel = H2Channel(target)
    async with Scripted(target) as server, asyncio.timeout(5):
        server.greeting = p.settings() + frames.goaway(0, frames.NO_ERROR, "")
        await channel.lost()
        assert server.connections == 1
        await channel.close()


async def test_attempts_back_off_from_50_to_200_ms(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    channel = H2Channel(target)
    now = 0.0
    monkeypatch.setattr(channel, "_now", lambda: now)
    pauses = []
    for _ in range(6):
        monkeypatch.setattr(channel, "_why", "not tried")
        with pytest.raises(CallFailed, match="No such file"):
            await channel._connected(asyncio.get_running_loop().time() + 5)
        with pytest.raises(CallFailed, match="No such file"):
            await channel._connected(asyncio.get_running_loop().time() + 5)
        pauses.append(channel._not_before - now)
        now = channel._not_before
    for pause, longest in zip(pauses, (0.05, 0.1, 0.2, 0.2, 0.2, 0.2), strict=True):
        assert 0.8 * longest <= pause <= longest


async def test_a_server_that_hangs_before_its_settings_is_given_up(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HANDSHAKE_SECONDS", 0.1)
    async with Scripted(target):
        channel = H2Channel(target)
        assert (await outcome(channel, "Echo", b"", 0.02))[0] is StatusCode.DEADLINE_EXCEEDED
        code, words = await outcome(channel, "Echo", b"", 5)
        assert (code, "no answer within 0.1 s" in words) == (StatusCode.UNAVAILABLE, True)
        await channel.close()


@pytest.mark.parametrize("greeting", [b"HTTP/1.1 400 Bad Request\r\n\r\n", p.raw(p.PING, 0, 0, bytes(8)), b"\0" * 200])
async def test_a_server_that_speaks_something_else_is_unavailable(target: str, greeting: bytes) -> None:
    async with Scripted(target) as server:
        server.greeting = greeting
        channel = H2Channel(target)
        code, words = await outcome(channel, "Echo", b"", 5)
        assert code is StatusCode.UNAVAILABLE
        assert "broke HTTP/2" in words
        await channel.close()
    assert not channel._open


async def test_calls_move_to_a_new_connection_when_the_server_goes_away_or_numbers_run_out(target: str) -> None:
    async with Scripted(target) as server:
        server.greeting = p.settings()
        channel = H2Channel(target)
        first = asyncio.create_task(channel.unary("/a.B/Echo", b"first", 10))
        await server.hear(b"first")
        second = asyncio.create_task(outcome(channel, "Echo", b"second", 10))
        await server.hear(b"second")
        server.writers[0].write(p.raw(p.GOAWAY, 0, 0, bytes(3) + b"\1" + bytes(4)))
        assert (await second)[0] is StatusCode.UNAVAILABLE
        third = asyncio.create_task(channel.unary("/a.B/Echo", b"third", 10))
        await server.hear(b"third")
        assert server.connections == 2
        server.writers[0].write(p.answer(1, b"one"))
        server.writers[1].write(p.answer(1, b"three"))
        assert [await first, await third] == [b"one", b"three"]
        connection = channel._connection
        assert connection is not None
        connection._next_id = frames.MAX_STREAM
        last = asyncio.create_task(channel.unary("/a.B/Echo", b"last", 10))
        await server.hear(b"last")
        after = asyncio.create_task(channel.unary("/a.B/Echo", b"after", 10))
        await server.hear(b"after")
        server.writers[1].write(p.answer(frames.MAX_STREAM, b"1"))
        server.writers[2].write(p.answer(1, b"2"))
        assert [await last, await after] == [b"1", b"2"]
        await channel.close()
    assert not channel._open


async def test_a_channel_that_is_closed_fails_what_is_in_flight_and_what_comes(target: str) -> None:
    async with Scripted(target) as server:
        server.greeting = p.settings()
        channel = H2Channel(target)
        call = asyncio.create_task(outcome(channel, "Echo", b"in flight"))
        await server.hear(b"in flight")
        await channel.close()
        assert await call == (StatusCode.UNAVAILABLE, "the channel is closed")
        assert await outcome(channel, "Echo", b"x") == (StatusCode.UNAVAILABLE, "the channel is closed")


async def test_a_server_that_does_not_read_costs_little_memory(target: str) -> None:
    async with Scripted(target) as server:
        server.greeting = p.settings(window=2**31 - 1) + p.raw(p.WINDOW, 0, 0, (2**30).to_bytes(4, "big"))
        channel = H2Channel(target)
        small = asyncio.create_task(channel.unary("/a.B/Echo", b"hello", 10))
        await server.hear(b"hello")
        for reader in [writer.transport for writer in server.writers]:
            reader.pause_reading()
        large = asyncio.create_task(channel.unary("/a.B/Echo", bytes(64 << 20), 0.3))
        await asyncio.wait([large])
        assert channel._connection is not None
        assert channel._connection._transport.get_write_buffer_size() < 2 << 20
        small.cancel()
        await channel.close()


async def test_the_kernel_takes_more_of_a_message_for_a_unix_socket_than_it_does_by_default(target: str) -> None:
    async with Scripted(target) as server:
        server.greeting = p.settings()
        channel = H2Channel(target)
        call = asyncio.create_task(channel.unary("/a.B/Echo", b"hello", 10))
        await server.hear(b"hello")
        assert channel._connection is not None
        own = channel._connection._transport.get_extra_info("socket")
        with socket.socket(socket.AF_UNIX) as other:
            usual = other.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        assert own.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) > usual
        server.writers[0].write(p.answer(1, b"hi"))
        assert await call == b"hi"
        await channel.close()


async def test_everything_here_runs_on_uvloop() -> None:
    assert type(asyncio.get_running_loop()).__module__.startswith("uvloop")
