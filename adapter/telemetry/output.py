"""Stdout, written by a thread of its own: whatever becomes of its reader, the event loop never waits for it.

    event loop ── put ──► chunks, bounded by whoever puts them in ──► thread ── write ──► pipe, terminal or file

The descriptor stays a blocking one: O_NONBLOCK would be everybody's who has the same pipe or terminal. A reader that
stands still holds up the thread alone. What cannot be written at all (no reader, a full disk) is lost and told to `lost`,
and the next chunk is tried all the same: a disk that was full may have room again.
"""

import threading
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from typing import BinaryIO, NamedTuple

# In one write: what is waiting is put together, since the thread and the event loop take turns at Python's lock.
_AT_ONCE = 1 << 18


class _Chunk(NamedTuple):
    data: bytes
    then: Callable[[], None] | None


class Output:
    """Whole lines to `file`, an unbuffered one; `lost(lines, error, first)` hears of those that could not be written.

    Written through until `start`, and again after `stop`, unless the thread still stands in a write then.
    """

    def __init__(self, file: BinaryIO, lost: Callable[[int, OSError, bool], None]) -> None:
        self.broken = False
        """The last write failed."""
        self._file = file
        self._lost = lost
        self._chunks: SimpleQueue[_Chunk | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        # Each is written by one thread alone, so that neither needs a lock.
        self._put = self._done = 0
        self._torn = False

    @property
    def waiting(self) -> int:
        """Bytes that are put in and not written yet."""
        return self._put - self._done

    def start(self) -> None:
        """Write by a thread from now on."""
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Wait, for so many seconds at most, until all is written; what is not is left behind."""
        if self._thread is None:
            return
        self._chunks.put(None)
        self._thread.join(seconds)
        if not self._thread.is_alive():
            self._thread = None

    def put(self, data: bytes, then: Callable[[], None] | None = None) -> None:
        """Have `data` written, and `then` called if it was, by the thread that wrote it."""
        self._put += len(data)
        if self._thread is None:
            self._write(data, (then,))
        else:
            self._chunks.put(_Chunk(data, then))

    def _run(self) -> None:
        while (chunk := self._chunks.get()) is not None:
            chunks, size = [chunk], len(chunk.data)
            while size < _AT_ONCE and not self._chunks.empty():
                if (chunk := self._chunks.get()) is None:
                    self._chunks.put(None)
                    break
                chunks.append(chunk)
                size += len(chunk.data)
            self._write(b"".join([chunk.data for chunk in chunks]), [chunk.then for chunk in chunks])

    def _write(self, data: bytes, then: Iterable[Callable[[], None] | None]) -> None:
        left = memoryview(data)
        try:
            if self._torn:  # the line that broke off takes no other with it
                self._file.write(b"\n")
                self._torn = False
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            done = len(data) - len(left)
            self._torn = self._torn or (done > 0 and data[done - 1 : done] != b"\n")
            first, self.broken = not self.broken, True
            self._lost(data.count(b"\n", done), error, first)
        else:
            self.broken = self.broken and not data
            for call in then:
                if call is not None and not self.broken:
                    call()
        self._done += len(data)
