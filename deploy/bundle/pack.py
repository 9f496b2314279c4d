"""From a bundle's source directory to the file that ships: deterministic, streamed, named by its SHA-256.

Same input, same bytes, same sum: the order is that of the names, and nothing of the packing machine gets in, neither
owner nor time nor number of cores. The file takes its name when it is whole.

    bundle.toml               the manifest, provenance filled in
    models/NAME/VERSION/…     handler.py or handler/…     assets/…     the examples' files
    vendor.lock, vendor/…     the handler's packages
    tfs/…                     TensorFlow Serving's configuration, generated
"""

import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from adapter.bundle.manifest import BundleError, Manifest
from deploy.bundle import archive, tfs
from deploy.bundle.provenance import manifest_with_provenance
from deploy.bundle.source import build

# Where both tasks see the allocation's shared directory under Nomad's docker driver (NOMAD_ALLOC_DIR).
ALLOC = "/alloc"


@dataclass(frozen=True)
class Part:
    """A file that goes into the bundle: its name there, and its content, generated or read from a path."""

    name: str
    content: bytes | Path

    @property
    def size(self) -> int:
        """In bytes."""
        return self.content.stat().st_size if isinstance(self.content, Path) else len(self.content)


def pack(source: Path, target: Path, progress: Callable[[int], None] = lambda _: None) -> str:
    """Write the bundle of `source` to `target` (.tar.zst) and return its SHA-256 in hex. Raises BundleError."""
    return write(parts(source, build(source)), target, progress)


def write(contents: list[Part], target: Path, progress: Callable[[int], None]) -> str:
    """The bundle of these parts as a file, and its SHA-256 beside it as `sha256sum -c` reads it. Raises BundleError."""
    if not target.name.endswith(archive.SUFFIX):
        raise BundleError(f"{target}: a bundle's file is named …{archive.SUFFIX}")
    unfinished = target.with_name(f".{target.name}.part")
    try:
        with unfinished.open("wb") as file:
            hashed = _Hashed(file)
            with archive.Writer(hashed) as writer:
                for part in contents:
                    _add(writer, part, progress)
        unfinished.replace(target)
    except OSError as error:
        raise BundleError(f"{target}: {error}") from None
    finally:
        unfinished.unlink(missing_ok=True)
    checksum = hashed.digest()
    target.with_name(f"{target.name}.sha256").write_text(f"{checksum}  {target.name}\n")
    return checksum


def parts(source: Path, manifest: Manifest) -> list[Part]:
    """What the bundle of `source` holds, in order. Raises BundleError."""
    made = [Part(f"tfs/{name}", text.encode()) for name, text in tfs.files(manifest, f"{ALLOC}/bundle").items()]
    shipped = {path.relative_to(source).as_posix(): path for path in _files(source, manifest)}
    found = [*made, *(Part(name, path) for name, path in shipped.items())]
    return [Part("bundle.toml", manifest_with_provenance(source)), *sorted(found, key=lambda part: part.name)]


def _files(source: Path, manifest: Manifest) -> Iterator[Path]:
    """Everything that ships as it is: what the manifest names, `assets/`, and the handler's packages."""
    for model in manifest.models:
        yield from _below(source / "models" / model.name / str(model.version))
    if manifest.handler:
        handler = source / manifest.handler
        yield from _below(handler) if handler.is_dir() else [handler]
    for example in manifest.examples:
        yield from (source / name for name in (example.request, example.response) if name)
    yield from _below(source / "assets")
    if (source / "requirements.txt").is_file():
        yield source / "vendor.lock"
        yield from _below(source / "vendor", hidden=True)


def _below(top: Path, hidden: bool = False) -> Iterator[Path]:
    """All files below a directory, but what Python compiles and, unless asked for, what is hidden."""
    for path in top.rglob("*"):
        parts = path.relative_to(top).parts
        if path.is_file() and "__pycache__" not in parts and (hidden or not any(p.startswith(".") for p in parts)):
            yield path


def _add(writer: archive.Writer, part: Part, progress: Callable[[int], None]) -> None:
    if isinstance(part.content, bytes):
        writer.add(part.name, part.size, io.BytesIO(part.content))
        progress(part.size)
        return
    with part.content.open("rb") as file:
        writer.add(part.name, part.size, _Watched(file, progress))


class _Watched:
    """A file that tells how much of it was read."""

    def __init__(self, file: archive.Source, progress: Callable[[int], None]) -> None:
        self._file = file
        self._progress = progress

    def read(self, size: int) -> bytes:
        piece = self._file.read(size)
        self._progress(len(piece))
        return piece


class _Hashed:
    """A file that knows the SHA-256 of what was written to it."""

    def __init__(self, file: archive.Sink) -> None:
        self._file = file
        self._sum = hashlib.sha256()

    def write(self, piece: bytes) -> int:
        self._sum.update(piece)
        self._file.write(piece)
        return len(piece)

    def digest(self) -> str:
        return self._sum.hexdigest()
