"""What could not be read of TensorFlow Serving's log: counted, and said in the log, at most once a second."""

import logging
import math
import time

from adapter.telemetry.metrics import TFS_LOG_FILES_LOST, TFS_LOG_LINES_DROPPED

ANNOUNCE_SECONDS = 1.0

log = logging.getLogger(__name__)


class LogLosses:
    """Lines that were dropped, files that were lost, and reading that fails."""

    def __init__(self) -> None:
        self._lines = 0
        self._files_said = 0
        self._announced = -math.inf
        self._complained = -math.inf

    def drop(self, lines: int) -> None:
        """So many lines were read and not said."""
        TFS_LOG_LINES_DROPPED.inc(lines)
        self._lines += lines

    def announce(self, files_lost: int, *, last: bool = False) -> None:
        """Say what was lost since the last time; `files_lost` are all that ever were. The `last` time at once."""
        files, lines = files_lost - self._files_said, self._lines
        if (not lines and not files) or (time.monotonic() - self._announced < ANNOUNCE_SECONDS and not last):
            return
        self._announced, self._lines, self._files_said = time.monotonic(), 0, files_lost
        TFS_LOG_FILES_LOST.inc(files)
        attributes = {
            "event.name": "tandem.tfs_log.lost",
            "tandem.tfs_log.lines_dropped": lines,
            "tandem.tfs_log.files_lost": files,
        }
        text = "Lost of TensorFlow Serving's log: %d lines dropped, %d files removed or emptied before they were read"
        log.warning(text, lines, files, extra={"attributes": attributes})

    def leave(self, stream: str, size: int) -> None:
        """The end of the log as it is now is the beginning of a line."""
        attributes = {
            "event.name": "tandem.tfs_log.unfinished",
            "log.iostream": stream,
            "tandem.tfs_log.bytes_left": size,
        }
        text = "TensorFlow Serving's %s breaks off within a line; its %d bytes are left to the next adapter"
        log.warning(text, stream, size, extra={"attributes": attributes})

    def cannot_read(self, error: OSError) -> None:
        """Reading fails, and will be tried again."""
        if time.monotonic() - self._complained >= 60 * ANNOUNCE_SECONDS:
            self._complained = time.monotonic()
            log.warning("Cannot read TensorFlow Serving's log: %s", error)
