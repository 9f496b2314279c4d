"""The state that the group is in, and why. Pure logic: checks in, state out.

                             every model     the warm-up
             TFS answers     is AVAILABLE    passed
    starting ────────► loading ─────► warming ─────► ready ⇄ degraded
        any of them ── signal, /shutdown ──► draining ──► stopped

A check is one condition of readiness, and belongs to the state that lasts until it holds:

    starting   `tfs`         TensorFlow Serving answers
    loading    `model:NAME`  exactly the bundle's version is AVAILABLE; `handler` and whatever else there is: the bundle is usable
    warming    `warm-up`     the bundle's warm-up requests were answered

Until the group was ready for the first time, its state is that of the first check that fails. Afterwards any failing
check degrades it, and it is ready again when all hold: one that comes back has not started anew for its callers. The
drain is the one way out, and final.
"""

import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

HISTORY = 50


class State(StrEnum):
    STARTING = "starting"
    LOADING = "loading"
    WARMING = "warming"
    READY = "ready"
    DEGRADED = "degraded"
    DRAINING = "draining"
    STOPPED = "stopped"


TFS: Final = "tfs"
WARM_UP: Final = "warm-up"
_UNTIL: Final = {TFS: State.STARTING, WARM_UP: State.WARMING}
_ORDER: Final = (State.STARTING, State.LOADING, State.WARMING)


@dataclass(frozen=True, slots=True)
class Check:
    """One condition: does it hold, why (not), and since when (Unix seconds)."""

    ok: bool
    reason: str
    since: float


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of state: from, to, why, when (Unix seconds)."""

    before: State
    after: State
    reason: str
    at: float


@dataclass
class Group:
    """Both tasks as one: `state` follows from the checks until `drain`. Those `expected` fail until they are observed."""

    expected: Iterable[str] = (TFS,)
    state: State = State.STARTING
    since: float = field(default_factory=time.time)
    reason: str = "the adapter has started"
    checks: dict[str, Check] = field(default_factory=dict)
    history: deque[Transition] = field(default_factory=lambda: deque(maxlen=HISTORY))
    was_ready: bool = False
    hung_since: float | None = None
    """Since when TensorFlow Serving takes calls and answers none (Unix seconds)."""
    hang_limit: float = 30.0
    """Seconds of that after which a restart of both tasks is the only help."""

    def __post_init__(self) -> None:
        self.checks = {name: Check(False, "not known yet", self.since) for name in self.expected}

    @property
    def ready(self) -> bool:
        return self.state is State.READY

    @property
    def stopping(self) -> bool:
        return self.state in (State.DRAINING, State.STOPPED)

    def alive(self, now: float) -> bool:
        """Whether a restart of both tasks would be of no help.

        A dead TensorFlow Serving is restarted by the platform anyway; one that hangs is not, for its process runs.
        """
        hung = self.hung_since is not None and now - self.hung_since > self.hang_limit
        return self.state is not State.STOPPED and not (hung and not self.stopping)

    def observe(self, results: Mapping[str, tuple[bool, str]], now: float) -> Transition | None:
        """Take the checks' new results (name → holds, reason); returns the transition if the state changed."""
        for name, (ok, reason) in results.items():
            before = self.checks.get(name)
            if before is None or (before.ok, before.reason) != (ok, reason):
                since = before.since if before is not None and before.ok == ok else now
                self.checks[name] = Check(ok, reason, since)
        if self.stopping:
            return None
        failing = [(_until(name), f"{name}: {check.reason}") for name, check in self.checks.items() if not check.ok]
        if not failing:
            return self._go(State.READY, "every check passes", now)
        # What comes later in a start cannot hold yet: the reason names what is to be waited for.
        first = min((state for state, _ in failing), key=_ORDER.index)
        reason = "; ".join(text for state, text in failing if state is first)
        return self._go(State.DEGRADED if self.was_ready else first, reason, now)

    def drain(self, reason: str, now: float) -> Transition | None:
        """Leave the service: no check brings it back."""
        return None if self.stopping else self._go(State.DRAINING, reason, now)

    def stop(self, reason: str, now: float) -> Transition | None:
        """The last request is answered, or cut off."""
        return self._go(State.STOPPED, reason, now)

    def _go(self, state: State, reason: str, now: float) -> Transition | None:
        self.reason = reason
        if state is self.state:
            return None
        transition = Transition(self.state, state, reason, now)
        self.history.append(transition)
        self.state, self.since = state, now
        self.was_ready = self.was_ready or state is State.READY
        return transition


def _until(name: str) -> State:
    return _UNTIL.get(name, State.LOADING)
