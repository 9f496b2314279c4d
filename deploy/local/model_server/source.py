"""The version directories below a model's base path: S: sources/storage_path/file_system_storage_path_source.cc.

A poll is all or nothing: one missing base path, and no model sees a change in that poll.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from deploy.local.model_server import logs
from deploy.local.model_server.status import StatusError, invalid_argument

_FILE = "tensorflow_serving/sources/storage_path/file_system_storage_path_source.cc"
_INT64_MAX = 2**63 - 1


@dataclass(frozen=True)
class Policy:
    """`latest` newest versions, exactly those in `specific`, or all of them."""

    latest: int = 1
    every: bool = False
    specific: frozenset[int] = field(default_factory=frozenset)


@dataclass(frozen=True)
class Model:
    name: str
    base_path: str
    policy: Policy = Policy()


class Source:
    def __init__(self, aspire: Callable[[str, dict[int, Path]], None], poll_seconds: int) -> None:
        self._aspire = aspire
        self._poll_seconds = poll_seconds
        self._lock = threading.Lock()
        self._models: tuple[Model, ...] = ()
        self._polling = poll_seconds < 0  # a negative interval: never poll

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

    def _poll_forever(self) -> None:
        pause = threading.Event()
        while True:
            self.poll()
            if self._poll_seconds == 0:  # exactly once, never again
                return
            pause.wait(self._poll_seconds)

    def poll(self) -> None:
        with self._lock:
            try:
                found = {model.name: versions_of(model) for model in self._models}
            except StatusError as error:
                logs.tf(
                    "E",
                    f"{_FILE}:416",
                    f"FileSystemStoragePathSource encountered a filesystem access error: {error.message}",
                )
                return
            for name, versions in found.items():
                self._aspire(name, versions)


def versions_of(model: Model) -> dict[int, Path]:
    """The versions that the model's policy wants, out of those on disk."""
    base = Path(model.base_path)
    if not base.exists():
        raise invalid_argument(
            f"Could not find base path {base} for servable {model.name} with error NOT_FOUND: {base} not found"
        )
    on_disk: dict[int, Path] = {}
    for child in sorted(base.iterdir()):
        if child.name.isascii() and child.name.isdigit() and int(child.name) <= _INT64_MAX:
            on_disk[int(child.name)] = child
    wanted = _wanted(model, on_disk)
    if not wanted:
        logs.tf(
            "W",
            f"{_FILE}:314",
            f"No versions of servable {model.name} found under base path {base}."
            " Did you forget to name your leaf directory as a number (eg. '/1/')?",
        )
    return {version: on_disk[version] for version in wanted}


def _wanted(model: Model, on_disk: dict[int, Path]) -> list[int]:
    policy = model.policy
    if policy.every:
        return sorted(on_disk)
    if not policy.specific:
        return sorted(on_disk)[-max(policy.latest, 1) :]
    for version in sorted(policy.specific - on_disk.keys()):
        logs.tf(
            "W",
            f"{_FILE}:238",
            f"Version {version} of servable {model.name}, which was requested to be served as a 'specific' version"
            " in the servable's version policy, was not found in the file system",
        )
    return sorted(policy.specific & on_disk.keys())
