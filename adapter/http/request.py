"""A request as its handler sees it: the head, and the body as far as it has come."""

import asyncio
from typing import NamedTuple, Protocol
from urllib.parse import parse_qsl, unquote

from aiohttp.http import HttpVersion10, RawRequestMessage
from multidict import CIMultiDictProxy

from adapter.http.inflate import Content


class Head(NamedTuple):
    """What a head says. `target` is raw, with its query; `path` is decoded, without; `old` is HTTP/1.0."""

    method: str
    target: str
    path: str
    headers: CIMultiDictProxy[str]
    keep_alive: bool
    old: bool

    @classmethod
    def of(cls, message: RawRequestMessage) -> "Head":
        """The head that aiohttp's parser has read. Of an absolute target (RFC 9112 §3.2.2) the path counts."""
        target = message.path
        if not target.startswith("/") and message.method != "CONNECT" and target != "*":
            target = message.url.raw_path_qs
        path = target.partition("?")[0]
        if "%" in path:
            path = unquote(path)
        return cls(
            message.method, target, path, message.headers, not message.should_close, message.version <= HttpVersion10
        )


class Wire(Protocol):
    """What a request needs of the connection that it came by."""

    remote: str
    transport: asyncio.Transport | None

    def send_continue(self) -> None:
        """Tell the client to send the body."""


class Request:
    """`body` is the whole body if that has come already; else it is None, and `content` has it bit by bit, unpacked.

    `content_length` is the announced one, None where there is none; look for it here, not among the headers.
    """

    __slots__ = ("_wire", "body", "content", "content_length", "head", "headers", "method", "path", "raw_path")

    def __init__(
        self, head: Head, wire: Wire, body: bytes | None, content: Content, content_length: int | None
    ) -> None:
        self.head = head
        self.method, self.raw_path, self.path, self.headers, _, _ = head
        self.body = body
        self.content = content
        self.content_length = content_length
        self._wire = wire

    @property
    def remote(self) -> str:
        """The address of the other side of the connection."""
        return self._wire.remote

    @property
    def content_type(self) -> str:
        """The body's type without its parameters, in lower case; "application/octet-stream" if none is said."""
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower() or "application/octet-stream"

    @property
    def transport(self) -> asyncio.Transport | None:
        """What knows of TLS; None once the client is gone."""
        return self._wire.transport

    @property
    def query(self) -> dict[str, str]:
        """The parameters behind the path; of one given twice the last."""
        return dict(parse_qsl(self.raw_path.partition("?")[2], keep_blank_values=True))

    def send_continue(self) -> None:
        """Answer `Expect: 100-continue` (RFC 9110 §10.1.1)."""
        self._wire.send_continue()
