"""One `bytes` of many pieces, put together a few at a time: so that nothing else waits while it is done.

`b"".join` of sixty megabytes takes thirty milliseconds, nearly all of them the kernel's, which clears each page when it is
first written to. Here the room is taken first, which is cheap, and filled in steps.
"""

import ctypes
from collections.abc import Generator, Iterator, Sequence

Piece = bytes | memoryview

# Bytes that are copied in one go, a piece counting as so many more: one to three milliseconds where memory is fresh.
STEP, EACH = 1 << 21, 1 << 8

_new = ctypes.pythonapi.PyBytes_FromStringAndSize
_new.restype = ctypes.py_object
_new.argtypes = [ctypes.c_void_p, ctypes.c_ssize_t]
_address = ctypes.pythonapi.PyBytes_AsString
_address.restype = ctypes.c_void_p
_address.argtypes = [ctypes.py_object]
_view = ctypes.pythonapi.PyMemoryView_FromMemory
_view.restype = ctypes.py_object
_view.argtypes = [ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int]
_WRITABLE = 0x200  # PyBUF_WRITE, from <cpython/pybuffer.h>


class Whole:
    """Bytes whose size is known before they are there. They are filled in order, and given out once they are full.

    Python's C API allows to write into a `bytes` that was made without contents, as long as nobody else has seen it
    ("Bytes Objects", `PyBytes_FromStringAndSize` and `PyBytes_AsString`): its own `join` is made that way.
    """

    __slots__ = ("_filled", "_room", "_whole", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self._filled = 0
        self._whole: bytes = _new(None, size)
        # A `bytes` of no length or one is Python's own, and shared: there is nothing to write to.
        self._room = _view(_address(self._whole), size, _WRITABLE) if size > 1 else memoryview(bytearray(size))

    def add(self, piece: Piece) -> None:
        """The next of them. Raises ValueError where there is no room for so many."""
        stop = self._filled + len(piece)
        if stop > self.size:
            raise ValueError(f"{stop} bytes where {self.size} were announced")
        self._room[self._filled : stop] = piece
        self._filled = stop

    def take(self) -> bytes:
        """All of them, once. Raises ValueError where some are missing."""
        if self._filled < self.size:
            raise ValueError(f"{self._filled} bytes where {self.size} were announced")
        whole = self._whole if self.size > 1 else bytes(self._room)
        self._room = memoryview(b"")
        self._whole = b""
        return whole


def joined(pieces: Sequence[Piece]) -> Generator[None, None, bytes]:
    """`b"".join(pieces)`; yields every millisecond or so where they are long. A memoryview is one of bytes."""
    size = sum(map(len, pieces))
    if size + EACH * len(pieces) <= STEP:
        return b"".join(pieces)
    whole = Whole(size)
    room = STEP
    for piece in pieces:
        view = memoryview(piece)
        while view:
            fitting = view[:room]
            whole.add(fitting)
            view = view[len(fitting) :]
            room -= len(fitting) + EACH
            if room <= 0:
                room = STEP
                yield
    return whole.take()


def part(data: bytes, start: int, end: int) -> Generator[None, None, bytes]:
    """`data[start:end]`; yields like `joined`."""
    return (yield from joined([memoryview(data)[start:end]]))


def separated(pieces: Sequence[Piece]) -> Iterator[Piece]:
    """The pieces with a comma between each two."""
    for position, piece in enumerate(pieces):
        if position:
            yield b","
        yield piece
