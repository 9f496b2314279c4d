"""The group's state: it follows from the checks until the drain begins."""

import pytest

from adapter.group.state import Group, State

UP = (True, "TensorFlow Serving answers")
DOWN = (False, "cannot be reached")
AVAILABLE = (True, "version 1 is AVAILABLE")
LOADING = (False, "expected version 1 AVAILABLE, found version 1 LOADING")


def ready_group() -> Group:
    group = Group()
    group.observe({"tfs": UP, "model:m": AVAILABLE}, 1.0)
    assert group.ready
    return group


def test_it_starts_unready_and_never_was_ready() -> None:
    group = Group()
    assert (group.state, group.ready, group.was_ready) == (State.STARTING, False, False)


def test_it_is_starting_while_tfs_cannot_be_reached_and_loading_once_it_answers() -> None:
    group = Group()
    assert group.observe({"tfs": DOWN}, 1.0) is None
    assert group.state is State.STARTING
    transition = group.observe({"tfs": UP, "model:m": LOADING}, 2.0)
    assert transition is not None
    assert (transition.before, transition.after) == (State.STARTING, State.LOADING)
    assert transition.reason == f"model:m: {LOADING[1]}"


def test_it_is_ready_when_every_check_passes() -> None:
    assert ready_group().was_ready


@pytest.mark.parametrize("failing", [{"tfs": DOWN}, {"model:m": LOADING}])
def test_a_failing_check_degrades_a_ready_group_and_names_the_reason(failing: dict[str, tuple[bool, str]]) -> None:
    group = ready_group()
    transition = group.observe(failing, 2.0)
    assert transition is not None
    assert transition.after is State.DEGRADED
    assert next(iter(failing.values()))[1] in transition.reason
    assert group.was_ready


def test_it_heals() -> None:
    group = ready_group()
    group.observe({"tfs": DOWN}, 2.0)
    transition = group.observe({"tfs": UP}, 3.0)
    assert transition is not None
    assert transition.after is State.READY


def test_a_check_keeps_the_time_since_when_it_holds() -> None:
    group = ready_group()
    group.observe({"tfs": UP}, 5.0)
    assert group.checks["tfs"].since == 1.0
    group.observe({"tfs": DOWN}, 6.0)
    group.observe({"tfs": (False, "another reason")}, 7.0)
    assert (group.checks["tfs"].since, group.checks["tfs"].reason) == (6.0, "another reason")


def test_draining_is_final_whatever_the_checks_say() -> None:
    group = ready_group()
    assert group.drain("signal SIGTERM", 2.0) is not None
    assert group.drain("again", 3.0) is None
    assert group.observe({"tfs": DOWN}, 4.0) is None
    assert group.state is State.DRAINING
    assert group.reason == "signal SIGTERM"
    assert group.stop(5.0) is not None
    assert group.state is State.STOPPED


def test_the_history_lists_every_transition_with_reason_and_time() -> None:
    group = ready_group()
    group.observe({"tfs": DOWN}, 2.0)
    group.drain("enough", 3.0)
    assert [(t.before, t.after, t.at) for t in group.history] == [
        (State.STARTING, State.READY, 1.0),
        (State.READY, State.DEGRADED, 2.0),
        (State.DEGRADED, State.DRAINING, 3.0),
    ]
