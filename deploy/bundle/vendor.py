"""The handler's own dependencies, resolved for the adapter's image and unpacked beside the handler.

    requirements.txt   what the author asks for
    vendor.lock        what that came to: versions and hashes, kept in the source so that the next pack takes the same
    vendor/            the wheels of the lock, unpacked; made anew when the lock changes

What the adapter's image has already is left to it, in the version that it has: two copies of numpy in one process help
nobody. Wheels alone are taken, so no code of a dependency runs at pack time, and their hashes are compared.
"""

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import IO

from adapter.bundle.manifest import BundleError

# What deploy/images makes: Debian 12's Python and C library.
PYTHON, PLATFORM = "3.11", "x86_64-manylinux_2_28"
IMAGE_LOCK = Path(__file__).resolve().parents[2] / "requirements" / "adapter.lock"

_PACKAGE = re.compile(r"^([A-Za-z0-9._-]+)==", re.MULTILINE)
_STAMP = ".vendor-made-from"
# Of installed packages: names of the machine and of its installer, which would differ from one pack to the next.
_LEFT_OUT = ("bin", "*.dist-info/RECORD", "*.dist-info/INSTALLER", "*.dist-info/REQUESTED", "*.dist-info/uv_*", ".lock")


def vendor(source: Path, say: IO[str] = sys.stderr) -> None:
    """Bring `vendor.lock` and `vendor/` of a source directory up to date with its `requirements.txt`, if it has one.

    Raises:
        BundleError: the requirements cannot be met.
    """
    wanted = source / "requirements.txt"
    if not wanted.is_file():
        return
    lock, made = source / "vendor.lock", source / "vendor"
    head = f"# From requirements.txt with sha256 {_sum(wanted)}, for Python {PYTHON} on {PLATFORM}.\n"
    if not lock.is_file() or not lock.read_text("utf-8").startswith(head):
        print(f"{source}: resolving requirements.txt", file=say, flush=True)
        lock.write_text(head + _resolved(wanted))
    stamp = source / _STAMP
    if not made.is_dir() or not stamp.is_file() or stamp.read_text("ascii") != _sum(lock):
        print(f"{source}: unpacking the wheels of vendor.lock", file=say, flush=True)
        _install(lock, made)
        stamp.write_text(_sum(lock))


def _resolved(wanted: Path) -> str:
    options = ["--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url", "--only-binary=:all:"]
    constraint = ["-c", str(IMAGE_LOCK)] if IMAGE_LOCK.is_file() else []
    text = _uv(wanted, "compile", *options, *constraint, str(wanted))
    image = set(_PACKAGE.findall(IMAGE_LOCK.read_text("utf-8"))) if constraint else set()
    blocks = re.split(r"^(?=\S)", text, flags=re.MULTILINE)
    return "".join(block for block in blocks if (found := _PACKAGE.match(block)) and found[1] not in image)


def _install(lock: Path, made: Path) -> None:
    unfinished = made.with_name(f".{made.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        if _PACKAGE.search(lock.read_text("utf-8")):
            options = [
                f"--target={unfinished}",
                "--no-deps",
                "--require-hashes",
                "--only-binary=:all:",
                "--link-mode=copy",
            ]
            _uv(lock, "install", *options, "-r", str(lock))
        for pattern in _LEFT_OUT:
            for path in unfinished.glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.rmtree(made, ignore_errors=True)
        unfinished.rename(made)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _uv(file: Path, verb: str, *arguments: str) -> str:
    command = [sys.executable, "-m", "uv", "pip", verb, "--quiet", f"--python-version={PYTHON}"]
    command += [f"--python-platform={PLATFORM}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BundleError(f"{file}: its packages cannot be had for the adapter's image\n{done.stderr.strip()[-2000:]}")
    return done.stdout


def _sum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
