"""Which versions of which models are loaded, and which should be: TensorFlow Serving's AspiredVersionsManager.

    aspired ──▶ START ──▶ LOADING ──▶ AVAILABLE ──▶ UNLOADING ──▶ END
                             └──────── (retries exhausted) ────────▲

One thread decides (S: core/availability_preserving_policy.cc: a new version is loaded before the old one goes). Loads
of the initial configuration run in parallel; after that they run in `load_threads` threads or, with none, in the
deciding thread itself: then a version that keeps failing holds everything else up, here as there. History is kept: an
ended version stays listed. Knows nothing of files or of TensorFlow: how to load is a function it is given.
"""

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from grpc import StatusCode

from deploy.local.model_server import logs
from deploy.local.model_server.status import StatusError


class State(IntEnum):
    """GetModelStatus' states, with its numbers."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


class Id(NamedTuple):
    name: str
    version: int

    def __str__(self) -> str:
        return f"{{name: {self.name} version: {self.version}}}"


class Closeable(Protocol):
    def close(self) -> None: ...


T = TypeVar("T", bound=Closeable)


@dataclass
class Version(Generic[T]):
    id: Id
    path: Path
    aspired: bool = True
    state: State = State.START
    error: StatusError | None = None
    servable: T | None = None
    in_use: int = 0


class Manager(Generic[T]):
    def __init__(
        self,
        load: Callable[[Id, Path], T],
        max_retries: int = 5,
        retry_seconds: float = 60,
        load_threads: int = 0,
        unload_threads: int = 0,
    ) -> None:
        self._load = load
        self._max_retries = max_retries
        self._retry_seconds = retry_seconds
        self._load_slots = threading.BoundedSemaphore(load_threads) if load_threads else None
        self._unload_slots = threading.BoundedSemaphore(unload_threads) if unload_threads else None
        self._initial = True
        self._changed = threading.Condition()
        self._pending: dict[str, dict[int, Path]] = {}
        self._managed: dict[Id, Version[T]] = {}
        self._history: dict[Id, Version[T]] = {}
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

    def available(self, name: str, version: int | None = None) -> Version[T] | None:
        """The newest available version, or one version if it is available."""
        found = (item for item in self.states(name) if item.state is State.AVAILABLE)
        return next((item for item in found if version in (None, item.id.version)), None)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for something about the versions to become true."""
        with self._changed:
            self._changed.wait_for(condition)

    def wait_until_available(self, names: Collection[str]) -> None:
        """Wait until each model has an available version; raise once one has none left to hope for."""

        def ended(name: str) -> bool:
            return {version.state for version in self.states(name)} == {State.END}

        with self._changed:
            self.wait_until(lambda: all(self.available(name) or ended(name) for name in names))
            failed = [self.states(name)[0] for name in names if not self.available(name)]
        if failed:
            reasons = "".join(f"{{{version.id} due to error: {version.error}}}, " for version in failed)
            text = f"{len(failed)} servable(s) did not become available: {{{reasons}}}"
            raise StatusError(StatusCode.UNKNOWN, text)

    @contextmanager
    def use(self, name: str, version: int | None) -> Iterator[tuple[T, int]]:
        """The servable for a request (the newest, or one version) and its version; not unloaded while in use."""
        with self._changed:
            found = self.available(name, version)
            if found is None or found.servable is None:
                wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
                raise StatusError(StatusCode.NOT_FOUND, f"Servable not found for request: {wanted}")
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
                    self._changed.wait()
                    continue
                version, state = action
                self._set(version, state)
            work = self._run_load if state is State.LOADING else self._run_unload
            slots: AbstractContextManager[Any] | None = self._unload_slots
            if state is State.LOADING:
                slots = nullcontext() if self._initial else self._load_slots
            if slots is None:
                work(version)
            else:
                threading.Thread(target=self._pooled, args=(slots, work, version), daemon=True).start()

    def _take_aspirations(self) -> None:
        for name, wanted in self._pending.items():
            for version in [version for id_, version in self._managed.items() if id_.name == name]:
                version.aspired = version.id.version in wanted
                if not version.aspired and version.state in (State.START, State.END):
                    self._forget(version)
            for number, path in wanted.items():
                id_ = Id(name, number)
                if id_ not in self._managed:
                    self._managed[id_] = self._history[id_] = Version(id_, path)
        self._pending.clear()
        self._changed.notify_all()

    def _next_action(self, name: str) -> tuple[Version[T], State] | None:
        versions = [version for id_, version in sorted(self._managed.items()) if id_.name == name]
        aspired = [version for version in versions if version.aspired]
        leaving = [version for version in versions if not version.aspired and version.state is State.AVAILABLE]
        served = not aspired or any(version.state is State.AVAILABLE for version in aspired)
        if leaving and (served or len(leaving) > 1):
            return leaving[0], State.UNLOADING
        waiting = [version for version in aspired if version.state is State.START]
        return (waiting[-1], State.LOADING) if waiting else None

    @staticmethod
    def _pooled(slots: AbstractContextManager[Any], work: Callable[[Version[T]], None], version: Version[T]) -> None:
        with slots:
            work(version)

    def _set(self, version: Version[T], state: State) -> None:
        with self._changed:
            version.state = state
            self._changed.notify_all()

    def _forget(self, version: Version[T]) -> None:
        with self._changed:
            del self._managed[version.id]
            self._set(version, State.END)

    # What it sets going.

    def _run_load(self, version: Version[T]) -> None:
        id_, limit = version.id, self._max_retries
        exhausted = f"{id_} exhausted max_num_retries: {limit}"
        if not limit:  # S: util/retrier.cc calls even a success exhausted then
            logs.info("retrier.cc:50", f"Retrying of Reserving resources for servable: {exhausted}")
        logs.info("basic_manager.cc:771", f"Successfully reserved resources to load servable {id_}")
        logs.info("loader_harness.cc:71", f"Approving load for servable version {id_}")
        logs.info("loader_harness.cc:79", f"Loading servable version {id_}")
        for tries in range(limit + 1):
            if tries:
                threading.Event().wait(max(0.0, self._retry_seconds))
                logs.info("retrier.cc:36", f"Retrying of Loading servable: {id_} retry: {tries}")
            error: StatusError | None = None
            try:
                version.servable = self._load(id_, version.path)
            except Exception as failure:  # whatever it is, the version must end and the manager go on
                error = failure if isinstance(failure, StatusError) else StatusError(StatusCode.INTERNAL, repr(failure))
                logs.error("retrier.cc:40", f"Loading servable: {id_} failed: {error}")
            if tries == limit:
                logs.info("retrier.cc:50", f"Retrying of Loading servable: {exhausted}")
            if error is None or not version.aspired:
                break
        if error is None:
            logs.info("loader_harness.cc:105", f"Successfully loaded servable version {id_}")
        else:
            logs.info("loader_harness.cc:180", f"Encountered an error for servable version {id_}: {error}")
            logs.error("aspired_versions_manager.cc:420", f"Servable {id_} cannot be loaded: {error}")
        version.error = error
        self._set(version, State.END if error else State.AVAILABLE)

    def _run_unload(self, version: Version[T]) -> None:
        logs.info("loader_harness.cc:163", f"Quiescing servable version {version.id}")
        with self._changed:
            self.wait_until(lambda: version.in_use == 0)
            servable, version.servable = version.servable, None
        logs.info("loader_harness.cc:170", f"Done quiescing servable version {version.id}")
        logs.info("loader_harness.cc:129", f"Unloading just-loaded servable version {version.id}")
        if servable is not None:
            servable.close()
        logs.info("loader_harness.cc:137", f"Done unloading servable version {version.id}")
        self._forget(version)
