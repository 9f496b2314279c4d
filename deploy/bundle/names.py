"""The names that the files of a bundle may have: each leads to one place, below the directory it is unpacked to.

- relative, of plain parts: no "", ".", "..", backslash or control character; at most 1,024 bytes
- once: not twice, not in two spellings of letters (a case-insensitive disk holds one), not as file and directory
- as many as Nomad's artifact block takes (client option `artifact`)
"""

import unicodedata

from adapter.bundle.manifest import BundleError

MAX_FILES = 4096
MAX_NAME = 1024


class Names:
    """The names of an archive so far; refuses one that must not follow them."""

    def __init__(self) -> None:
        self._files: dict[str, str] = {}
        self._directories: dict[str, str] = {}

    def add(self, name: str) -> None:
        """Raises BundleError."""
        if reason := _unsafe(name):
            raise BundleError(f"holds a file named {shown(name)}, {reason}")
        if len(self._files) == MAX_FILES:
            raise BundleError(f"holds more than {MAX_FILES} files, which Nomad's artifact block refuses")
        key = _folded(name)
        if key in self._files:
            other = self._files[key]
            said = "twice" if other == name else f"and {other!r}, which are one file on some disks"
            raise BundleError(f"holds {name!r} {said}")
        if key in self._directories:
            raise BundleError(f"holds {name!r} as a file and as a directory")
        self._files[key] = name
        while key := key.rpartition("/")[0]:
            if key in self._files:
                raise BundleError(f"holds {self._files[key]!r} as a file and as a directory")
            if key in self._directories:
                break
            self._directories[key] = name


def _unsafe(name: str) -> str:
    """Why this name must not be unpacked, or nothing."""
    parts = name.split("/")
    if name.startswith("/"):
        return "an absolute path"
    if ".." in parts:
        return "which leads out of the bundle"
    if "" in parts or "." in parts:
        return "which is not a plain path"
    if "\\" in name or any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        return "with characters that no file of a bundle has"
    if len(name.encode()) > MAX_NAME or any(len(part.encode()) > 255 for part in parts):
        return "which is too long"
    return ""


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def shown(name: str) -> str:
    """A name as messages have it, whatever it is."""
    return repr(name[:80] + ("…" if len(name) > 80 else ""))
