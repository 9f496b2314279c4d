"""One connection: requests in, one at a time to the handler, answers out in the same order.

    bytes ─► known head? ── yes ─────────────────────────► task: handler ─► answer ─► next in the queue, or idle
               └─ no ─► aiohttp's parser ─► queue ─► its turn ─┘

aiohttp's own protocol keeps a task for each connection and starts another for each request, with a writer, a request
that can do far more than ours, and a stream for every body; that is two thirds of what a small request cost. Its parser
(llhttp) and its streams for large bodies stay.

A client that keeps its connection sends the same head again and again, but for the length of the body. So the last head
that the parser took is remembered, and one that equals it, byte for byte around the digits of Content-Length, is not
parsed again (`known.py`): equal bytes mean equal things, provided that the parser stands between two requests.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import cast

from aiohttp import EMPTY_PAYLOAD, StreamReader
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpProcessingError, HttpRequestParser, RawRequestMessage
from aiohttp.web import RequestPayloadError

from adapter.errors import Refused
from adapter.http.answer import Answer
from adapter.http.inflate import decoded
from adapter.http.known import Known, end_of_head
from adapter.http.request import Head, Request
from adapter.http.unread import KEPT, LONGEST_LINE, MOST_HEADERS, Unread, reason

log = logging.getLogger(__name__)

Handler = Callable[[Request], Awaitable[Answer]]
"""Answers every request; it raises nothing but CancelledError, when the client is gone."""

Refuse = Callable[[Request, Refused], Answer]
"""Answers what is no request that can be read: all that is known of it, and why not."""

# Larger bodies are not copied to stand behind their heads.
_ONE_WRITE = 1 << 16
# Bytes that are written in one go: while the client reads as fast as we write, the kernel would take all of them at once.
_ONE_GO = 1 << 20
_NOTHING = memoryview(b"")
# Bytes of a body that may wait for the handler before the client has to.
_READ_AHEAD = 1 << 18
# Requests that may wait behind the one in progress.
_MOST_QUEUED = 32
# Seconds that the rest of what was refused is thrown away, so that the client reads the answer (RFC 9112 §9.6).
_LINGER = 10.0
CUT_OFF = "cut off"
"""What a request's task is cancelled with when it is not its client that left."""
# A client that takes less than so many bytes of its answer in so many seconds has stopped reading.
_LEAST_READ, _PATIENCE = 1 << 16, 30.0


class Registry:
    """The connections of one server, and what they share."""

    def __init__(self, handler: Handler, most_unsent: int, refuse: Refuse) -> None:
        self.handler = handler
        self.refuse = refuse
        self.loop = asyncio.get_running_loop()
        self.open: set[Connection] = set()
        self.one_less = asyncio.Event()
        self.most_unsent = most_unsent
        self.unsent = 0


