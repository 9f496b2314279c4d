"""From a bundle's source directory to the file that ships: built where needed, deterministic, named by its SHA-256.

Nomad's `artifact` block unpacks `.tar.gz` and checks the sum (go-getter); same input, same bytes, same sum.
"""

import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import IO

from adapter.bundle.manifest import BundleError, Manifest, Model, parse, read

# Where both tasks see the allocation's shared directory under Nomad's docker driver (NOMAD_ALLOC_DIR).
ALLOC = "/alloc"


def build(source: Path, say: IO[str] = sys.stderr) -> Manifest:
    """The manifest of `source`, its models made by its `build.py` where they are missing.

    Raises:
        BundleError: the manifest is wrong, or `build.py` failed or did not make what the manifest lists.
    """
    script = source / "build.py"
    manifest = parse(source / "bundle.toml")
    if script.is_file() and not all(_saved_model(source, model).is_file() for model in manifest.models):
        print(f"{source}: building the models (once)", file=say, flush=True)
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, str(script), str(source / "models")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BundleError(f"{script}: failed with status {done.returncode}\n{done.stderr[-2000:]}")
        print(done.stdout.rstrip(), file=say, flush=True)
    return read(source)


def models_config(manifest: Manifest, bundle: str) -> str:
    """TensorFlow Serving's `--model_config_file` for a bundle unpacked at the absolute path `bundle`."""
    blocks = [
        f"  config {{\n"
        f'    name: "{model.name}"\n'
        f'    base_path: "{bundle}/models/{model.name}"\n'
        f'    model_platform: "tensorflow"\n'
        f"    model_version_policy {{ specific {{ versions: {model.version} }} }}\n"
        f"  }}\n"
        for model in manifest.models
    ]
    return "model_config_list {\n" + "".join(blocks) + "}\n"


def pack(source: Path, target: Path) -> str:
    """Write the bundle of `source` to `target` (.tar.gz) and return its SHA-256 in hex. Raises BundleError."""
    manifest = build(source)
    with (
        target.open("wb") as file,
        gzip.GzipFile("", "wb", 6, file, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        _add(archive, "bundle.toml", (source / "bundle.toml").read_bytes())
        _add(archive, "tfs/models.config", models_config(manifest, f"{ALLOC}/bundle").encode())
        for model in sorted(manifest.models, key=lambda model: model.name):
            top = _saved_model(source, model).parent
            for path in sorted(path for path in top.rglob("*") if path.is_file()):
                _add_file(archive, path.relative_to(source).as_posix(), path)
    with target.open("rb") as packed:
        return hashlib.file_digest(packed, "sha256").hexdigest()


def _saved_model(source: Path, model: Model) -> Path:
    return source / "models" / model.name / str(model.version) / "saved_model.pb"


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    archive.addfile(_entry(name, len(content)), io.BytesIO(content))


def _add_file(archive: tarfile.TarFile, name: str, path: Path) -> None:
    with path.open("rb") as file:
        archive.addfile(_entry(name, path.stat().st_size), file)


def _entry(name: str, size: int) -> tarfile.TarInfo:
    """Nothing of the packing machine: no owner, no time, one mode."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    return entry
