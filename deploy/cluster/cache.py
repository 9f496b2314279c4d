"""Where built things are kept between runs: binaries, base systems, wheels and Docker's image store."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def cache() -> Path:
    """`$TANDEM_CACHE`, or `.cache/` in the checkout; a CI with fresh clones points it somewhere that stays."""
    path = Path(os.environ.get("TANDEM_CACHE") or ROOT / ".cache").resolve()
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the cache's lock `name`, so that two runs never build the same thing at once."""
    with (cache() / name).open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
