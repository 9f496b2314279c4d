"""HTTP/2 frames as bytes (RFC 9113 §4, §6): built by functions, read by a `Reader`; no I/O, and nothing known of gRPC.

A reader takes what a socket gives, however it is cut, and yields whole frames, with two exceptions that keep its memory
bounded: DATA is passed on piece by piece as it comes, without its padding, and HEADERS with their CONTINUATIONs are one
frame. What a server may not send to a client ends in ProtocolError, which knows the error code to answer with.
"""

import struct
from collections.abc import Iterator
from typing import Final

DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
WITH_PRIORITY: Final = 0x20

# RFC 9113 §7
NO_ERROR: Final = 0x0
PROTOCOL_ERROR: Final = 0x1
INTERNAL_ERROR: Final = 0x2
FLOW_CONTROL_ERROR: Final = 0x3
SETTINGS_TIMEOUT: Final = 0x4
STREAM_CLOSED: Final = 0x5
FRAME_SIZE_ERROR: Final = 0x6
REFUSED_STREAM: Final = 0x7
CANCEL: Final = 0x8
COMPRESSION_ERROR: Final = 0x9
CONNECT_ERROR: Final = 0xA
ENHANCE_YOUR_CALM: Final = 0xB
INADEQUATE_SECURITY: Final = 0xC
HTTP_1_1_REQUIRED: Final = 0xD

# RFC 9113 §6.5.2
HEADER_TABLE_SIZE: Final = 0x1
ENABLE_PUSH: Final = 0x2
MAX_CONCURRENT_STREAMS: Final = 0x3
INITIAL_WINDOW_SIZE: Final = 0x4
MAX_FRAME_SIZE: Final = 0x5
MAX_HEADER_LIST_SIZE: Final = 0x6

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD: Final = struct.Struct(">IBI")
"""The head of a frame: its length and type in one number, flags, stream."""
MAX_WINDOW: Final = 2**31 - 1
DEFAULT_WINDOW: Final = 65_535
DEFAULT_FRAME_SIZE: Final = 16_384
LARGEST_FRAME_SIZE: Final = 2**24 - 1
MAX_STREAM: Final = 2**31 - 1

# Bytes of anything but DATA: a header block with its CONTINUATIONs, the text of a GOAWAY.
MAX_CONTROL: Final = 65_536
# Frames of one header block.
MAX_CONTINUATIONS: Final = 16

_LENGTHS = {PRIORITY: 5, RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}
_OF_CONNECTION = frozenset({SETTINGS, PING, GOAWAY})
_OF_STREAM = frozenset({DATA, HEADERS, PRIORITY, RST_STREAM, CONTINUATION})
_SETTING = struct.Struct(">HI")
_NUMBER = struct.Struct(">I")
_TWO_NUMBERS = struct.Struct(">II")
# Smaller pieces of DATA are copied out: a view costs more than that, and keeps all that came with it alive.
_VIEW = 4096

Frame = tuple[int, int, int, bytes | memoryview, int]
"""Type, flags, stream, payload, and for DATA the bytes that count against the flow-control windows."""


class ProtocolError(Exception):
    """The other side broke HTTP/2: the connection cannot go on. `code` is for the GOAWAY."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Any frame."""
    return HEAD.pack(len(payload) << 8 | kind, flags, stream) + payload


