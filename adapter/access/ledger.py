"""Append-only files in which each line holds the hash of the one before: what is changed, moved or removed shows.

    DIRECTORY/NAME.00000001.jsonl, …2, …3   segments; each begins with a line that tells the oldest one kept
    DIRECTORY/NAME.head.json                sequence and hash of the last line written

    {"seq": 7, "prev": "<hash of line 6>", "at": "…", "event": {…}, "hash": "<SHA-256 of all before this member>"}

Whoever can write here can write a whole new chain: so the log stream is told the head from time to time
(`tandem.audit.head`), and `tandem audit verify --head` holds the files to what was told then. Not thread-safe, and it
blocks: `audit.py` keeps it in a thread. What cannot be written leaves no trace of itself in the files but the count of what
was lost, in the next line that can.
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

GENESIS = "0" * 64
SEGMENT = re.compile(r"(?P<name>[a-z]+)\.(?P<number>\d{8})\.jsonl")


def sealed(seq: int, prev: str, at: str, event: object) -> tuple[bytes, str]:
    """One line, and its hash."""
    line = orjson.dumps({"seq": seq, "prev": prev, "at": at, "event": event}, default=str)[:-1]
    digest = hashlib.sha256(line).hexdigest()
    return b'%b,"hash":"%b"}\n' % (line, digest.encode()), digest


def segments(directory: Path, name: str) -> dict[int, Path]:
    """The segments of the ledger `name`, by number, oldest first."""
    found = {
        int(match["number"]): path
        for path in directory.glob(f"{name}.*.jsonl")
        if (match := SEGMENT.fullmatch(path.name)) and match["name"] == name
    }
    return dict(sorted(found.items()))


class Ledger:
    """The ledger `name` in `directory`: at most `files` segments of about `size` bytes. `about` stands in each one's first line.

    It goes on where an earlier process ended, in a segment of its own. Opened by the first `append`.
    """

    def __init__(self, directory: Path, name: str, size: int, files: int, about: dict[str, Any]) -> None:
        self._directory = directory
        self._name = name
        self._size = size
        self._files = files
        self._about = about
        self._file = -1
        self._number = 0
        self._written = 0
        self.seq = 0
        self.hash = GENESIS

    def append(self, events: Sequence[tuple[str, object]], lost: int = 0) -> None:
        """Write (time, event) pairs; `lost` were not written since the last time.

        Raises:
            OSError: nothing of it was written.
        """
        if self._file < 0:
            self._open()
        elif self._written >= self._size:
            self._next_segment()
        lines, seq, digest = [], self.seq, self.hash
        for number, (at, event) in enumerate(events):
            told = {**event, "lost_before": lost} if lost and number == 0 and isinstance(event, dict) else event
            line, digest = sealed(seq + 1, digest, at, told)
            lines.append(line)
            seq += 1
        self._write(b"".join(lines))
        self.seq, self.hash = seq, digest
        self._tell_head()

    def close(self) -> None:
        """The file, not the chain: the next `append` opens another."""
        if self._file >= 0:
            with contextlib.suppress(OSError):
                os.close(self._file)
            self._file = -1

    def _open(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = segments(self._directory, self._name)
        if found and not self.seq:
            self.seq, self.hash = _end_of(found)
        self._number = max(found, default=0)
        self._next_segment()

    def _next_segment(self) -> None:
        kept = [*segments(self._directory, self._name), self._number + 1][-self._files :]
        path = self._path(self._number + 1)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        before, self._file = self._file, descriptor
        written, self._written = self._written, 0
        event = {"event.name": "tandem.audit.segment", "segment": self._number + 1, "oldest": kept[0], **self._about}
        line, digest = sealed(self.seq + 1, self.hash, "", event)
        try:
            self._write(line)
        except OSError:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            self._file, self._written = before, written
            raise
        if before >= 0:
            os.close(before)
        self.seq, self.hash, self._number = self.seq + 1, digest, self._number + 1
        for number, old in segments(self._directory, self._name).items():
            if number < kept[0]:
                old.unlink(missing_ok=True)

    def _write(self, data: bytes) -> None:
        """All of it or nothing: half a line would end the chain."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._file, view) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._written)
            raise
        self._written += len(data)

    def _tell_head(self) -> None:
        target = self._directory / f"{self._name}.head.json"
        beside = target.with_suffix(".new")
        with contextlib.suppress(
            OSError
        ):  # the lines are there; a head that is behind says less, never something wrong
            beside.write_bytes(orjson.dumps({"seq": self.seq, "hash": self.hash, "segment": self._number}))
            beside.replace(target)

    def _path(self, number: int) -> Path:
        return self._directory / f"{self._name}.{number:08d}.jsonl"


def _end_of(found: dict[int, Path]) -> tuple[int, str]:
    """Sequence and hash of the last whole line. A line that a crash cut off is no line."""
    for path in reversed(found.values()):
        for line in reversed(path.read_bytes().splitlines(keepends=True)):
            with contextlib.suppress(orjson.JSONDecodeError, KeyError, TypeError):
                entry = orjson.loads(line)
                if line.endswith(b"\n"):
                    return int(entry["seq"]), str(entry["hash"])
    return 0, GENESIS
