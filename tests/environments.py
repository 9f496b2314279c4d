"""Python environments beside the project's own, for programs whose dependencies do not go together with ours."""

import hashlib
import subprocess
import sys
import venv
from pathlib import Path

from deploy.cluster.cache import ROOT, cache, locked


def environment(name: str) -> Path:
    """The Python of the environment that `requirements/NAME.lock` describes, made into the cache once."""
    lock = ROOT / "requirements" / f"{name}.lock"
    home = cache() / "python" / name
    python, stamp = home / "bin" / "python", home / ".installed"
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
    with locked("python.lock"):
        if not stamp.exists() or stamp.read_text() != wanted:
            print(f"installing {lock.name} (once)", flush=True)
            venv.create(home, clear=True, symlinks=True)
            uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", str(python)]
            subprocess.run([*uv, "--require-hashes", "-r", str(lock)], check=True)
            stamp.write_text(wanted)
    return python
