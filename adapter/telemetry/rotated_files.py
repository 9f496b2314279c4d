"""Nomad's rotated log files, `<prefix>.N`, as one stream of bytes.

It writes the file of the highest N and removes the lowest (client/logmon/logging/rotator.go): together the files are one
stream, in which a line may run over the end of a file. It is read in order of N, without waiting for anything: whoever
reads looks again later. What was removed before it was read is counted (`lost`).
"""

import contextlib
import os
from collections import deque
from pathlib import Path
from typing import NamedTuple

# At most so much between two turns of the event loop: no request waits longer than it takes, some 5 ms.
CHUNK = 32_768
CHUNK_LINES = 256
# So many looks at a file that does not grow, and the directory is looked at: the next file may have been removed already.
LOOKS = 10


class Position(NamedTuple):
    """A place in a stream: file N, which inode that was, and the offset in it."""

    number: int
    inode: int
    offset: int


class Files:
    """`<prefix>.N` as one stream of bytes, from `start` on, or from the oldest file that is there."""

    def __init__(self, prefix: Path, start: Position | None = None) -> None:
        self._prefix = prefix
        self._descriptor = -1
        self._next = ""
        self._past: deque[Position] = deque()
        self._here = start or Position(-1, 0, 0)
        self._resumed = start is None
        self._idle = 0
        self.lost = 0
        """Files, so far, that were removed before they were read, wholly or in part."""

    @property
    def begun(self) -> bool:
        """There is, or was, a file to read."""
        return self._here.number >= 0

    def read(self) -> bytes:
        """The next bytes, of one file, at most `CHUNK` and `CHUNK_LINES`; empty if there are none now."""
        if self._descriptor < 0 and not (self._open_next() if self._resumed else self._resume()):
            return b""
        while True:
            # Looked for first: once the next file is there, nothing more is written to this one.
            stat = os.fstat(self._descriptor)
            over = stat.st_nlink == 0 or os.access(self._next, os.F_OK) or self._has_been_passed_by()
            if data := os.pread(self._descriptor, CHUNK, self._here.offset):
                self._idle = 0
                parts = data.split(b"\n", CHUNK_LINES)
                if len(parts) > CHUNK_LINES:
                    data = data[: len(data) - len(parts[-1])]
                self._here = self._here._replace(offset=self._here.offset + len(data))
                return data
            if stat.st_size < self._here.offset:  # emptied in place; Nomad never does
                self.lost += 1
                self._past.clear()
                self._here = self._here._replace(offset=0)
            elif not over or not self._open_next():
                return b""

    def place(self, back: int) -> tuple[int, int]:
        """File and offset of `position(back)`, which is asked for each record."""
        here = self._here
        if back <= here.offset:
            return here.number, here.offset - back
        before = self.position(back)
        return before.number, before.offset

    def position(self, back: int) -> Position:
        """Where the last `back` bytes read begin; what is before them is not asked for again."""
        if back <= self._here.offset:
            self._past.clear()
            return self._here if not back else self._here._replace(offset=self._here.offset - back)
        files = [*self._past, self._here]
        for number in range(len(files) - 1, -1, -1):
            place = files[number]
            if back <= place.offset:
                self._past = deque(files[number:-1])
                return place._replace(offset=place.offset - back)
            back -= place.offset
        return files[0]._replace(offset=0)

    def unread(self) -> int:
        """Bytes that wait in this file and the later ones."""
        total = os.fstat(self._descriptor).st_size - self._here.offset if self._descriptor >= 0 else 0
        for _, path in self._later():
            with contextlib.suppress(FileNotFoundError):
                total += Path(path).stat().st_size
        return total

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _resume(self) -> bool:
        """Open the file where an earlier adapter stopped, or what is left after it."""
        self._resumed = True
        start = self._here
        try:
            descriptor = os.open(self._path(start.number), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            if not self._later():  # nor is there any after it: it was never one of these
                self._here = Position(-1, 0, 0)
            return self._open_next()
        stat = os.fstat(descriptor)
        if stat.st_ino == start.inode and stat.st_size >= start.offset:
            self._descriptor = descriptor
            self._next = self._path(start.number + 1)
            return True
        os.close(descriptor)
        self._here = Position(-1, 0, 0)  # another allocation's files: all of them are new
        return self._open_next()

    def _has_been_passed_by(self) -> bool:
        self._idle += 1
        return self._idle % LOOKS == 0 and bool(self._later())

    def _open_next(self) -> bool:
        """Go on with the oldest file after this one; one after a gap means that those between are lost."""
        for number, path in self._later():
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            if self._here.number >= 0:
                lost = number - self._here.number - (1 if self._descriptor >= 0 else 0)
                self.lost += lost
                self._past = deque() if lost else deque([*self._past, self._here])
            self.close()
            self._descriptor = descriptor
            self._next = self._path(number + 1)
            self._here = Position(number, os.fstat(descriptor).st_ino, 0)
            return True
        return False

    def _later(self) -> list[tuple[int, str]]:
        name = self._prefix.name + "."
        try:
            found = [
                path.name.removeprefix(name) for path in self._prefix.parent.iterdir() if path.name.startswith(name)
            ]
        except FileNotFoundError:
            return []
        numbers = sorted(int(number) for number in found if number.isdecimal())
        return [(number, self._path(number)) for number in numbers if number > self._here.number]

    def _path(self, number: int) -> str:
        return f"{self._prefix}.{number}"


def later(prefix: Path, noted: Position | None, said: tuple[int, int]) -> Position | None:
    """The later of the two places, if the one that was `said` is in the files that are there now."""
    number, offset = said
    if noted is not None and (noted.number, noted.offset) >= said:
        return noted
    try:
        stat = Path(f"{prefix}.{number}").stat()
    except OSError:
        return noted
    return Position(number, stat.st_ino, offset) if stat.st_size >= offset else noted
