"""What leaves on one connection: heads at once, messages as the socket and the server's windows allow, in turns.

begin ─► small, and there is room: head and message in one write
     └─► head, then a frame of each message in turn, until the socket is full (`paused`) or a window is used up
"""

import struct
from collections import deque
from typing import Any

from adapter.grpc_h2 import frames
from adapter.grpc_h2.frames import END_STREAM, HEAD, ProtocolError
from adapter.grpc_h2.stream import PREFIX, Stream

# Requests up to here are copied behind their heads, larger ones leave from where they lie.
_COPIED = 1 << 16
# Bytes between two looks at whether the socket is full; gRPC's core takes frames of 16 MiB.
_BURST = 1 << 18
_DATA_AND_PREFIX = struct.Struct(">IBIBI")


class Sending:
    """The transport's side that is written to; `paused` while it takes no more."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.paused = False
        self.queue: deque[Stream] = deque()
        """Those that have something left to send and a window to send it in."""
        self._window = frames.DEFAULT_WINDOW
        self._initial_window = frames.DEFAULT_WINDOW
        self._max_frame = frames.DEFAULT_FRAME_SIZE

    def begin(self, stream: Stream) -> bool:
        """Send the head, and the message if it fits what may be sent now; whether `send` has something to do."""
        head, body = stream.request_head, stream.body
        length = len(body)
        size = length + PREFIX.size
        if length <= _COPIED and size <= self._window and size <= self._initial_window and size <= self._max_frame:
            self._window -= size
            stream.window = self._initial_window - size
            stream.body = b""
            whole = frames.headers(stream.id, head, self._max_frame) + _DATA_AND_PREFIX.pack(
                size << 8 | frames.DATA, END_STREAM, stream.id, 0, length
            )
            self.transport.write(whole + body)
            return False
        self.transport.write(frames.headers(stream.id, head, self._max_frame))
        stream.prefix = PREFIX.pack(0, length)
        stream.body = memoryview(body)
        stream.sent = 0
        stream.window = self._initial_window
        if stream.window > 0:
            self.queue.append(stream)
        return stream.window > 0

    def send(self) -> bool:
        """Messages in pieces, a frame of each in turn; whether any left."""
        queue = self.queue
        any_left = False
        while queue and self._window > 0 and not self.paused:
            burst: list[bytes | memoryview] = []
            size = 0
            while queue and self._window > 0 and size < _BURST:
                stream = queue.popleft()
                if stream.window > 0:  # else it comes back with the server's next word on its window
                    size += self._piece(stream, burst)
            any_left = True
            self.transport.writelines(burst)
        return any_left

    def _piece(self, stream: Stream, burst: list[bytes | memoryview]) -> int:
        """Add a frame of a stream's message to the burst; how many bytes of the windows that takes."""
        total = len(stream.body) + PREFIX.size
        start = stream.sent
        count = min(total - start, self._max_frame, self._window, stream.window)
        stop = start + count
        last = stop == total
        burst.append(HEAD.pack(count << 8 | frames.DATA, END_STREAM if last else 0, stream.id))
        if start < PREFIX.size:
            burst.append(stream.prefix[start:stop])
        burst.append(stream.body[max(start - PREFIX.size, 0) : max(stop - PREFIX.size, 0)])
        self._window -= count
        stream.window -= count
        if last:
            stream.sent = -1
            stream.body = b""
        else:
            stream.sent = stop
            if stream.window > 0:
                self.queue.append(stream)
        return count

    def drop(self, stream: Stream) -> bool:
        """Send nothing more of a stream; whether there was something left."""
        if stream.sent < 0:
            return False
        stream.sent = -1
        stream.body = b""
        if stream in self.queue:
            self.queue.remove(stream)
        return True

    # The server's word on sizes and windows.

    def limit_frames(self, size: int) -> None:
        """The largest frame that the server takes."""
        self._max_frame = min(_BURST, size)

    def widen(self, increment: int) -> None:
        """The connection's window grows. Raises ProtocolError where it may not."""
        if increment == 0:
            raise ProtocolError(frames.PROTOCOL_ERROR, "a window update of nothing")
        self._window += increment
        if self._window > frames.MAX_WINDOW:
            raise ProtocolError(frames.FLOW_CONTROL_ERROR, "a window beyond the largest")

    def widen_stream(self, stream: Stream, change: int) -> bool:
        """A stream's window changes; False where it may not grow so far."""
        stream.window += change
        if stream.window > frames.MAX_WINDOW:
            return False
        if stream.sent >= 0 and stream.window > 0 and stream not in self.queue:
            self.queue.append(stream)
        return True

    def change_initial_window(self, size: int) -> int:
        """What a new stream has; by how much all others' windows change (RFC 9113 §6.9.2: they may become negative)."""
        change = size - self._initial_window
        self._initial_window = size
        return change
