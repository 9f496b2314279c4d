"""The note that this instance has been told to end for good, in `<allocation>/data/ended.json`.

Where it may not stop its own allocation, Nomad restarts a process that exits, within the same allocation. Then this
note makes the new one exit at once, until the job's restart attempts are used up (`mode = "fail"`): the allocation
fails, both tasks with it, and is replaced as one. It is read before anything else is imported.
"""

import json
import os
from pathlib import Path

NAME = "ended.json"


def note(data: Path, allocation: str, reason: str) -> None:
    """Leave the note. Raises OSError."""
    (data / NAME).write_text(json.dumps({"allocation": allocation, "reason": reason}), encoding="utf-8")


def reason() -> str | None:
    """Why this allocation has been ended; None if it has not."""
    directory = os.environ.get("NOMAD_ALLOC_DIR")
    if not directory:
        return None
    try:
        found = json.loads((Path(directory) / "data" / NAME).read_bytes())
        # An ephemeral disk may be handed on to the next allocation; the end of this one is not.
        return str(found["reason"]) if found["allocation"] == os.environ.get("NOMAD_ALLOC_ID") else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
