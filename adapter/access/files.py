"""Files that the platform renders, read again when they change: by inotify, and by a look now and then where it is silent.

What is read must be valid before it is used: a file that is not leaves what was there before in force, and one log line
says what is wrong with it, in words that hold nothing of its content.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from adapter.telemetry.metrics import RENDERED_FILE_ERRORS, RENDERED_FILE_RELOADS

LOOK_MILLISECONDS = 2000  # also for what changed before the watch began
MAX_BYTES = 4 << 20

log = logging.getLogger(__name__)


class Unusable(Exception):
    """What a rendered file holds cannot be used; the message repeats nothing of a secret."""


@dataclass
class Rendered:
    """A file, and who takes its content: `take` raises Unusable or ValueError when it cannot."""

    path: Path
    take: Callable[[bytes], None]
    _seen: tuple[int, int, int] | None = field(default=None, init=False)

    def read(self) -> None:
        """Read it, whatever was read before. Raises Unusable."""
        self._seen = self._stamp()
        try:
            with self.path.open("rb") as file:
                content = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise Unusable(f"{self.path}: {error.strerror}") from None
        if len(content) > MAX_BYTES:
            raise Unusable(f"{self.path}: more than {MAX_BYTES} bytes")
        try:
            self.take(content)
        except Unusable as error:
            raise Unusable(f"{self.path}: {error}") from None

    def note(self) -> None:
        """What is there now has been read by who takes it."""
        self._seen = self._stamp()

    def refresh(self) -> None:
        """Read it if it is another than the one that was read last; say what is wrong with it, and keep the old."""
        if self._stamp() == self._seen:
            return
        try:
            self.read()
        except Unusable as error:
            RENDERED_FILE_ERRORS.inc()
            log.error("Not taken, what was before stays in force: %s", error)
            return
        RENDERED_FILE_RELOADS.inc()
        attributes = {"event.name": "tandem.reload", "file.path": str(self.path)}
        log.info("Taken anew: %s", self.path, extra={"attributes": attributes})

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino, status.st_size


async def follow(files: Iterable[Rendered]) -> None:
    """Refresh the files when something happens in their directories; for ever."""
    from watchfiles import awatch

    files = list(files)
    # The directories: a rendered file is replaced, not written into, and a watch on the file would hold the old one.
    directories = {str(file.path.parent) for file in files}
    while True:
        try:
            async for _ in awatch(
                *sorted(directories),
                step=20,
                debounce=200,
                rust_timeout=LOOK_MILLISECONDS,
                yield_on_timeout=True,
                watch_filter=None,
                recursive=False,
                debug=False,
            ):
                for file in files:
                    file.refresh()
        except OSError as error:  # a directory that went away, or no inotify left
            log.warning("Cannot be watched, looking now and then instead: %s", error)
            await asyncio.sleep(LOOK_MILLISECONDS / 1000)
            for file in files:
                file.refresh()
