"""One stream of TensorFlow Serving's log: bytes as they come → lines of bounded length → records, each with its place.

What is read and not yet emitted, a line without its end or a message that may go on, counts as not read: `position` is
the place after the last record that is out.
"""

from collections.abc import Callable

from adapter.telemetry.rotated_files import Files, Position
from adapter.telemetry.tfs_lines import MAX_BODY, Joiner, Record

MAX_LINE = MAX_BODY
# Intervals without a byte after which a line that has no end is taken for one: the last words of a process that died.
PATIENCE = 5


class Follower:
    """One stream: bytes → lines, at most `MAX_LINE` long, → records."""

    def __init__(self, files: Files, emit: Callable[[Record], None], *, plain: bool) -> None:
        self.files = files
        self._joiner = Joiner(emit, plain=plain)
        self._partial = b""
        self._partial_size = 0
        self._read = 0
        self._moved = False
        self._quiet = 0

    def place(self) -> tuple[int, int]:
        """Asked while a record is emitted: the file and the offset in it where the record ends."""
        return self.files.place(self._read - self._joiner.fed)

    @property
    def behind(self) -> bool:
        """The last step read something: there may be more."""
        return self._moved

    def step(self, *, drop: bool = False) -> int:
        """Read one piece; how many lines that was, -1 if there was nothing. With `drop` they are counted alone."""
        lost = self.files.lost
        data = self.files.read()
        self._read += len(data)
        if self.files.lost != lost:
            self._break()
        if not data:
            return -1
        self._moved = True
        return self._count(data) if drop else self._feed(data)

    def settle(self) -> None:
        """Call it when there was nothing: after a whole interval without a byte, no line belongs to the last message."""
        self._quiet = 0 if self._moved else self._quiet + 1
        if self._quiet:
            self._joiner.flush()
        if self._quiet == PATIENCE:
            self._break()
        self._moved = False

    def finish(self) -> int:
        """No more is read: emit the last message. A line without an end stays unread; its bytes."""
        self._joiner.flush()
        return self._partial_size

    def position(self) -> Position:
        """Up to where records were emitted."""
        return self.files.position(self._joiner.pending_bytes + self._partial_size)

    def _break(self) -> None:
        """What comes next does not follow what was read before."""
        if self._partial:
            self._joiner.feed(self._partial[:MAX_LINE].decode("utf-8", "replace"), self._partial_size, truncated=True)
        else:
            self._joiner.skip(self._partial_size)
        self._joiner.flush()
        self._partial, self._partial_size = b"", 0

    def _feed(self, data: bytes) -> int:
        first, newline, rest = data.partition(b"\n")
        self._partial_size += len(first) + len(newline)
        if len(self._partial) <= MAX_LINE:
            self._partial += first[: MAX_LINE + 1 - len(self._partial)]
        if not newline:
            return 0
        self._line(self._partial, self._partial_size)
        *lines, last = rest.split(b"\n")
        for line in lines:
            self._line(line, len(line) + 1)
        self._partial, self._partial_size = last[: MAX_LINE + 1], len(last)
        return len(lines) + 1

    def _line(self, line: bytes, size: int) -> None:
        text = line[:MAX_LINE].decode("utf-8", "replace").removesuffix("\r")
        self._joiner.feed(text, size, truncated=len(line) > MAX_LINE)

    def _count(self, data: bytes) -> int:
        self._joiner.flush()
        lines = data.count(b"\n")
        if lines:
            end = data.rfind(b"\n") + 1
            self._joiner.skip(self._partial_size + end)
            self._partial, self._partial_size = data[end:][: MAX_LINE + 1], len(data) - end
        else:
            self._partial_size += len(data)
        return lines
