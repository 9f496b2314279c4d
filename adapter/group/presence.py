"""A lock on `<allocation>/data/adapter.lock`, held as long as this process lives: TensorFlow Serving is still needed.

Nomad stops the leader first, but restarts all tasks of a group at the same time (client/allocrunner/alloc_runner.go,
`restartTasks`), and no setting of a task delays that. So the job starts TFS under a few lines of shell that, on SIGTERM,
wait for this lock and only then end TFS. The kernel releases it however this process ends.
"""

import fcntl
import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)


class Presence:
    """The lock in `data`, the allocation's data directory; held until `leave`, or the end of the process."""

    def __init__(self, data: Path) -> None:
        self._descriptor = -1
        try:
            self._descriptor = os.open(data / "adapter.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            log.warning("%s: cannot be held; a restart of the whole group may lose requests", error)

    def leave(self) -> None:
        """TensorFlow Serving is needed no more."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
