"""One HTTP/2 connection that carries unary gRPC calls: its streams from open to answered, its limits, its end.

    open ─► waiting ──► sending ──► sent ──► answered         waiting: no stream is free, or the socket is full
                           └─ early answer, cancel, deadline ──► RST_STREAM

A message is answered whole, so our receive windows are as large as HTTP/2 has them: a smaller one would make the server
wait for us and bound nothing. What bounds memory is one message an answer, and the callers' number of calls.
When the connection cannot go on (GOAWAY, lost, out of stream ids), `usable` is false and whoever opened it opens another.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from grpc import StatusCode

from adapter.grpc_h2 import frames, headers, statuses
from adapter.grpc_h2.frames import END_STREAM, ProtocolError, Reader
from adapter.grpc_h2.headers import Head, Malformed
from adapter.grpc_h2.sending import Sending
from adapter.grpc_h2.stream import Stream

# Bytes that may wait for the socket before more is held back; and beyond which a peer that never reads is given up.
_HIGH_WATER = 1 << 20
_GIVEN_UP = _HIGH_WATER << 3
# Seconds that a GOAWAY may take to leave.
_LINGER = 1.0
# Frames that bring no call further, in a row: a peer that sends more is not serving.
_IDLE_FRAMES = 10_000

_SETTINGS = {
    frames.HEADER_TABLE_SIZE: 0,
    frames.ENABLE_PUSH: 0,
    frames.INITIAL_WINDOW_SIZE: frames.MAX_WINDOW,
    frames.MAX_FRAME_SIZE: frames.LARGEST_FRAME_SIZE,
    frames.MAX_HEADER_LIST_SIZE: headers.MAX_HEADER_LIST,
}
_OPENING = (
    frames.PREFACE + frames.settings(_SETTINGS) + frames.window_update(0, frames.MAX_WINDOW - frames.DEFAULT_WINDOW)
)


class Connection(asyncio.Protocol):
    """The client's side of a connection; `on_lost` is called once, when it is over. For one event loop."""

    def __init__(self, on_lost: Callable[["Connection"], None]) -> None:
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._on_lost = on_lost
        self.ready: asyncio.Future[None] = loop.create_future()
        """Done when the server's SETTINGS are here."""
        self.established = False
        """Whether they ever came."""
        self.usable = False
        self.over = asyncio.Event()
        """Set when it is lost or closed."""
        self.why = "connection closed"
        """Why it is over, or no longer usable."""
        self._transport: Any = None
        self._reader = Reader(frames.LARGEST_FRAME_SIZE)
        self._streams: dict[int, Stream] = {}
        self._next_id = 1
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._idle = 0
        self._waiting: deque[Stream] = deque()
        self._sending = Sending()
        self._max_streams = frames.MAX_STREAM
        # Receiving: bytes that the server's window for the connection has lost.
        self._received = 0

    # Calls.

    def begin(self, request_head: bytes, request: bytes, deadline: float) -> Stream:
        """Send a call as soon as the connection can; `answer` of what this returns is the answer, or CallFailed."""
        stream = Stream(request_head, request, deadline, self._loop.create_future())
        if self._sending.paused or self._waiting or len(self._streams) >= self._max_streams:
            self._waiting.append(stream)
        else:
            self._open(stream)
        if self._timer is None or deadline < self._timer_at:
            self._set_timer(deadline)
        return stream

    def cancel(self, stream: Stream) -> None:
        """Nobody waits for the answer any more: tell the server."""
        if not stream.answer.done():
            stream.answer.cancel()
        self._forget(stream, frames.CANCEL)

    def close(self, why: str = "connection closed", code: int = frames.NO_ERROR) -> None:
        """Say goodbye and close; calls in flight fail."""
        transport = self._transport
        if not transport.is_closing():
            self.why = why
            transport.write(frames.goaway(0, code, why))
            transport.close()  # once that is sent
            self._loop.call_later(_LINGER, transport.abort)
        self._lost()

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the transport."""
        self._transport = self._sending.transport = transport
        self._transport.set_write_buffer_limits(_HIGH_WATER)
        self._transport.write(_OPENING)

    def connection_lost(self, error: Exception | None) -> None:
        """Called by the transport: every call fails."""
        if error is not None:
            self.why = str(error)
        self._lost()

    def pause_writing(self) -> None:
        """Called by the transport, inside `write`, when the socket takes no more."""
        self._sending.paused = True

    def resume_writing(self) -> None:
        """Called by the transport."""
        self._sending.paused = False
        self._pump()

    def data_received(self, data: bytes) -> None:
        """Called by the transport."""
        try:
            for kind, flags, stream_id, payload, counted in self._reader.feed(data):
                if kind == frames.DATA:
                    self._on_data(stream_id, payload, flags, counted)
                elif kind == frames.HEADERS:
                    self._on_headers(stream_id, bytes(payload), flags)
                else:
                    self._on_other(kind, flags, stream_id, payload)
        except ProtocolError as error:
            self.close(f"the server broke HTTP/2: {error}", error.code)

    # Answers.

    def _on_headers(self, stream_id: int, block: bytes, flags: int) -> None:
        try:
            head = headers.read(block)
        except Malformed as error:
            self._malformed(stream_id, str(error))
            return
        stream = self._streams.get(stream_id)
        if stream is None:
            self._check_known(stream_id)
            self._count_idle()
            return
        if stream.head is None:
            if head.http is None:
                self._malformed(stream_id, "headers without a status")
            elif flags & END_STREAM:
                stream.head = head
                self._end(stream, head)  # Trailers-Only
            elif head.http < 200:  # informational: others follow (RFC 9113 §8.1)
                self._count_idle()
            else:
                stream.head = head
                if head.http != 200 or not head.is_grpc:
                    what = "" if head.is_grpc else ", not gRPC"
                    self._fail(stream, statuses.of_http(head.http), f"the server answered with HTTP {head.http}{what}")
        elif head.http is not None or not flags & END_STREAM:
            self._malformed(stream_id, "headers where trailers belong")
        else:
            self._end(stream, head)

    def _on_data(self, stream_id: int, piece: bytes | memoryview, flags: int, counted: int) -> None:
        self._received += counted
        if self._received > frames.MAX_WINDOW >> 1:
            self._control(frames.window_update(0, self._received))
            self._received = 0
        stream = self._streams.get(stream_id)
        if stream is None:
            self._check_known(stream_id)
            return
        if stream.head is None:
            self._malformed(stream_id, "data before headers")
            return
        if piece:
            self._idle = 0
            wrong = stream.take(piece)
            if wrong is not None:
                self._fail(stream, *wrong)
        else:
            self._count_idle()
        if flags & END_STREAM and not stream.answer.done():
            self._fail(stream, StatusCode.UNKNOWN, "the answer ended without a status")

    def _end(self, stream: Stream, trailers: Head) -> None:
        """The answer is complete."""
        self._idle = 0
        self._forget(stream, frames.NO_ERROR)
        stream.end(trailers)

    def _malformed(self, stream_id: int, words: str) -> None:
        """An error of one stream (RFC 9113 §8.1.1)."""
        stream = self._streams.get(stream_id)
        if stream is None:
            self._check_known(stream_id)
        else:
            self._fail(stream, StatusCode.INTERNAL, f"a malformed answer: {words}", frames.PROTOCOL_ERROR)

    def _fail(self, stream: Stream, code: StatusCode, words: str, reset: int = frames.CANCEL) -> None:
        """Give a call up."""
        stream.fail(code, words)
        self._forget(stream, reset)

    def _forget(self, stream: Stream, reset: int) -> None:
        """Let go of a stream, and tell the server unless both sides have ended it."""
        if stream.id == 0:
            if stream in self._waiting:
                self._waiting.remove(stream)
            return
        if self._streams.pop(stream.id, None) is None:
            return
        unsent = self._sending.drop(stream)
        if unsent or reset != frames.NO_ERROR:
            self._control(frames.rst_stream(stream.id, reset))
        if self._waiting:
            self._pump()
        elif not self.usable and not self._streams:
            self.close(self.why)

    # Everything else that a server may send.

    def _on_other(self, kind: int, flags: int, stream_id: int, payload: bytes | memoryview) -> None:
        if kind == frames.WINDOW_UPDATE:
            self._on_window_update(stream_id, frames.number(payload) & frames.MAX_WINDOW)
        elif kind == frames.PING:
            self._count_idle()
            if not flags & frames.ACK:
                self._control(frames.frame(frames.PING, frames.ACK, 0, bytes(payload)))
        elif kind == frames.RST_STREAM:
            self._on_reset(stream_id, frames.number(payload))
        elif kind == frames.SETTINGS:
            self._count_idle()
            if not flags & frames.ACK:
                self._on_settings(frames.read_settings(payload))
        elif kind == frames.GOAWAY:
            self._on_goaway(*frames.read_goaway(payload))
        else:  # PRIORITY, and what is not known (RFC 9113 §4.1)
            self._count_idle()

    def _on_window_update(self, stream_id: int, increment: int) -> None:
        self._count_idle()
        if stream_id == 0:
            self._sending.widen(increment)
        else:
            stream = self._streams.get(stream_id)
            if stream is None:
                self._check_known(stream_id)
                return
            if increment == 0:
                self._malformed(stream_id, "a window update of nothing")
                return
            if not self._sending.widen_stream(stream, increment):
                self._fail(stream, StatusCode.INTERNAL, "a window beyond the largest", frames.FLOW_CONTROL_ERROR)
                return
        self._pump()

    def _on_reset(self, stream_id: int, code: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            self._check_known(stream_id)
            self._count_idle()
            return
        status = statuses.of_reset(code)
        words = f"the server reset the call (HTTP/2 error {code})"
        if status is StatusCode.CANCELLED and self._loop.time() >= stream.deadline:
            status, words = StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"
        stream.fail(status, words)
        self._closed_by_server(stream)

    def _closed_by_server(self, stream: Stream) -> None:
        """The stream is gone on the server's side: nothing is sent on it any more."""
        self._sending.drop(stream)
        self._forget(stream, frames.NO_ERROR)

    def _on_settings(self, values: dict[int, int]) -> None:
        if frames.MAX_FRAME_SIZE in values:
            self._sending.limit_frames(values[frames.MAX_FRAME_SIZE])
        self._max_streams = values.get(frames.MAX_CONCURRENT_STREAMS, self._max_streams)
        if frames.INITIAL_WINDOW_SIZE in values:
            change = self._sending.change_initial_window(values[frames.INITIAL_WINDOW_SIZE])
            for stream in self._streams.values():
                if not self._sending.widen_stream(stream, change):
                    raise ProtocolError(frames.FLOW_CONTROL_ERROR, "a window beyond the largest")
        self._control(frames.frame(frames.SETTINGS, frames.ACK, 0))
        if not self.ready.done():
            self.established = self.usable = True
            self.ready.set_result(None)
        self._pump()

    def _on_goaway(self, last: int, code: int, words: str) -> None:
        """The server takes no further streams; those above `last` it has not begun, so they are safe to try again."""
        self.usable = False
        self.why = f"the server is going away{f': {words[:256]}' if words else ''} (HTTP/2 error {code})"
        self._refuse_waiting(self.why)
        for stream in [stream for number, stream in self._streams.items() if number > last]:
            stream.fail(StatusCode.UNAVAILABLE, self.why)
            self._closed_by_server(stream)
        if not self._streams:
            self.close(self.why)

    def _refuse_waiting(self, why: str) -> None:
        """Nothing is opened here any more; those that were not are safe to try elsewhere."""
        for stream in self._waiting:
            stream.fail(StatusCode.UNAVAILABLE, why)
        self._waiting.clear()

    def _check_known(self, stream_id: int) -> None:
        """Frames may still come for a stream that we gave up, never for one that we have not opened (RFC 9113 §5.1)."""
        if stream_id >= self._next_id or stream_id % 2 == 0:
            raise ProtocolError(frames.PROTOCOL_ERROR, f"a frame on stream {stream_id}, which is idle")

    def _count_idle(self) -> None:
        self._idle += 1
        if self._idle > _IDLE_FRAMES:
            raise ProtocolError(frames.ENHANCE_YOUR_CALM, "a flood of frames that serve no call")

    # Sending.

    def _open(self, stream: Stream) -> None:
        """Give it a number and send what may be sent now."""
        number = stream.id = self._next_id
        self._next_id = number + 2
        self._streams[number] = stream
        if self._next_id > frames.MAX_STREAM:
            self.usable = False
            self._refuse_waiting("the connection ran out of stream numbers")
        if self._sending.begin(stream) and self._sending.send():
            self._idle = 0

    def _pump(self) -> None:
        """Send what the socket, the windows and the number of streams allow now."""
        sending = self._sending
        while self._waiting and not sending.paused and self.usable and len(self._streams) < self._max_streams:
            self._open(self._waiting.popleft())
        if sending.queue and sending.send():
            self._idle = 0

    def _control(self, data: bytes) -> None:
        """Send a frame that waits for nothing. A peer that makes us say much and reads nothing is given up."""
        if self._transport.is_closing():
            return
        self._transport.write(data)
        if self._sending.paused and self._transport.get_write_buffer_size() > _GIVEN_UP:
            self.why = "the server does not read what it asks for"
            self._transport.abort()
            self._lost()

    # Deadlines and the end.

    def _set_timer(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self._loop.call_at(deadline, self._expire)

    def _expire(self) -> None:
        """One timer for all calls, at the soonest deadline there was."""
        self._timer = None
        now = self._loop.time()
        for stream in [*self._streams.values(), *self._waiting]:
            if stream.deadline <= now:
                self._fail(stream, StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
        left = [stream.deadline for stream in (*self._streams.values(), *self._waiting)]
        if left:
            self._set_timer(min(left))

    def _lost(self) -> None:
        if self.over.is_set():
            return
        self.over.set()
        self.usable = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(self.why))
        streams = [*self._streams.values(), *self._waiting]
        self._streams.clear()
        self._waiting.clear()
        self._sending.queue.clear()
        for stream in streams:
            stream.fail(StatusCode.UNAVAILABLE, self.why)
        self._on_lost(self)