class Connection(BaseProtocol):
    """Made by the server for each connection that it accepts."""

    __slots__ = (
        "_begun",
        "_content",
        "_deaf",
        "_ending",
        "_known",
        "_queue",
        "_reader",
        "_registry",
        "_rest",
        "head_since",
        "remote",
        "since",
        "task",
    )

    def __init__(self, registry: Registry) -> None:
        loop = registry.loop
        parser = HttpRequestParser(
            self,
            loop,
            _READ_AHEAD,
            max_line_size=LONGEST_LINE,
            max_field_size=LONGEST_LINE,
            max_headers=MOST_HEADERS,
            payload_exception=RequestPayloadError,
            auto_decompress=False,
            max_msg_queue_size=1,  # it stops after each, because it keeps to itself what it found before an error
        )
        super().__init__(loop, parser)
        self._registry = registry
        self._reader = parser
        self._queue: deque[tuple[Request, StreamReader] | Unread] = deque()
        self._content: StreamReader = EMPTY_PAYLOAD
        self._known: Known | None = None
        # The beginning of a head that is not complete yet.
        self._begun = b""
        # Bytes of the body that the parser still waits for; None when that cannot be told.
        self._rest: int | None = 0
        self._deaf = self._ending = False
        self.remote = ""
        self.task: asyncio.Task[None] | None = None
        """The request in progress."""
        self.since = loop.time()
        """When the last answer left, in the event loop's time."""
        self.head_since = 0.0
        """When a head that is not complete yet began, 0 if there is none."""

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self.remote = str(peer[0]) if isinstance(peer, tuple) else ""
        self._registry.open.add(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._ending = True
        self._registry.open.discard(self)
        self._registry.one_less.set()
        self._queue.clear()
        if self.task is not None:
            self.task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._deaf or (self._ending and self.task is None):
            return
        if self.task is None and self._rest == 0 and self._known is not None:
            found = self._known.match(data)
            if found is not None:
                body, length = found
                self._begin(Request(self._known.head, self, body, EMPTY_PAYLOAD, length), None)
                return
        self._parse(data)

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Asked by a stream at every read; costs a call of the parser, so only where reading was paused."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    # What the server asks.

    def close(self) -> None:
        """End the connection, after the answer to the request in progress if there is one."""
        self._ending = True
        if self.task is None and self.transport is not None:
            self.transport.close()

    def cut_off(self) -> None:
        """End the connection now."""
        self._ending = True
        if self.task is not None:
            self.task.cancel(CUT_OFF)
        if self.transport is not None:
            self.transport.abort()

    # What a request asks.

    def send_continue(self) -> None:
        if self.transport is not None:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # The rest is this connection's own.

    def _parse(self, data: bytes) -> None:
        count = len(self._queue)
        text = data if self._rest == 0 else self._begun and self._begun + data
        try:
            self._look_at(data, self._read(data))
        except HttpProcessingError as error:
            self._deaf = True
            if self._content.is_eof():
                self._queue.append(Unread.of(error, text if len(self._queue) == count else b""))
            else:  # it is in the middle of a body
                self._content.set_exception(RequestPayloadError(reason(error)))
        if len(self._queue) == count:
            self._begun = text[:KEPT]
            if self.task is None and data:
                self.head_since = self.head_since or self._loop.time()
            return
        self.head_since = 0.0
        self._begun = b""
        if len(self._queue) >= _MOST_QUEUED and not self._buffer_paused:
            self._pause_reading_for_buffer()  # and the parser keeps what else it has
        if self.task is None:
            self._next()

    def _read(self, data: bytes) -> list[tuple[RawRequestMessage, StreamReader]]:
        """What the parser finds, which goes to the end of the queue too."""
        parser = self._reader
        found = []
        while True:
            waits = not self._content.is_eof()
            messages, upgraded, tail = parser.feed_data(data)
            for message, content in messages:
                length = message.headers.get("Content-Length")
                body = decoded(content, message.headers) if "Content-Encoding" in message.headers else content
                request = Request(Head.of(message), self, None, body, int(length) if length else None)
                self._queue.append((request, content))
                self._content = content
            found += messages
            if upgraded:
                parser.set_upgraded(False)  # nothing is: what follows is HTTP as before
                data = tail
            elif (messages or waits) and self._content.is_eof() and len(self._queue) < _MOST_QUEUED:
                data = b""  # it may have stopped after a request with more in hand
            else:
                return found

    def _look_at(self, data: bytes, messages: list[tuple[RawRequestMessage, StreamReader]]) -> None:
        """Keep count of what the parser waits for, and remember the head of a request that came whole."""
        before = self._rest
        if before is None or not data:
            return
        if before:
            rest = before - len(data)
            self._rest = rest if rest >= 0 and not messages else None
            return
        self._rest = None
        if len(messages) != 1:
            return
        message, content = messages[0]
        end = end_of_head(data)
        if not end or message.chunked or message.upgrade:
            return
        length = int(message.headers.get("Content-Length") or 0)
        rest = end + length - len(data)
        if rest < 0 or (rest == 0) != content.is_eof():
            return
        self._rest = rest
        if rest == 0:
            self._known = Known.of(data[:end], message)

    def _next(self) -> None:
        """Begin the request that has waited longest."""
        if not self._queue:
            return
        waiting = self._queue.popleft()
        if isinstance(waiting, Unread):
            self._refuse(waiting)
            return
        self._begin(*waiting)
        if self._buffer_paused and len(self._queue) <= _MOST_QUEUED // 2:
            self._buffer_paused = False
            self._parse(b"")
            if not self._buffer_paused:
                self._resume_reading_for_buffer()

    def _begin(self, request: Request, content: StreamReader | None) -> None:
        self.task = self._loop.create_task(self._serve(request, content))

    async def _serve(self, request: Request, content: StreamReader | None) -> None:
        try:
            if content is not None and content is request.content and content.is_eof() and content.exception() is None:
                request.body = _all_of(content)
            answer = await self._registry.handler(request)
            rest = self._send(request.head, answer)
            if rest or self._paused:
                await self._sent(rest)
            if content is not None and not content.is_eof() and content.exception() is None:
                await self._discard(content)
        except asyncio.CancelledError:
            self.task = None
            self.cut_off()
            raise
        except (ConnectionError, RequestPayloadError, HttpProcessingError):
            self.task = None
            self.cut_off()
        except Exception:
            log.exception("Unexpected failure on a connection")
            self.task = None
            self.cut_off()
        self.task = None
        if self._ending:
            self.close()
            return
        self.since = self._loop.time()
        self._next()

    def _send(self, head: Head, answer: Answer) -> memoryview:
        """Write the answer, but for the rest of a long one, which this returns."""
        transport = self.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError
        if answer.close or not head.keep_alive:
            self._ending = True
        start = answer.head(close=self._ending, old=head.old)
        body = answer.sent_body(head.method)
        if len(body) <= _ONE_WRITE:
            transport.write(start + body)
            return _NOTHING
        transport.write(start)
        return memoryview(body)

    async def _sent(self, rest: memoryview) -> None:
        """Write the rest of an answer, and wait while the client reads it; one that does not is cut off."""
        registry, transport = self._registry, cast("asyncio.Transport", self.transport)
        while rest and not self._paused:  # what the client takes at once is held by nobody
            transport.write(rest[:_ONE_GO])
            rest = rest[_ONE_GO:]
            await asyncio.sleep(0)
        if not (rest or self._paused):
            return
        left = transport.get_write_buffer_size() + len(rest)
        registry.unsent += left
        try:
            while registry.unsent <= registry.most_unsent:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_PATIENCE):
                        await self._drain_helper()
                        while rest:
                            transport.write(rest[:_ONE_GO])
                            rest = rest[_ONE_GO:]
                            if rest:
                                await asyncio.sleep(0)
                            await self._drain_helper()
                        return
                now = transport.get_write_buffer_size() + len(rest)
                if left - now < _LEAST_READ:
                    break
                registry.unsent -= left - now
                left = now
            log.info("A client does not read its answer: %s is cut off", self.remote)
            raise ConnectionAbortedError
        finally:
            registry.unsent -= left

    async def _discard(self, content: StreamReader) -> None:
        """Read a body that nobody wants, for a while; after that the connection is of no further use."""
        try:
            async with asyncio.timeout(_LINGER):
                while not content.is_eof():
                    await content.readany()
        except TimeoutError:
            self._ending = True

    def _refuse(self, unread: Unread) -> None:
        """Answer what cannot be read, and end; the client has a while to read why."""
        answer = self._registry.refuse(Request(unread.head, self, b"", EMPTY_PAYLOAD, None), unread.refusal)
        transport = cast("asyncio.Transport", self.transport)
        try:
            transport.write(self._send(unread.head, answer))
        except ConnectionError:
            return
        if transport.can_write_eof():
            transport.write_eof()
            self._loop.call_later(_LINGER, transport.close)
        else:
            transport.close()


def _all_of(content: StreamReader) -> bytes:
    """A body that is here in full."""
    parts = []
    while not content.at_eof():
        parts.append(content.read_nowait())
    return parts[0] if len(parts) == 1 else b"".join(parts)
