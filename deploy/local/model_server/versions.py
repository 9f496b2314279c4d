"""Which versions of which models are loaded, and which should be: TensorFlow Serving's AspiredVersionsManager.

    aspired ──▶ START ──▶ LOADING ──▶ AVAILABLE ──▶ UNLOADING ──▶ END
                             └──────── (retries exhausted) ────────▲

One thread decides (S: core/availability_preserving_policy.cc: a new version is loaded before the old one goes). Loads of
the initial configuration run in parallel; after that they run in `load_threads` threads, or, with none, in the deciding
thread itself: then a version that keeps failing holds everything else up, here as there. History is kept: an ended
version stays listed. Knows nothing of files or of TensorFlow: what to load with is a function it is given.
"""

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from deploy.local.model_server import logs
from deploy.local.model_server.status import Code, StatusError

_HARNESS = "loader_harness.cc"
_MANAGE_SECONDS = 0.1  # S: AspiredVersionsManager::Options::manage_state_interval_micros


class State(IntEnum):
    """GetModelStatus' states, with its numbers."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


class Closeable(Protocol):
    def close(self) -> None: ...


T = TypeVar("T", bound=Closeable)


@dataclass(frozen=True, order=True)
class Id:
    name: str
    version: int

    def __str__(self) -> str:
        return f"{{name: {self.name} version: {self.version}}}"


@dataclass
class Version(Generic[T]):
    id: Id
    path: Path
    aspired: bool = True
    state: State = State.START
    error: StatusError | None = None
    servable: T | None = None
    in_use: int = 0


@dataclass(frozen=True)
class Retries:
    max_retries: int = 5
    interval_seconds: float = 60.0


class Manager(Generic[T]):
    def __init__(self, load: Callable[[Id, Path], T], retries: Retries, load_threads: int, unload_threads: int) -> None:
        self._load = load
        self._retries = retries
        self._load_slots = threading.BoundedSemaphore(load_threads) if load_threads else None
        self._unload_slots = threading.BoundedSemaphore(unload_threads) if unload_threads else None
        self._initial = True
        self._changed = threading.Condition()
        self._pending: dict[str, dict[int, Path]] = {}
        self._managed: dict[Id, Version[T]] = {}
        self._history: dict[Id, Version[T]] = {}

    def start(self) -> None:
        threading.Thread(target=self._manage, name="manager", daemon=True).start()

    def aspire(self, name: str, versions: dict[int, Path]) -> None:
        """Make these the wanted versions of a model; none means: unload it. Takes effect at the manager's next turn."""
        with self._changed:
            self._pending[name] = versions
            self._changed.notify_all()

    def end_initial_load(self) -> None:
        self._initial = False

    def states(self, name: str) -> list[Version[T]]:
        """Every version of a model there is or was, newest first."""
        with self._changed:
            return [self._history[id_] for id_ in sorted(self._history, reverse=True) if id_.name == name]

    def is_available(self, name: str, version: int) -> bool:
        return any(item.id.version == version and item.state is State.AVAILABLE for item in self.states(name))

    def wait_until_available(self, names: Collection[str]) -> None:
        """Wait until each model has an available version; raise once one has none left to hope for."""
        with self._changed:
            failed: list[Version[T]] = []
            for name in names:
                while True:
                    versions = self.states(name)
                    if any(version.state is State.AVAILABLE for version in versions):
                        break
                    if versions and all(version.state is State.END for version in versions):
                        failed.append(versions[0])
                        break
                    self._changed.wait()
        if failed:
            reasons = "".join(
                f"{{{version.id}{f' due to error: {version.error}' if version.error else ''}}}, " for version in failed
            )
            raise StatusError(Code.UNKNOWN, f"{len(failed)} servable(s) did not become available: {{{reasons}}}")

    @contextmanager
    def use(self, name: str, version: int | None) -> Iterator[tuple[T, int]]:
        """The servable for a request (the newest, or one version) and its version; not unloaded while in use."""
        with self._changed:
            found = next(
                (
                    item
                    for item in self.states(name)
                    if item.state is State.AVAILABLE and version in (None, item.id.version)
                ),
                None,
            )
            if found is None or found.servable is None:
                wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
                raise StatusError(Code.NOT_FOUND, f"Servable not found for request: {wanted}")
            found.in_use += 1
        try:
            yield found.servable, found.id.version
        finally:
            with self._changed:
                found.in_use -= 1
                self._changed.notify_all()

    # The deciding thread.

    def _manage(self) -> None:
        while True:
            with self._changed:
                self._take_aspirations()
                action = next(filter(None, map(self._next_action, {id_.name for id_ in self._managed})), None)
                if action is None:
                    self._changed.wait(_MANAGE_SECONDS)
                    continue
                version, work, slots = action
                self._set(version, State.LOADING if work == self._run_load else State.UNLOADING)
            if slots is None and not (self._initial and work == self._run_load):
                work(version)
            else:
                threading.Thread(target=self._pooled, args=(work, version, slots), daemon=True).start()

    def _take_aspirations(self) -> None:
        for name, wanted in self._pending.items():
            for id_, version in list(self._managed.items()):
                if id_.name == name:
                    version.aspired = id_.version in wanted
                    if not version.aspired and version.state in (State.START, State.END):
                        self._set(version, State.END)
                        del self._managed[id_]
            for number, path in wanted.items():
                id_ = Id(name, number)
                if id_ not in self._managed:
                    self._managed[id_] = self._history[id_] = Version(id_, path)
        self._pending.clear()

    def _next_action(
        self, name: str
    ) -> tuple[Version[T], Callable[[Version[T]], None], threading.BoundedSemaphore | None] | None:
        versions = [version for id_, version in sorted(self._managed.items()) if id_.name == name]
        aspired = [version for version in versions if version.aspired]
        leaving = [version for version in versions if not version.aspired and version.state is State.AVAILABLE]
        served = not aspired or any(version.state is State.AVAILABLE for version in aspired)
        if leaving and (served or len(leaving) > 1):
            return leaving[0], self._run_unload, self._unload_slots
        if waiting := [version for version in aspired if version.state is State.START]:
            return waiting[-1], self._run_load, self._load_slots
        return None

    def _pooled(
        self, work: Callable[[Version[T]], None], version: Version[T], slots: threading.BoundedSemaphore | None
    ) -> None:
        if slots is None or self._initial:
            work(version)
            return
        with slots:
            work(version)

    def _set(self, version: Version[T], state: State, error: StatusError | None = None) -> None:
        with self._changed:
            version.state, version.error = state, error or version.error
            self._changed.notify_all()

    # What it sets going.

    def _run_load(self, version: Version[T]) -> None:
        self._retried(f"Reserving resources for servable: {version.id}", lambda: None, lambda: False)
        logs.tf(
            "I",
            "tensorflow_serving/core/basic_manager.cc:771",
            f"Successfully reserved resources to load servable {version.id}",
        )
        logs.absl("I", f"{_HARNESS}:71", f"Approving load for servable version {version.id}")
        logs.absl("I", f"{_HARNESS}:79", f"Loading servable version {version.id}")

        def attempt() -> None:
            version.servable = self._load(version.id, version.path)

        error = self._retried(f"Loading servable: {version.id}", attempt, lambda: not version.aspired)
        if error is None:
            logs.absl("I", f"{_HARNESS}:105", f"Successfully loaded servable version {version.id}")
            self._set(version, State.AVAILABLE)
            return
        logs.absl("I", f"{_HARNESS}:180", f"Encountered an error for servable version {version.id}: {error}")
        logs.tf(
            "E",
            "tensorflow_serving/core/aspired_versions_manager.cc:420",
            f"Servable {version.id} cannot be loaded: {error}",
        )
        self._set(version, State.END, error)

    def _retried(
        self, what: str, attempt: Callable[[], None], cancelled: Callable[[], bool]
    ) -> StatusError | None:
        """S: util/retrier.cc, its lines included (with 0 retries it calls even a success exhausted)."""
        source, limit = "tensorflow_serving/util/retrier.cc", self._retries.max_retries
        error: StatusError | None = None
        for tries in range(1, limit + 2):
            if tries > 1:
                threading.Event().wait(max(0.0, self._retries.interval_seconds))
                logs.tf("I", f"{source}:36", f"Retrying of {what} retry: {tries - 1}")
            try:
                attempt()
                error = None
            except StatusError as failure:
                error = failure
                logs.tf("E", f"{source}:40", f"{what} failed: {error}")
            if tries == limit + 1:
                logs.tf("I", f"{source}:50", f"Retrying of {what} exhausted max_num_retries: {limit}")
            if error is None or cancelled():
                break
        return error

    def _run_unload(self, version: Version[T]) -> None:
        logs.absl("I", f"{_HARNESS}:163", f"Quiescing servable version {version.id}")
        with self._changed:
            self._changed.wait_for(lambda: version.in_use == 0)
            servable, version.servable = version.servable, None
        logs.absl("I", f"{_HARNESS}:170", f"Done quiescing servable version {version.id}")
        logs.absl("I", f"{_HARNESS}:129", f"Unloading just-loaded servable version {version.id}")
        if servable is not None:
            servable.close()
        logs.absl("I", f"{_HARNESS}:137", f"Done unloading servable version {version.id}")
        with self._changed:
            del self._managed[version.id]
            self._set(version, State.END)
