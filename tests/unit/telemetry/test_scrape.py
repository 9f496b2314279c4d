"""What the fetch of TensorFlow Serving's monitoring page tells of it: that it failed, and nothing when it came."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from prometheus_client import CollectorRegistry

from adapter.telemetry import scrape
from adapter.telemetry.scrape import Scraper
from tests.servers import free_port

PAGE = b'# TYPE :tensorflow:serving:request_count counter\n:tensorflow:serving:request_count{status="OK"} 1\n'


def answer(status: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (status, len(body), body)


class Failures:
    """How often a scraper of this URL has said that it failed."""

    def __init__(self, url: str) -> None:
        self.count = 0
        self.scraper = Scraper(url, (), CollectorRegistry())
        self.scraper.on_failed = self._one

    def _one(self) -> None:
        self.count += 1


@asynccontextmanager
async def page(sent: bytes) -> AsyncIterator[Failures]:
    """A server that sends these bytes to whoever asks, and then nothing."""
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(sent)
        await over.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1")
    failures = Failures(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    try:
        yield failures
    finally:
        over.set()
        await failures.scraper.close()
        server.close()


async def test_a_page_that_comes_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "SECONDS", 30.0)
    async with page(answer(b"200 OK", PAGE)) as failures:
        assert await failures.scraper.families()
        assert failures.count == 0


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(answer(b"404 Not Found", b"<HTML>"), id="not found"),
        pytest.param(answer(b"503 Service Unavailable", b""), id="refused"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="not HTTP"),
        pytest.param(answer(b"200 OK", PAGE)[:-10], id="stops in the middle"),
        pytest.param(b"", id="silent"),
    ],
)
async def test_each_page_that_cannot_be_had_tells_it(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "SECONDS", 0.1)
    async with page(sent) as failures:
        for asked in (1, 2):
            assert not await failures.scraper.families()
            assert failures.count == asked


async def test_a_server_that_is_gone_is_a_failure_too() -> None:
    failures = Failures(f"http://127.0.0.1:{free_port()}/")
    assert not await failures.scraper.families()
    assert failures.count == 1
    await failures.scraper.close()


async def test_those_who_share_a_fetch_share_its_failure() -> None:
    async with page(answer(b"404 Not Found", b"")) as failures:
        await asyncio.gather(*(failures.scraper.families() for _ in range(5)))
        assert failures.count == 1
