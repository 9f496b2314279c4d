"""A request's body, read as it comes."""

import asyncio

import pytest
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol
from multidict import CIMultiDict, CIMultiDictProxy

from adapter.errors import Refused
from adapter.exchange import Bodies, Exchange
from adapter.http.request import Head, Request
from adapter.settings import Settings


class NoWire:
    remote = ""
    transport = None

    def send_continue(self) -> None:
        raise AssertionError("nobody asked")


def connected() -> StreamReader:
    loop = asyncio.get_running_loop()
    protocol = BaseProtocol(loop)
    protocol.connection_made(asyncio.Transport())
    return StreamReader(protocol, 1 << 16, loop=loop)


def exchange(content: StreamReader) -> Exchange:
    head = Head("POST", "/v1", "/v1", CIMultiDictProxy(CIMultiDict()), True, False)
    return Exchange(Request(head, NoWire(), None, content, None), asyncio.get_running_loop().time() + 60)


async def feed(content: StreamReader, chunks: list[bytes]) -> None:
    for chunk in chunks:
        content.feed_data(chunk)
        while content._size:  # until it is taken
            await asyncio.sleep(0)
    content.feed_eof()


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 200])
async def test_a_body_in_any_number_of_chunks_is_read_whole_and_counted(count: int) -> None:
    content = connected()
    one = exchange(content)
    chunks = [b"%d," % number for number in range(count)]
    feeding = asyncio.create_task(feed(content, chunks))
    body = await Bodies(Settings()).read(one)
    await feeding
    assert body == b"".join(chunks)
    assert one.received == one.held == len(body)


async def test_a_body_beyond_its_bound_is_refused_before_it_has_all_come() -> None:
    content = connected()
    one = exchange(content)
    feeding = asyncio.create_task(feed(content, [b"x" * 10] * 10))
    with pytest.raises(Refused) as refused:
        await Bodies(Settings()).read(one, most=35)
    feeding.cancel()
    assert refused.value.status == 413
    assert one.received == 40
