"""Follows TensorFlow Serving's log files, `<directory>/tfs.{stdout,stderr}.N`, into the common log, each line exactly once.

    rotated files ── bytes ──► follower ── records ──► log stream ── written ──► checkpoint
    rotated_files.py           follower.py, tfs_lines.py                         checkpoint.py

It looks ten times a second: two `fstat`, which any file system answers, where inotify would need a fallback anyway.

The files are the buffer: reading takes at most `Limits.share` of the event loop's time, and pauses while the reader of
our own log lags; the rest waits in them. Lost is only what lies more than `Limits.backlog` bytes behind or what rotation
has removed; it is counted, and said in the log (`log_losses.py`).
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from adapter.telemetry import tfs_lines
from adapter.telemetry.checkpoint import Checkpoint
from adapter.telemetry.follower import Follower
from adapter.telemetry.log_losses import LogLosses
from adapter.telemetry.logs import LogStream
from adapter.telemetry.metrics import TFS_LOG_LINES
from adapter.telemetry.own_log import uid
from adapter.telemetry.rotated_files import Files, later
from adapter.telemetry.tfs_lines import Record

STREAMS = ("stderr", "stdout")
INTERVAL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Limits:
    """The share of processor time that reading may take, more waits in the files; bytes that may wait until lines are dropped."""

    share: float = 0.5
    backlog: int = 64 << 20


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
        allocation: str = "",
    ) -> None:
        self._stream = stream
        self._failed = failed
        self._limits = limits or Limits()
        self._losses = LogLosses()
        self._checkpoint = Checkpoint(directory.parent / "data" / "tailer.json", allocation)
        self._saved = places = self._checkpoint.load()
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
                    self._losses.cannot_read(error)
                await asyncio.sleep(INTERVAL_SECONDS)
        finally:
            self.finish()

    def finish(self, seconds: float = 1.0) -> None:
        """Read what is there now, for `seconds` at most, and note the place."""
        end = time.monotonic() + seconds
        try:
            for name, follower in self._followers.items():
                while time.monotonic() < end and not self._stream.clogged and self._step(follower) >= 0:
                    self._commit()
                if left := follower.finish():
                    self._losses.leave(name, left)
        except OSError as error:
            self._losses.cannot_read(error)
        self._commit(last=True)
        for follower in self._followers.values():
            follower.files.close()
        self._stream.flush(self._checkpoint.close)

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
            self._losses.drop(lines)
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

    def _commit(self, *, last: bool = False) -> None:
        """Records out first, then the place: killed in between, the next adapter finds in the log that they are out."""
        self._losses.announce(sum([follower.files.lost for follower in self._followers.values()]), last=last)
        places = {name: f.position() for name, f in self._followers.items() if f.files.begun}
        if places == self._saved:
            return
        self._saved = places
        self._stream.flush(partial(self._checkpoint.note, places))
