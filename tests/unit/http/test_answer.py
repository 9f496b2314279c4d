"""Answers in one piece: the bytes that a client gets, over a real connection."""

import asyncio
from collections.abc import Mapping

import pytest

from adapter.http.answer import Answer
from adapter.http.request import Request
from adapter.http.server import Server

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"


async def exchange(
    request: bytes, body: bytes, headers: Mapping[str, str], status: int = 200, last: bytes = LAST
) -> bytes:
    """All that comes back on one connection for these requests and a last one, which asks to close it."""

    async def handler(_: Request) -> Answer:
        return Answer(status, body, headers)

    server = Server(handler, 1 << 20)
    reader, writer = await asyncio.open_connection(*await server.listen("127.0.0.1", 0))
    writer.write(request + last)
    received = await reader.read()
    writer.close()
    await server.close()
    return received


def first(received: bytes) -> tuple[str, dict[str, str], bytes]:
    """The status line, the headers and the body of the first answer."""
    head, _, rest = received.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    return status, dict(line.split(": ", 1) for line in lines), rest.partition(b"HTTP/1.1 200")[0]


async def test_an_answer_is_its_status_its_headers_and_its_body():
    status, headers, _ = first(await exchange(GET, b"{}", {"Content-Type": "a/b", "X-Y": "z"}, 404))
    assert status == "HTTP/1.1 404 Not Found"
    assert headers.pop("Date").endswith(" GMT")
    assert headers == {"Content-Type": "a/b", "X-Y": "z", "Content-Length": "2"}


async def test_an_empty_body_has_its_length_said():
    _, headers, body = first(await exchange(GET, b"", {}))
    assert (headers["Content-Length"], body) == ("0", b"")


async def test_head_gets_the_head_alone():
    _, headers, body = first(await exchange(GET.replace(b"GET", b"HEAD"), b"{}", {}))
    assert (headers["Content-Length"], body) == ("2", b"")


async def test_a_large_body_arrives_whole():
    whole = bytes(range(256)) * 4096
    assert first(await exchange(GET, whole, {}))[2] == whole


async def test_requests_in_a_row_are_answered_in_a_row():
    received = await exchange(GET * 3, b"{}", {})
    assert received.count(b"HTTP/1.1 200 OK\r\n") == 4


async def test_a_connection_that_the_answer_closes_takes_no_further_request():
    received = await exchange(GET, b"{}", {"Connection": "close"})
    assert received.count(b"HTTP/1.1 200 OK\r\n") == 1
    assert received.count(b"Connection: close\r\n") == 1


async def test_a_client_that_asks_to_close_is_told_so():
    assert first(await exchange(b"", b"", {}))[1]["Connection"] == "close"


@pytest.mark.parametrize(
    ("asked", "last", "told"), [(b"Connection: keep-alive\r\n", LAST, "keep-alive"), (b"", b"", "close")]
)
async def test_http_1_0_keeps_a_connection_only_when_asked_to(asked, last, told):
    """RFC 9112 §9.3; its clients take silence for the end."""
    received = await exchange(b"GET / HTTP/1.0\r\n%b\r\n" % asked, b"", {}, last=last)
    status, headers, _ = first(received)
    assert (status, headers["Connection"]) == ("HTTP/1.0 200 OK", told)
    assert received.count(b" 200 OK\r\n") == 1 + bool(last)


async def test_a_header_with_a_line_break_is_never_sent():
    received = await exchange(b"", b"", {"X-Y": "a\r\nSet-Cookie: b"})
    assert b"Set-Cookie" not in received
