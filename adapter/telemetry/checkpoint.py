"""How far TensorFlow Serving's log is said, noted in `<allocation>/data/tailer.json` for the next adapter.

(`alloc/logs` is read-only in Nomad since 1.11.5.) The note is made by the thread that wrote the records, right after them: an
adapter that is killed in the microseconds between is told by the log itself what is out (`own_log.py`).
"""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from adapter.telemetry.rotated_files import Position

_BYTES = 512

log = logging.getLogger(__name__)


class Checkpoint:
    """The places of the streams in `file`, by the streams' names.

    They are of `allocation` ("": unknown): a disk that goes from one to the next has the note with it, but not the log.
    """

    def __init__(self, file: Path, allocation: str = "") -> None:
        self._file = file
        self._allocation = allocation
        self._descriptor = -1
        self._unsaveable = False

    def load(self) -> dict[str, Position]:
        """What an adapter before this one noted; of what is no note, the log says that it is of no use."""
        try:
            found = json.loads(self._file.read_bytes())
            if found.pop("allocation", self._allocation) != self._allocation:
                return {}
            return {name: Position(**{key: int(value) for key, value in found[name].items()}) for name in found}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            log.warning("%s is of no use, TensorFlow Serving's log is read from its beginning: %s", self._file, error)
            return {}

    def note(self, places: Mapping[str, Position]) -> None:
        """Up to here the records are out."""
        noted: dict[str, object] = {name: place._asdict() for name, place in places.items()}
        if self._allocation:
            noted["allocation"] = self._allocation
        data = json.dumps(noted).encode()
        try:
            if self._descriptor < 0:
                self._descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            # In place, in one write of one length: no other process reads it, and a rename would cost a disk's flush.
            os.pwrite(self._descriptor, data.ljust(_BYTES), 0)
        except OSError as error:
            if not self._unsaveable:
                self._unsaveable = True
                log.warning("Cannot note how far TensorFlow Serving's log is read; a restart repeats it: %s", error)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
