"""The version directories below a model's base path: S: sources/storage_path/file_system_storage_path_source.cc.

A poll is all or nothing: one missing base path, and no model sees a change in that poll.
"""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from grpc import StatusCode

from deploy.local.model_server import logs
from deploy.local.model_server.status import StatusError

_FILE = "file_system_storage_path_source.cc"
_INT64_MAX = 2**63 - 1


@dataclass(frozen=True)
class Model:
    """A model to watch; its policy: the `latest` newest versions, or exactly those in `specific`, or all (`every`)."""

    name: str
    base_path: str
    latest: int = 1
    specific: frozenset[int] = frozenset()
    every: bool = False


class Source:
    def __init__(self, aspire: Callable[[str, dict[int, Path]], None], poll_seconds: int) -> None:
        self._aspire = aspire
        self._poll_seconds = poll_seconds
        self._polling = poll_seconds < 0  # a negative interval: never poll
        self._lock = threading.Lock()
        self._models: tuple[Model, ...] = ()

    def watch(self, models: tuple[Model, ...]) -> set[str]:
        """Watch these models from now on; models no longer among them are unaspired at once. Returns the new ones."""
        with self._lock:
            old, new = ({model.name for model in some} for some in (self._models, models))
            self._models = models
            for name in old - new:
                self._aspire(name, {})
            if not self._polling:
                self._polling = True
                threading.Thread(target=self._poll_forever, name="file_system_poll", daemon=True).start()
        return new - old

    def poll(self) -> None:
        with self._lock:
            try:
                found = {model.name: versions_of(model) for model in self._models}
            except StatusError as error:
                where = "FileSystemStoragePathSource encountered a filesystem access error"
                logs.error(f"{_FILE}:416", f"{where}: {error.message}")
                return
            for name, versions in found.items():
                self._aspire(name, versions)

    def _poll_forever(self) -> None:
        self.poll()
        while self._poll_seconds:  # 0: exactly once
            threading.Event().wait(self._poll_seconds)
            self.poll()


def versions_of(model: Model) -> dict[int, Path]:
    """The versions that the model's policy wants, out of those on disk."""
    base, name = Path(model.base_path), model.name
    try:
        children = sorted(base.iterdir())
    except FileNotFoundError:
        reason = f"Could not find base path {base} for servable {name} with error NOT_FOUND: {base} not found"
        raise StatusError(StatusCode.INVALID_ARGUMENT, reason) from None
    except OSError as error:
        raise StatusError(StatusCode.UNKNOWN, f"{base}; {os.strerror(error.errno or 0)}") from None
    numbered = {int(child.name): child for child in children if child.name.isascii() and child.name.isdigit()}
    on_disk = {version: child for version, child in numbered.items() if version <= _INT64_MAX}
    wanted = set(on_disk) if model.every else set(sorted(on_disk)[-max(model.latest, 1) :])
    if model.specific:
        wanted = set(model.specific) & on_disk.keys()
        for version in sorted(model.specific - wanted):
            logs.warning(
                f"{_FILE}:238",
                f"Version {version} of servable {name}, which was requested to be served as a 'specific' version in the"
                " servable's version policy, was not found in the file system",
            )
    if not wanted:
        hint = "Did you forget to name your leaf directory as a number (eg. '/1/')?"
        logs.warning(f"{_FILE}:314", f"No versions of servable {name} found under base path {base}. {hint}")
    return {version: on_disk[version] for version in wanted}
