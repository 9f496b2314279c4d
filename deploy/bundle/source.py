"""A bundle's source directory, made whole: models by `build.py` where they are missing, the handler's packages unpacked."""

import os
import subprocess
import sys
from pathlib import Path
from typing import IO

from adapter.bundle.manifest import BundleError, Manifest, parse, read
from deploy.bundle.vendor import vendor


def build(source: Path, say: IO[str] = sys.stderr) -> Manifest:
    """The manifest of `source`, its models made where they are missing, and its packages brought up to date.

    Raises:
        BundleError: the manifest is wrong, `build.py` failed or did not make what the manifest lists, or the packages
            that the handler needs cannot be had.
    """
    script = source / "build.py"
    manifest = parse(source / "bundle.toml")
    if script.is_file() and not all(
        (source / "models" / model.name / str(model.version) / "saved_model.pb").is_file() for model in manifest.models
    ):
        print(f"{source}: building the models (once)", file=say, flush=True)
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, str(script), str(source / "models")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BundleError(f"{script}: failed with status {done.returncode}\n{done.stderr[-2000:]}")
        print(done.stdout.rstrip(), file=say, flush=True)
    vendor(source, say)
    return read(source)
