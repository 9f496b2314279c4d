"""The file format of a bundle: a tar of regular files, compressed by zstd (docs/decisions/065-tar-zst.md).

Written deterministically: order given by the caller, one mode, no owner, no time, one thread, a pinned level. Read
strictly: what `Writer` does not write is refused with one sentence, and nothing is read into memory that the archive
could make large. A file is a regular one (no link, device, fifo, directory entry, sparse file or extended attribute), and
its name leads nowhere but below the directory it is unpacked to (`names.py`). All files are within the limits of Nomad's
artifact block (client option `artifact`: 4,096 files, 100 GB).
"""

import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import zstandard

from adapter.bundle.manifest import BundleError
from deploy.bundle.names import Names, shown

SUFFIX = ".tar.zst"
LEVEL = 3
MODE = 0o644
# The window of LEVEL is 2 MiB; a frame that asks for more than this was not written here.
MAX_WINDOW = 8 << 20
MAX_SIZE = 100_000_000_000

_BLOCK = tarfile.BLOCKSIZE
_CHUNK = 1 << 20
_MAX_PAX = 8192
_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"5": "a directory entry",
    b"6": "a fifo",
    b"S": "a sparse file",
}


class Source(Protocol):
    """Where content comes from."""

    def read(self, size: int, /) -> bytes: ...


class Sink(Protocol):
    """Where an archive goes."""

    def write(self, piece: bytes, /) -> object: ...


class Writer:
    """Writes a bundle to `file`, entry after entry, as a context manager."""

    def __init__(self, file: Sink) -> None:
        compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)
        self._zstd = compressor.stream_writer(file, closefd=False)  # type: ignore[arg-type]  # it calls `write` alone
        self._names = Names()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None:
            self._zstd.write(bytes(2 * _BLOCK))
            self._zstd.flush(zstandard.FLUSH_FRAME)

    def add(self, name: str, size: int, content: Source) -> None:
        """Append a file of `size` bytes. Raises BundleError for a name that no reader would take."""
        self._names.add(name)
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = size, MODE
        self._zstd.write(entry.tobuf(tarfile.PAX_FORMAT))
        left = size
        while left:
            piece = content.read(min(left, _CHUNK))
            if not piece:
                raise BundleError(f"{name} became shorter while it was packed")
            self._zstd.write(piece)
            left -= len(piece)
        if content.read(1):
            raise BundleError(f"{name} became longer while it was packed")
        self._zstd.write(bytes(-size % _BLOCK))


@dataclass(frozen=True)
class Entry:
    """A file in the archive; `read` gives its content piece by piece, until b"", before the next entry is asked for."""

    name: str
    size: int
    read: Callable[[int], bytes]


def entries(file: Source, max_size: int = MAX_SIZE) -> Iterator[Entry]:
    """The files of the bundle in `file`, in their order.

    Raises:
        BundleError: at the first thing that does not belong into a bundle; without the file's name.
    """
    stream = _Unpacked(file, max_size)
    names = Names()
    longer: dict[str, str] = {}
    while (header := stream.exactly(_BLOCK)) != bytes(_BLOCK):
        try:
            found = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise BundleError(f"is not a tar archive inside: {error}") from None
        if found.size < 0:
            raise BundleError(f"holds {shown(found.name)} of a negative size")
        if found.type == tarfile.XHDTYPE and not longer:
            longer = _extended(stream, found.size)
            continue
        if found.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or found.name.endswith("/"):
            kind = "a directory entry" if found.name.endswith("/") else _KINDS.get(found.type, "an extension of tar")
            raise BundleError(f"holds {kind}, {shown(found.name)}; a bundle holds regular files alone")
        name, size = longer.get("path", found.name), int(longer.get("size", found.size))
        longer = {}
        names.add(name)
        if found.mode != MODE:
            raise BundleError(f"holds {name!r} with mode {found.mode:o} instead of {MODE:o}")
        content = _Content(stream, size)
        yield Entry(name, size, content.read)
        content.skip()
    stream.end()