def settings(values: dict[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join([_SETTING.pack(name, value) for name, value in values.items()]))


def window_update(stream: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame; stream 0 is the connection."""
    return frame(WINDOW_UPDATE, 0, stream, _NUMBER.pack(increment))


def rst_stream(stream: int, code: int) -> bytes:
    """A RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream, _NUMBER.pack(code))


def goaway(last: int, code: int, text: str = "") -> bytes:
    """A GOAWAY frame."""
    return frame(GOAWAY, 0, 0, _TWO_NUMBERS.pack(last, code) + text.encode()[:1024])


def headers(stream: int, block: bytes, max_frame_size: int) -> bytes:
    """A header block that does not end its stream: HEADERS, and CONTINUATIONs where it is longer than a frame."""
    if len(block) <= max_frame_size:
        return frame(HEADERS, END_HEADERS, stream, block)
    parts = [block[at : at + max_frame_size] for at in range(0, len(block), max_frame_size)]
    last = len(parts) - 1
    return b"".join(
        [
            frame(CONTINUATION if number else HEADERS, END_HEADERS if number == last else 0, stream, part)
            for number, part in enumerate(parts)
        ]
    )


def number(payload: bytes | memoryview) -> int:
    """The 31 bits of a WINDOW_UPDATE, or the 32 of a RST_STREAM."""
    value: int = _NUMBER.unpack(payload)[0]
    return value


def read_settings(payload: bytes | memoryview) -> dict[int, int]:
    """The values of a SETTINGS frame; the last one counts. Raises ProtocolError where one is out of range."""
    values = dict(_SETTING.iter_unpack(payload))
    if values.get(ENABLE_PUSH, 0) != 0:  # RFC 9113 §6.5.2: a server must not
        raise ProtocolError(PROTOCOL_ERROR, "a server that enables push")
    if values.get(INITIAL_WINDOW_SIZE, 0) > MAX_WINDOW:
        raise ProtocolError(FLOW_CONTROL_ERROR, f"an initial window of {values[INITIAL_WINDOW_SIZE]}")
    if not DEFAULT_FRAME_SIZE <= values.get(MAX_FRAME_SIZE, DEFAULT_FRAME_SIZE) <= LARGEST_FRAME_SIZE:
        raise ProtocolError(PROTOCOL_ERROR, f"a largest frame of {values[MAX_FRAME_SIZE]}")
    return values


def read_goaway(payload: bytes | memoryview) -> tuple[int, int, str]:
    """The last stream that the other side may have begun, its error code, and its words."""
    last, code = _TWO_NUMBERS.unpack_from(payload)
    return last & MAX_STREAM, code, bytes(payload[8:]).decode("utf-8", "replace")


class Reader:
    """Frames out of a stream of bytes, none longer than `max_frame_size`."""

    def __init__(self, max_frame_size: int) -> None:
        self._max = max_frame_size
        self._rest = b""
        self._begun = False
        # The frame that is not complete: the stream and flags that it began with.
        self._flags = self._stream = 0
        # Of DATA: what is left of its data and its padding, and what counts beside the data.
        self._in_data = False
        self._left = self._padding = self._beside = 0
        # Of HEADERS: the block so far.
        self._in_block = False
        self._block = bytearray()
        self._continuations = 0

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that these bytes complete. Raises ProtocolError when the other side breaks the rules."""
        if self._rest:
            data = self._rest + data
            self._rest = b""
        at, size = 0, len(data)
        while True:
            if self._begun and not (self._in_data or self._padding or self._in_block) and size - at >= 9:
                # The way of most: a DATA frame that is here whole. 0.5 to 0.8 us, less than half of the way of all others.
                word, flags, stream = HEAD.unpack_from(data, at)
                length, stream = word >> 8, stream & MAX_STREAM
                start = at + 9
                plain = word & 0xFF == DATA and stream and not flags & PADDED
                if plain and length <= self._max and start + length <= size:
                    at = start + length
                    yield DATA, flags & END_STREAM, stream, _piece(data, start, at), length
                    continue
            step = self._inside if self._in_data or self._padding else self._next
            before = at
            at, frame = step(data, at)
            if frame is not None:
                yield frame
            elif at == before:
                break
        self._rest = data[at:]

    def _next(self, data: bytes, at: int) -> tuple[int, Frame | None]:
        """From where a frame begins: up to where I have read, and the frame if that completes one."""
        here = len(data) - at
        if here < 9:
            return at, None
        word, flags, stream = HEAD.unpack_from(data, at)
        length, kind, stream = word >> 8, word & 0xFF, stream & MAX_STREAM
        self._check(kind, flags, stream, length)
        if kind == DATA:
            if flags & PADDED and length and here < 10:
                return at, None
            return at + self._begin_data(data, at, length, flags, stream), None
        if here < 9 + length:
            return at, None
        at += 9 + length
        payload = data[at - length : at]
        if kind not in (HEADERS, CONTINUATION):
            return at, (kind, flags, stream, payload, 0)
        block = self._headers(kind, flags, stream, payload)
        return at, None if block is None else (HEADERS, self._flags, stream, block, 0)

    def _inside(self, data: bytes, at: int) -> tuple[int, Frame | None]:
        """The same, from within a DATA frame."""
        if not self._in_data:
            skipped = min(self._padding, len(data) - at)
            self._padding -= skipped
            return at + skipped, None
        stop = min(at + self._left, len(data))
        if stop == at and self._left:
            return at, None
        self._left -= stop - at
        self._in_data = self._left > 0
        piece = _piece(data, at, stop)
        counted, self._beside = stop - at + self._beside, 0
        return stop, (DATA, 0 if self._in_data else self._flags, self._stream, piece, counted)

    def _check(self, kind: int, flags: int, stream: int, length: int) -> None:
        """Whether a frame with this head may come now."""
        if not self._begun:
            if kind != SETTINGS or flags & ACK:
                raise ProtocolError(PROTOCOL_ERROR, "the first frame is not SETTINGS")
            self._begun = True
        if self._in_block != (kind == CONTINUATION) or (self._in_block and stream != self._stream):
            raise ProtocolError(PROTOCOL_ERROR, "a header block that is interrupted, or never began")
        if length > self._max:
            raise ProtocolError(FRAME_SIZE_ERROR, f"a frame of {length} bytes")
        if kind == PUSH_PROMISE or (stream == 0 and kind in _OF_STREAM) or (stream and kind in _OF_CONNECTION):
            raise ProtocolError(PROTOCOL_ERROR, f"a frame of type {kind} on stream {stream}")
        if kind != DATA:
            _check_length(kind, flags, length)

    def _begin_data(self, data: bytes, at: int, length: int, flags: int, stream: int) -> int:
        """Take the head of a DATA frame; how many bytes that is."""
        size = 9
        if flags & PADDED:
            size = 10
            self._padding = data[at + 9] if length else 0
            self._beside = 1 + self._padding
            if self._beside > length:
                raise ProtocolError(PROTOCOL_ERROR, "more padding than frame")
        self._in_data, self._left = True, length - self._beside
        self._flags, self._stream = flags & END_STREAM, stream
        return size

    def _headers(self, kind: int, flags: int, stream: int, payload: bytes) -> bytes | None:
        """The header block that this frame completes."""
        if kind == HEADERS:
            payload = _without_padding(payload, flags)
            self._flags, self._stream = flags, stream
            if flags & END_HEADERS:
                return payload
            self._block.clear()
            self._in_block, self._continuations = True, 0
        self._block += payload
        self._continuations += 1
        if len(self._block) > MAX_CONTROL or self._continuations > MAX_CONTINUATIONS:
            raise ProtocolError(ENHANCE_YOUR_CALM, "a header block without an end")
        if not flags & END_HEADERS:
            return None
        self._in_block = False
        return bytes(self._block)


def _piece(data: bytes, start: int, stop: int) -> bytes | memoryview:
    return memoryview(data)[start:stop] if stop - start > _VIEW else data[start:stop]


def _check_length(kind: int, flags: int, length: int) -> None:
    if length > MAX_CONTROL:
        raise ProtocolError(ENHANCE_YOUR_CALM, f"a frame of type {kind} of {length} bytes")
    if (
        _LENGTHS.get(kind, length) != length
        or (kind == SETTINGS and (length % 6 or (flags & ACK and length)))
        or (kind == GOAWAY and length < 8)
    ):
        raise ProtocolError(FRAME_SIZE_ERROR, f"a frame of type {kind} of {length} bytes")


def _without_padding(payload: bytes, flags: int) -> bytes:
    """The header block in a HEADERS frame, without padding and priority."""
    start, stop = 0, len(payload)
    if flags & PADDED:
        start = 1
        stop -= payload[0] if payload else 1
    if flags & WITH_PRIORITY:
        start += 5
    if start > stop:
        raise ProtocolError(PROTOCOL_ERROR, "more padding than frame")
    return payload[start:stop]
