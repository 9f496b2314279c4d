"""What the benchmark needs beyond the project's own environment, made into the cache once: the Go programs, and an
environment for each Python peer from its locked requirements (`requirements/bench-*.lock`).
"""

import hashlib
import shutil
import subprocess
import sys
import venv
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


def environment(name: str) -> Path:
    """The Python of the environment that `requirements/bench-NAME.lock` describes."""
    lock = ROOT / "requirements" / f"bench-{name}.lock"
    home = cache() / "bench" / name
    python, stamp = home / "bin" / "python", home / ".installed"
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
    with locked("bench.lock"):
        if not stamp.exists() or stamp.read_text() != wanted:
            print(f"installing {lock.name} (once)", flush=True)
            venv.create(home, clear=True, symlinks=True)
            uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", str(python)]
            subprocess.run([*uv, "--require-hashes", "-r", str(lock)], check=True)
            stamp.write_text(wanted)
    return python
