"""The group's state: it follows from the checks until the drain begins."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from adapter.group.state import HISTORY, Group, State, Transition

UP = (True, "TensorFlow Serving answers")
DOWN = (False, "cannot be reached")
AVAILABLE = (True, "version 1 is AVAILABLE")
LOADING = (False, "expected version 1 AVAILABLE, found version 1 LOADING")
WARM = (True, "2 requests answered")
COLD = (False, "sending the bundle's warm-up requests")
CHECKS = ("tfs", "model:m", "warm-up")


def ready_group() -> Group:
    group = Group(CHECKS)
    group.observe({"tfs": UP, "model:m": AVAILABLE, "warm-up": WARM}, 1.0)
    assert group.ready
    return group


def test_it_starts_unready_and_never_was_ready() -> None:
    group = Group()
    assert (group.state, group.ready, group.was_ready) == (State.STARTING, False, False)


def test_what_is_expected_fails_until_it_is_observed() -> None:
    group = Group(("tfs", "handler"))
    assert {name: check.ok for name, check in group.checks.items()} == {"tfs": False, "handler": False}
    group.observe({"tfs": UP}, 1.0)
    assert group.state is State.LOADING
    assert group.reason == "handler: not known yet"


def test_a_start_goes_through_every_state_and_each_names_what_it_waits_for() -> None:
    group = Group(CHECKS)
    steps = [
        ({"tfs": DOWN}, State.STARTING, f"tfs: {DOWN[1]}"),
        ({"tfs": UP, "model:m": LOADING, "warm-up": COLD}, State.LOADING, f"model:m: {LOADING[1]}"),
        ({"model:m": AVAILABLE}, State.WARMING, f"warm-up: {COLD[1]}"),
        ({"warm-up": WARM}, State.READY, "every check passes"),
    ]
    for number, (results, state, reason) in enumerate(steps):
        group.observe(results, float(number))
        assert (group.state, group.reason) == (state, reason)
    assert [transition.after for transition in group.history] == [State.LOADING, State.WARMING, State.READY]


def test_a_start_can_fall_back() -> None:
    group = Group(CHECKS)
    group.observe({"tfs": UP, "model:m": AVAILABLE, "warm-up": COLD}, 1.0)
    transition = group.observe({"tfs": DOWN}, 2.0)
    assert transition == Transition(State.WARMING, State.STARTING, f"tfs: {DOWN[1]}", 2.0)


@pytest.mark.parametrize("failing", [{"tfs": DOWN}, {"model:m": LOADING}, {"warm-up": COLD}])
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
    assert group.stop("every request is answered", 5.0) is not None
    assert group.state is State.STOPPED


def test_the_history_lists_every_transition_with_reason_and_time() -> None:
    group = ready_group()
    group.observe({"tfs": DOWN}, 2.0)
    group.drain("enough", 3.0)
    assert list(group.history) == [
        Transition(State.STARTING, State.READY, "every check passes", 1.0),
        Transition(State.READY, State.DEGRADED, "tfs: cannot be reached", 2.0),
        Transition(State.DEGRADED, State.DRAINING, "enough", 3.0),
    ]


def test_it_is_alive_until_tensorflow_serving_has_hung_for_too_long_or_all_is_over() -> None:
    group = ready_group()
    group.hung_since = 10.0
    assert group.alive(10.0 + group.hang_limit)
    assert not group.alive(10.1 + group.hang_limit)
    group.hung_since = None
    assert group.alive(1000.0)
    group.hung_since = 10.0
    group.drain("enough", 60.0)
    assert group.alive(60.0), "a restart is no help while it leaves"
    group.stop("drained", 61.0)
    assert not group.alive(61.0)


class Life(RuleBasedStateMachine):
    """Whatever happens to a group, in whatever order, its state is what its checks and the drain say."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.group = Group(CHECKS)
        self.holds = dict.fromkeys(CHECKS, False)
        self.was_ready = False
        self.leaving: State | None = None
        self.seen: list[Transition] = []

    @rule(holds=st.fixed_dictionaries({}, optional=dict.fromkeys(CHECKS, st.booleans())))
    def observe(self, holds: dict[str, bool]) -> None:
        self.tick(self.group.observe({name: (ok, f"{name} {ok}") for name, ok in holds.items()}, self.now + 1))
        self.holds |= holds
        if self.leaving is None:
            self.was_ready |= all(self.holds.values())

    @rule()
    def drain(self) -> None:
        self.tick(self.group.drain("drained", self.now + 1))
        self.leaving = self.leaving or State.DRAINING

    @rule()
    def stop(self) -> None:
        self.tick(self.group.stop("stopped", self.now + 1))
        self.leaving = State.STOPPED

    @invariant()
    def the_state_is_what_the_checks_say(self) -> None:
        assert self.group.state is self.expected()
        assert self.group.ready == (self.leaving is None and all(self.holds.values()))
        assert self.group.was_ready == self.was_ready
        assert {name: check.ok for name, check in self.group.checks.items()} == self.holds

    @invariant()
    def each_change_is_told_once_and_listed_in_order(self) -> None:
        assert list(self.group.history) == self.seen[-HISTORY:]
        for earlier, later in zip(self.seen, self.seen[1:], strict=False):
            assert earlier.after is later.before
            assert earlier.at < later.at
        assert all(change.before is not change.after for change in self.seen)
        if self.seen:
            assert self.group.state is self.seen[-1].after

    def expected(self) -> State:
        if self.leaving is not None:
            return self.leaving
        if all(self.holds.values()):
            return State.READY
        if self.was_ready:
            return State.DEGRADED
        for name, state in (("tfs", State.STARTING), ("model:m", State.LOADING)):
            if not self.holds[name]:
                return state
        return State.WARMING

    def tick(self, change: Transition | None) -> None:
        self.now += 1
        if change is not None:
            assert change.at == self.now
            self.seen.append(change)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
