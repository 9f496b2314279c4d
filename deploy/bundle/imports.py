"""Is a handler importable where it will run? Tried in a process of its own, which may crash, hang or print.

The adapter's image holds less than the environment that packs. So whatever is installed here and neither in the image nor
in `vendor/` is hidden from the handler: it fails at pack time, not on Nomad.
"""

import importlib.abc
import importlib.machinery
import importlib.metadata
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from adapter.bundle.manifest import BundleError, Manifest
from deploy.bundle.vendor import IMAGE_LOCK

TIMEOUT = 30.0
_FAILED = "handler: "


def check(source: Path, manifest: Manifest, timeout: float = TIMEOUT) -> None:
    """Import the handler of the bundle at `source`.

    Raises:
        BundleError: why it cannot be imported, in one sentence; or it takes longer than `timeout` seconds.
    """
    if not manifest.handler:
        return
    command = [sys.executable, "-m", "deploy.bundle.imports", str(source.resolve()), manifest.handler]
    environment = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TZ")}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise BundleError(f"{source / manifest.handler} is not imported after {timeout:g} s: it hangs") from None
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        told = next((line.removeprefix(_FAILED) for line in said if line.startswith(_FAILED)), None)
        raise BundleError(told or f"{source / manifest.handler}: its import ended with status {done.returncode}")


def main(arguments: Sequence[str]) -> int:
    """In the process of its own."""
    directory, handler = Path(arguments[0]), arguments[1]
    finders = sys.meta_path
    finders[finders.index(importlib.machinery.PathFinder)] = _Image(directory / "vendor")
    from adapter.bundle.loading import HandlerError, load

    try:
        load(directory, handler)
    except HandlerError as error:
        hint = (
            ": neither the adapter's image nor requirements.txt has it" if "ModuleNotFoundError" in str(error) else ""
        )
        print(f"{_FAILED}{directory.name}/{error}{hint}", file=sys.stderr)
        return 1
    return 0


class _Image(importlib.abc.MetaPathFinder):
    """In the place of the usual finder: what the image lacks is found in `vendor` and nowhere else."""

    def __init__(self, vendor: Path) -> None:
        self._vendor = str(vendor)
        image = {
            _canonical(name)
            for name in re.findall(r"^([A-Za-z0-9._-]+)==", IMAGE_LOCK.read_text("utf-8"), re.MULTILINE)
        }
        image.add("tandem-serving")
        self._missing = {
            module
            for module, owners in importlib.metadata.packages_distributions().items()
            if not {_canonical(owner) for owner in owners} & image
        }

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        where = [self._vendor] if path is None and fullname in self._missing else path
        return importlib.machinery.PathFinder.find_spec(fullname, where, target)


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