def unpack(archive: Path, target: Path, wanted: Callable[[Entry], bool] = lambda _: True) -> dict[str, int]:
    """Unpack what is wanted of a bundle into the directory `target`, which must not exist yet.

    Returns the names and sizes of all its files.

    Raises:
        BundleError: it holds what must not be unpacked. What came before that stays in `target`.
    """
    files = {}
    try:
        with archive.open("rb") as file:
            target.mkdir(parents=True)
            for entry in entries(file):
                files[entry.name] = entry.size
                if wanted(entry):
                    _write(target / entry.name, entry)
    except BundleError as error:
        raise BundleError(f"{archive} {error}") from None
    except OSError as error:
        raise BundleError(f"{archive}: {error}") from None
    return files


def _write(path: Path, entry: Entry) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as out:
        while piece := entry.read(_CHUNK):
            out.write(piece)


class _Unpacked:
    """The archive without its compression, as a bounded stream."""

    def __init__(self, file: Source, max_size: int) -> None:
        decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
        self._stream = decompressor.stream_reader(
            file,  # type: ignore[arg-type]  # it calls `read` alone
            read_size=_CHUNK,
            read_across_frames=True,
            closefd=False,
        )
        self._left = max_size
        self._max_size = max_size

    def some(self, size: int) -> bytes:
        """Up to `size` bytes; fewer only at the end."""
        try:
            piece: bytes = self._stream.read(size)
        except zstandard.ZstdError as error:
            raise BundleError(f"is not a zstd file or is damaged ({error})") from None
        self._left -= len(piece)
        if self._left < 0:
            raise BundleError(f"unpacks to more than {self._max_size} bytes")
        return piece

    def exactly(self, size: int) -> bytes:
        """`size` bytes."""
        parts = []
        while size:
            piece = self.some(size)
            if not piece:
                raise BundleError("is truncated")
            parts.append(piece)
            size -= len(piece)
        return b"".join(parts)

    def end(self) -> None:
        """Nothing may follow but the zeros that fill up the last record."""
        rest = self.some(tarfile.RECORDSIZE)
        if len(rest) >= tarfile.RECORDSIZE or rest.strip(b"\0"):
            raise BundleError("holds more after its end")


class _Content:
    def __init__(self, stream: _Unpacked, size: int) -> None:
        self._stream = stream
        self._left = size
        self._padding = -size % _BLOCK

    def read(self, size: int) -> bytes:
        piece = self._stream.exactly(min(size, self._left, _CHUNK))
        self._left -= len(piece)
        return piece

    def skip(self) -> None:
        while self._left:
            self.read(_CHUNK)
        self._stream.exactly(self._padding)


def _extended(stream: _Unpacked, size: int) -> dict[str, str]:
    """A pax header (POSIX.1-2001, `LENGTH KEY=VALUE\\n`): a long path, a large size, nothing else."""
    if size > _MAX_PAX:
        raise BundleError(f"holds an extended header of {size} bytes")
    text = stream.exactly(size)
    stream.exactly(-size % _BLOCK)
    found: dict[str, str] = {}
    while text:
        length, _, rest = text.partition(b" ")
        if not length.isdigit() or len(length) > 5 or not len(length) + 1 < int(length) <= len(text):
            raise BundleError("holds a damaged extended header")
        key, _, value = rest[: int(length) - len(length) - 1].partition(b"=")
        text = text[int(length) :]
        name = key.decode("ascii", "replace")
        if name not in ("path", "size") or name in found or value[-1:] != b"\n":
            raise BundleError(f"holds an extended header of {shown(name)}")
        found[name] = value[:-1].decode("utf-8", "surrogateescape")
    if (
        not found.get("size", "0").isdecimal()
        or not found.get("size", "0").isascii()
        or len(found.get("size", "")) > 18
    ):
        raise BundleError("holds an extended header with a size that is no number")
    return found
