"""Loading, unloading and the history of versions, with loads that the test lets through one by one."""

import threading
from pathlib import Path
from queue import Queue

import pytest
from grpc import StatusCode

from deploy.local.model_server.status import StatusError
from deploy.local.model_server.versions import Id, Manager

ANYWHERE = Path("/m")
BROKEN = StatusError(StatusCode.OUT_OF_RANGE, "Read less bytes than requested")


class Loaded:
    def __init__(self, id_: Id) -> None:
        self.id = id_
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()


class Loads:
    """Every load waits for the test's word: `let(result)`, where a StatusError makes it fail."""

    def __init__(self) -> None:
        self.started: Queue[Id] = Queue()
        self.words: Queue[StatusError | None] = Queue()
        self.done: dict[Id, Loaded] = {}

    def __call__(self, id_: Id, _path: Path) -> Loaded:
        self.started.put(id_)
        if (word := self.words.get(timeout=10)) is not None:
            raise word
        self.done[id_] = Loaded(id_)
        return self.done[id_]

    def let(self, *expected: Id, word: StatusError | None = None) -> None:
        for id_ in expected:
            assert self.started.get(timeout=10) == id_
            self.words.put(word)


@pytest.fixture
def loads() -> Loads:
    return Loads()


@pytest.fixture
def manager(loads: Loads) -> Manager[Loaded]:
    manager = Manager(loads, max_retries=0, retry_seconds=0)
    manager.end_initial_load()
    return manager


def listed(manager: Manager[Loaded]) -> list[tuple[int, str]]:
    return [(version.id.version, version.state.name) for version in manager.states("m")]


def test_a_new_version_is_loaded_before_the_old_one_is_unloaded_and_both_stay_listed(
    manager: Manager[Loaded], loads: Loads
) -> None:
    manager.aspire("m", {1: ANYWHERE})
    loads.let(Id("m", 1))
    manager.wait_until_available({"m"})
    manager.aspire("m", {2: ANYWHERE})
    assert loads.started.get(timeout=10) == Id("m", 2)
    with manager.use("m", None) as (servable, version):
        assert (servable, version) == (loads.done[Id("m", 1)], 1)
    assert listed(manager) == [(2, "LOADING"), (1, "AVAILABLE")]
    loads.words.put(None)
    assert loads.done[Id("m", 1)].closed.wait(10)
    with manager.use("m", None) as (_, version):
        assert version == 2


def test_a_version_in_use_is_unloaded_only_when_it_is_free(manager: Manager[Loaded], loads: Loads) -> None:
    manager.aspire("m", {1: ANYWHERE})
    loads.let(Id("m", 1))
    manager.wait_until_available({"m"})
    with manager.use("m", 1) as (servable, _):
        manager.aspire("m", {2: ANYWHERE})
        loads.let(Id("m", 2))
        manager.wait_until(lambda: listed(manager) == [(2, "AVAILABLE"), (1, "UNLOADING")])
        assert not servable.closed.is_set()
        with pytest.raises(StatusError, match=r"Servable not found for request: Specific\(m, 1\)"), manager.use("m", 1):
            pass
    assert servable.closed.wait(10)
    manager.wait_until(lambda: listed(manager) == [(2, "AVAILABLE"), (1, "END")])


def test_a_broken_version_leaves_the_old_one_serving_and_shows_its_error_at_the_end(
    manager: Manager[Loaded], loads: Loads
) -> None:
    manager.aspire("m", {1: ANYWHERE})
    loads.let(Id("m", 1))
    manager.wait_until_available({"m"})
    manager.aspire("m", {2: ANYWHERE})
    loads.let(Id("m", 2), word=BROKEN)
    manager.wait_until(lambda: listed(manager) == [(2, "END"), (1, "AVAILABLE")])
    assert manager.states("m")[0].error is BROKEN


def test_waiting_for_a_model_whose_versions_all_failed_tells_why(manager: Manager[Loaded], loads: Loads) -> None:
    manager.aspire("m", {1: ANYWHERE})
    loads.let(Id("m", 1), word=BROKEN)
    with pytest.raises(StatusError) as failure:
        manager.wait_until_available({"m"})
    reason = "{{{name: m version: 1} due to error: OUT_OF_RANGE: Read less bytes than requested}, }"
    assert str(failure.value) == f"UNKNOWN: 1 servable(s) did not become available: {reason}"


def test_a_load_is_retried_as_often_as_allowed_and_looks_like_loading_meanwhile(loads: Loads) -> None:
    manager = Manager(loads, max_retries=2, retry_seconds=0)
    manager.aspire("m", {1: ANYWHERE})
    loads.let(Id("m", 1), Id("m", 1), word=BROKEN)
    assert loads.started.get(timeout=10) == Id("m", 1)
    assert listed(manager) == [(1, "LOADING")]
    assert manager.states("m")[0].error is None
    loads.words.put(None)
    manager.wait_until_available({"m"})


def test_a_retry_ends_when_its_version_is_no_longer_wanted(loads: Loads) -> None:
    manager = Manager(loads, max_retries=5, retry_seconds=0)
    manager.aspire("m", {1: ANYWHERE})
    assert loads.started.get(timeout=10) == Id("m", 1)
    version = manager.states("m")[0]
    manager.aspire("m", {})
    manager.wait_until(lambda: not version.aspired)
    loads.words.put(BROKEN)
    manager.wait_until(lambda: listed(manager) == [(1, "END")])
    assert loads.started.empty()


def test_without_load_threads_a_load_holds_up_everything_but_requests(manager: Manager[Loaded], loads: Loads) -> None:
    manager.aspire("m", {1: ANYWHERE})
    assert loads.started.get(timeout=10) == Id("m", 1)
    manager.aspire("n", {1: ANYWHERE})
    assert manager.states("n") == []
    loads.words.put(None)
    loads.let(Id("n", 1))
    manager.wait_until_available({"m", "n"})


def test_the_initial_loads_run_side_by_side(loads: Loads) -> None:
    manager = Manager(loads, max_retries=0)
    manager.aspire("m", {1: ANYWHERE, 2: ANYWHERE})
    assert {loads.started.get(timeout=10), loads.started.get(timeout=10)} == {Id("m", 1), Id("m", 2)}
    loads.words.put(None)
    loads.words.put(None)
    manager.wait_until(lambda: listed(manager) == [(2, "AVAILABLE"), (1, "AVAILABLE")])


def test_a_version_wanted_again_after_it_ended_is_loaded_again(manager: Manager[Loaded], loads: Loads) -> None:
    for _ in range(2):
        manager.aspire("m", {1: ANYWHERE})
        loads.let(Id("m", 1))
        manager.wait_until_available({"m"})
        manager.aspire("m", {})
        manager.wait_until(lambda: listed(manager) == [(1, "END")])
