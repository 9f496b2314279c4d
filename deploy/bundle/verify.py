"""Is this file the bundle that it should be? Its checksum first, then its signature, and only then what is in it.

Nothing is parsed before the checksum (and, where a key is given, the signature) says that it is the file that was
packed; nothing is unpacked but `bundle.toml` and the models' descriptions, into a directory that goes away.
"""

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from adapter.bundle.manifest import BundleError, Manifest, parse
from deploy.bundle import archive, minisign, savedmodel
from deploy.bundle.savedmodel import SavedModel

CHECKSUM = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
DESCRIPTION = re.compile(r"bundle\.toml|vendor\.lock|models/[^/]+/\d+/saved_model\.pb")

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Sums:
    """Of a whole file."""

    size: int
    sha256: str
    blake2b: bytes


@dataclass(frozen=True)
class Contents:
    """What a bundle holds: `files` with their sizes, and what the models say of themselves."""

    manifest: Manifest
    files: dict[str, int]
    models: dict[str, SavedModel]
    vendored: tuple[str, ...]


@dataclass(frozen=True)
class Verified:
    """A bundle that is what it should be. `comment` is the signature's, "" where no key was given."""

    sums: Sums
    contents: Contents
    comment: str


def verify(
    path: Path,
    checksum: str | None = None,
    key: minisign.PublicKey | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Verified:
    """Compare the file with `checksum` (default: what `PATH.sha256` says) and its signature, and look into it.

    Raises:
        BundleError: one sentence on the first thing that is wrong.
    """
    expected = _expected(path, checksum)
    found = sums(path, progress)
    if found.sha256 != expected:
        raise BundleError(f"{path} has the checksum sha256:{found.sha256}, not sha256:{expected}")
    signature = path.with_name(path.name + minisign.SUFFIX)
    comment = minisign.check(found.blake2b, signature, key) if key else ""
    return Verified(found, look(path), comment)


def sums(path: Path, progress: Callable[[int], None] = lambda _: None) -> Sums:
    """Both checksums of a file, in one pass. Raises BundleError."""
    sha256, blake2b, size = hashlib.sha256(), hashlib.blake2b(), 0
    try:
        with path.open("rb") as file:
            while piece := file.read(_CHUNK):
                sha256.update(piece)
                blake2b.update(piece)
                size += len(piece)
                progress(len(piece))
    except OSError as error:
        raise BundleError(f"{path}: {error}") from None
    return Sums(size, sha256.hexdigest(), blake2b.digest())


def look(path: Path) -> Contents:
    """What a bundle holds, a packed file or a directory; everything that its manifest names is there.

    Raises:
        BundleError: one sentence on the first thing that is wrong.
    """
    with _described(path) as (top, files):
        try:
            manifest = parse(top / "bundle.toml")
            lacking = _lacking(manifest, files)
            if lacking:
                raise BundleError(f"{path} lacks {', '.join(lacking)}, which its manifest names")
            models = {
                model.name: savedmodel.read(top / "models" / model.name / str(model.version) / "saved_model.pb")
                for model in manifest.models
            }
        except BundleError as error:  # the directory is none that anybody could look at
            raise BundleError(str(error).replace(f"{top}/", f"{path}: ")) from None
        for model in manifest.models:
            if unknown := [name for name in model.signatures if name not in models[model.name].signatures]:
                has = ", ".join(models[model.name].signatures)
                raise BundleError(f"{path}: model {model.name} has no signature {', '.join(unknown)}; it has {has}")
        lock = top / "vendor.lock"
        vendored = (
            re.findall(r"^([A-Za-z0-9._-]+==[^\s;\\]+)", lock.read_text("utf-8"), re.MULTILINE)
            if lock.is_file()
            else []
        )
        return Contents(manifest, files, models, tuple(vendored))


@contextmanager
def _described(path: Path) -> Iterator[tuple[Path, dict[str, int]]]:
    """A directory with the bundle's description in it, and the names and sizes of all files."""
    if path.is_dir():
        yield path, _sizes(path)
        return
    with tempfile.TemporaryDirectory(prefix="tandem-") as directory:
        top = Path(directory) / "bundle"
        yield top, archive.unpack(path, top, lambda entry: bool(DESCRIPTION.fullmatch(entry.name)))


def _sizes(top: Path) -> dict[str, int]:
    """The files of a source, whose models may be links to where they were trained."""
    below = (Path(folder) / name for folder, _, names in os.walk(top, followlinks=True) for name in names)
    return {path.relative_to(top).as_posix(): path.stat().st_size for path in below if path.is_file()}


def _lacking(manifest: Manifest, files: dict[str, int]) -> list[str]:
    wanted = [f"models/{model.name}/{model.version}/saved_model.pb" for model in manifest.models]
    wanted += [file for example in manifest.examples for file in (example.request, example.response) if file]
    handler = manifest.handler
    if handler and f"{handler}/__init__.py" not in files:
        wanted.append(handler)
    return [name for name in wanted if name not in files]


def _expected(path: Path, checksum: str | None) -> str:
    if checksum is None:
        beside = path.with_name(f"{path.name}.sha256")
        try:
            checksum = beside.read_text("ascii").partition(" ")[0]
        except (OSError, UnicodeDecodeError):
            raise BundleError(
                f"{path} can be compared with nothing: no checksum is given, and no {beside.name}"
            ) from None
    found = CHECKSUM.fullmatch(checksum.strip())
    if not found:
        raise BundleError(f"{checksum[:80]!r} is no checksum: expected sha256: and 64 lower-case hexadecimal digits")
    return found[1]
