"""Follows TensorFlow Serving's log files, `<directory>/tfs.{stdout,stderr}.N`, into the common log.

Nomad writes the file of the highest N and removes the lowest (client/logmon/logging/rotator.go): together the files are
one stream of bytes, in which a line may run over the end of a file. It is read in order of N by looking ten times a
second: two `fstat`, which any file system answers, where inotify would need a fallback anyway.

Exactly once: records are written out, then the place up to which they were is noted in `<allocation>/data/tailer.json`
(`alloc/logs` is read-only in Nomad since 1.11.5), after each piece. An adapter that is killed in the microseconds
between is told by the log itself, in which each record has its place (`own_log.py`), so that it goes on where it stopped.

The files are the buffer: reading takes at most `Limits.share` of the event loop's time, and pauses while the reader of
our own log lags; the rest waits in them. Lost is only what lies more than `Limits.backlog` bytes behind or what rotation
has removed; it is counted, and said in the log.
"""

import asyncio
import contextlib
import json
import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from adapter.telemetry import tfs_lines
from adapter.telemetry.logs import LogStream
from adapter.telemetry.metrics import TFS_LOG_FILES_LOST, TFS_LOG_LINES, TFS_LOG_LINES_DROPPED
from adapter.telemetry.own_log import uid
from adapter.telemetry.tfs_lines import MAX_BODY, Joiner, Record

STREAMS = ("stderr", "stdout")
INTERVAL_SECONDS = 0.1
# At most so much between two turns of the event loop: no request waits longer than it takes, some 5 ms.
CHUNK = 32_768
CHUNK_LINES = 256
MAX_LINE = MAX_BODY
ANNOUNCE_SECONDS = 1.0
_CHECKPOINT_BYTES = 512

log = logging.getLogger(__name__)


class Position(NamedTuple):
    """A place in a stream: file N, which inode that was, and the offset in it."""

    number: int
    inode: int
    offset: int


@dataclass(frozen=True, slots=True)
class Limits:
    """The share of processor time that reading may take, more waits in the files; bytes that may wait until lines are dropped."""

    share: float = 0.5
    backlog: int = 64 << 20


class Files:
    """`<prefix>.N` as one stream of bytes, from `start` on, or from the oldest file that is there."""

    def __init__(self, prefix: Path, start: Position | None = None) -> None:
        self._prefix = prefix
        self._descriptor = -1
        self._next = ""
        self._past: deque[Position] = deque()
        self._here = start or Position(-1, 0, 0)
        self._resumed = start is None
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
            over = stat.st_nlink == 0 or os.access(self._next, os.F_OK)
            if data := os.pread(self._descriptor, CHUNK, self._here.offset):
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
            return self._open_next()
        stat = os.fstat(descriptor)
        if stat.st_ino == start.inode and stat.st_size >= start.offset:
            self._descriptor = descriptor
            self._next = self._path(start.number + 1)
            return True
        os.close(descriptor)
        self._here = Position(-1, 0, 0)  # another allocation's files: all of them are new
        return self._open_next()

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


class Follower:
    """One stream: bytes → lines, at most `MAX_LINE` long, → records."""

    def __init__(self, files: Files, emit: Callable[[Record], None], *, plain: bool) -> None:
        self.files = files
        self._joiner = Joiner(emit, plain=plain)
        self._partial = b""
        self._partial_size = 0
        self._read = 0
        self._moved = False

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
        if not self._moved:
            self._joiner.flush()
        self._moved = False

    def finish(self) -> None:
        """No more is read: emit the last message. A line without an end stays unread."""
        self._joiner.flush()

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


