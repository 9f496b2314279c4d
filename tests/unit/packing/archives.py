"""Archives for tests: as `tandem pack` writes them, and as nobody should."""

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import zstandard

from deploy.bundle import archive

MANIFEST = 'name = "m"\nversion = "1"\n[[models]]\nname = "a"\nversion = 1\n[[models]]\nname = "b"\nversion = 20\n'


def source_at(top: Path) -> Path:
    """A source directory with two models that are none."""
    for model in ("a/1", "b/20"):
        (top / "models" / model / "variables").mkdir(parents=True)
        (top / "models" / model / "saved_model.pb").write_bytes(model.encode())
        (top / "models" / model / "variables" / "x").write_bytes(b"x" * 1000)
    (top / "bundle.toml").write_text(MANIFEST)
    return top


def written(files: Iterable[tuple[str, bytes]]) -> bytes:
    """These files as `Writer` writes them."""
    out = io.BytesIO()
    with archive.Writer(out) as writer:
        for name, content in files:
            writer.add(name, len(content), io.BytesIO(content))
    return out.getvalue()


def tar(*entries: tarfile.TarInfo, kind: int = tarfile.PAX_FORMAT) -> bytes:
    """Any entries (their content: zeros) as an uncompressed tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as file:
        for entry in entries:
            file.addfile(entry, io.BytesIO(bytes(entry.size)))
    return out.getvalue()


def entry(name: str, size: int = 0, **fields: object) -> tarfile.TarInfo:
    """A regular file's entry, but for `fields`."""
    made = tarfile.TarInfo(name)
    made.size, made.mode = size, archive.MODE
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def compressed(content: bytes) -> bytes:
    """As a zstd file of one frame."""
    return zstandard.ZstdCompressor().compress(content)
