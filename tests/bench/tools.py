"""The Go programs that the benchmark needs, made into the cache once."""

import shutil
import subprocess
from pathlib import Path

from deploy.cluster.cache import cache, locked

ROOT = Path(__file__).resolve().parents[2]
GO = Path(__file__).parent / "go"


def go_programs() -> Path:
    """The directory of the built `stub` and `load`."""
    if shutil.which("go") is None:
        raise SystemExit("bench: Go is missing; the backend and the load are built from tests/bench/go")
    target = cache() / "bench" / "bin"
    target.mkdir(parents=True, exist_ok=True)
    with locked("bench.lock"):  # Go itself knows what is up to date
        subprocess.run(["go", "build", "-o", f"{target}/", "./..."], cwd=GO, check=True)
    return target