class Tailer:
    """Both streams of the task `tfs` in `directory` into `stream`; `failed(model, text)` hears of failed loads.

    `said` is what the adapter's own log proves: for each stream the file and offset up to which records are in it.
    """

    def __init__(
        self,
        directory: Path,
        stream: LogStream,
        failed: Callable[[str, str], None] | None = None,
        limits: Limits | None = None,
        said: Mapping[str, tuple[int, int]] | None = None,
    ) -> None:
        self._stream = stream
        self._failed = failed
        self._limits = limits or Limits()
        self._checkpoint = directory.parent / "data" / "tailer.json"
        self._descriptor = -1
        self._unsaveable = False
        self._announced = -math.inf
        self._complained = -math.inf
        self._dropped = 0
        self._lost = 0
        self._saved = places = self._load()
        for name, place in (said or {}).items():
            if (resumed := later(directory / f"tfs.{name}", places.get(name), place)) is not None:
                places[name] = resumed
        self._followers: dict[str, Follower] = {}
        for name in STREAMS:
            files = Files(directory / f"tfs.{name}", places.get(name))
            self._followers[name] = Follower(files, self._sink(name), plain=name == "stdout")

    async def run(self) -> None:
        """Follow until cancelled."""
        try:
            while True:
                try:
                    while await self._turn():
                        pass
                except OSError as error:
                    self._announce_error(error)
                await asyncio.sleep(INTERVAL_SECONDS)
        finally:
            self.finish()

    def finish(self, seconds: float = 1.0) -> None:
        """Read what is there now, for `seconds` at most, and note the place."""
        end = time.monotonic() + seconds
        try:
            for follower in self._followers.values():
                while time.monotonic() < end and not self._stream.clogged and self._step(follower) >= 0:
                    self._commit()
                follower.finish()
        except OSError as error:
            self._announce_error(error)
        self._announced = -math.inf
        self._commit()
        for follower in self._followers.values():
            follower.files.close()
        self._stream.flush(self._close)

    async def _turn(self) -> bool:
        """One piece of each stream, in the time allowed; whether there may be more. Nothing while our own reader lags."""
        more = False
        for follower in self._followers.values():
            if self._stream.clogged:
                return False
            began = time.thread_time()
            if self._step(follower) < 0:
                follower.settle()
                continue
            more = True
            self._commit()
            await asyncio.sleep((time.thread_time() - began) * (1 / self._limits.share - 1))
        self._commit()
        return more

    def _step(self, follower: Follower) -> int:
        drop = follower.behind and follower.files.unread() > self._limits.backlog
        lines = follower.step(drop=drop)
        if lines > 0:
            TFS_LOG_LINES.inc(lines)
        if drop and lines > 0:
            TFS_LOG_LINES_DROPPED.inc(lines)
            self._dropped += lines
            return 0
        return lines

    def _sink(self, name: str) -> Callable[[Record], None]:
        def emit(record: Record) -> None:
            record.attributes["tandem.task"] = "tfs"
            record.attributes["log.iostream"] = name
            record.attributes["log.record.uid"] = uid(name, *self._followers[name].place())
            self._stream.write(record.severity, record.body, record.attributes, record.nanoseconds, hold=True)
            if self._failed is not None and (model := tfs_lines.failure(record)) is not None:
                self._failed(model, record.body)

        return emit

    def _commit(self) -> None:
        """Records out first, then the place: killed in between, the next adapter finds in the log that they are out."""
        self._announce()
        places = {name: f.position() for name, f in self._followers.items() if f.files.begun}
        if places == self._saved:
            return
        self._saved = places
        data = json.dumps({name: place._asdict() for name, place in places.items()}).encode()
        self._stream.flush(partial(self._note, data))

    def _note(self, data: bytes) -> None:
        """The records are out; called by the thread that wrote them."""
        try:
            if self._descriptor < 0:
                self._descriptor = os.open(self._checkpoint, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            # In place, in one write of one length: no other process reads it, and a rename would cost a disk's flush.
            os.pwrite(self._descriptor, data.ljust(_CHECKPOINT_BYTES), 0)
        except OSError as error:
            if not self._unsaveable:
                self._unsaveable = True
                log.warning("Cannot note how far TensorFlow Serving's log is read; a restart repeats it: %s", error)

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _load(self) -> dict[str, Position]:
        try:
            found = json.loads(self._checkpoint.read_bytes())
            return {name: Position(**{key: int(value) for key, value in found[name].items()}) for name in found}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            log.warning(
                "%s is of no use, TensorFlow Serving's log is read from its beginning: %s", self._checkpoint, error
            )
            return {}

    def _announce(self) -> None:
        """What was lost, at most once a second."""
        lost = sum(follower.files.lost for follower in self._followers.values())
        if (not self._dropped and lost == self._lost) or time.monotonic() - self._announced < ANNOUNCE_SECONDS:
            return
        files, lines = lost - self._lost, self._dropped
        self._announced, self._dropped, self._lost = time.monotonic(), 0, lost
        TFS_LOG_FILES_LOST.inc(files)
        attributes = {
            "event.name": "tandem.tfs_log.lost",
            "tandem.tfs_log.lines_dropped": lines,
            "tandem.tfs_log.files_lost": files,
        }
        text = "Lost of TensorFlow Serving's log: %d lines dropped, %d files removed or emptied before they were read"
        log.warning(text, lines, files, extra={"attributes": attributes})

    def _announce_error(self, error: OSError) -> None:
        if time.monotonic() - self._complained >= 60 * ANNOUNCE_SECONDS:
            self._complained = time.monotonic()
            log.warning("Cannot read TensorFlow Serving's log: %s", error)
