"""The adapter's own log files, read back at its start: what had the process before it said when it was killed?

A record and the note that it was written cannot be one step, so a process that is killed between the two leaves it open
whether the record is out. The platform's copy of our stdout, `<allocation>/logs/<task>.stdout.N`, settles it: each of
TensorFlow Serving's records carries its place as `log.record.uid`, and the last one there is the last one said.
Where there are no such files (another platform, a terminal), the note alone counts.
"""

import os
import re
from pathlib import Path

# What is in doubt left the process in its very last write, which is not larger than its buffer (logs.MAX_BUFFER).
_TAIL = 4 << 20
# No text of anybody's can look like this: a quote inside a JSON string is escaped.
_UID = re.compile(rb'"log\.record\.uid":"tfs\.(stdout|stderr)\.(\d{1,18})/(\d{1,18})"')


def uid(stream: str, number: int, offset: int) -> str:
    """`log.record.uid` of the record that ends at `offset` of TensorFlow Serving's log file `tfs.<stream>.<number>`."""
    return f"tfs.{stream}.{number}/{offset}"


class OwnLog:
    """`<prefix>.N` as they are now; the process that made them has ended."""

    def __init__(self, prefix: Path) -> None:
        self._tail = _tail(prefix)

    @property
    def torn(self) -> bool:
        """The last line has no end: the process was killed while it was written."""
        return bool(self._tail) and not self._tail.endswith(b"\n")

    def said(self) -> dict[str, tuple[int, int]]:
        """For each stream of TensorFlow Serving's: file and offset up to which whole records were written."""
        whole = self._tail[: self._tail.rfind(b"\n") + 1]
        return {m[1].decode(): (int(m[2]), int(m[3])) for m in _UID.finditer(whole)}


def _tail(prefix: Path) -> bytes:
    """The end of the files of highest N, `_TAIL` bytes at most; empty if there are none or they can't be read."""
    name = prefix.name + "."
    tail = b""
    try:
        found = [path.name.removeprefix(name) for path in prefix.parent.iterdir() if path.name.startswith(name)]
        for number in sorted((int(n) for n in found if n.isdecimal()), reverse=True)[:2]:
            with Path(f"{prefix}.{number}").open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - (_TAIL - len(tail))))
                tail = file.read() + tail
            if len(tail) >= _TAIL:
                break
    except OSError:
        return b""
    return tail
