"""The state that the group is in, and why. Pure logic: checks in, state out.

              all models        all checks
    starting ─ answers ─► loading ─── pass ───► ready ◄─── pass ─── degraded
        └─────────────────────┴── (pass) ───────►  └──── fail ────────►┘
    any of them ── drain ──► draining ── stop ──► stopped

A check is one condition of readiness: `tfs` (TensorFlow Serving answers), one `model:NAME` for each model of the bundle
(exactly the bundle's version is AVAILABLE). The state follows from the checks alone until the drain begins, which is
the one way out.
"""

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

HISTORY = 50


class State(StrEnum):
    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    DEGRADED = "degraded"
    DRAINING = "draining"
    STOPPED = "stopped"


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
    """Both tasks as one: `state` follows from `checks`, until `drain`."""

    state: State = State.STARTING
    since: float = field(default_factory=time.time)
    reason: str = "the adapter has started"
    checks: dict[str, Check] = field(default_factory=dict)
    history: deque[Transition] = field(default_factory=lambda: deque(maxlen=HISTORY))
    was_ready: bool = False

    @property
    def ready(self) -> bool:
        return self.state is State.READY

    @property
    def stopping(self) -> bool:
        return self.state in (State.DRAINING, State.STOPPED)

    def observe(self, results: Mapping[str, tuple[bool, str]], now: float) -> Transition | None:
        """Take the checks' new results (name → holds, reason); returns the transition if the state changed."""
        for name, (ok, reason) in results.items():
            before = self.checks.get(name)
            if before is None or (before.ok, before.reason) != (ok, reason):
                since = before.since if before is not None and before.ok == ok else now
                self.checks[name] = Check(ok, reason, since)
        if self.stopping:
            return None
        failing = [f"{name}: {check.reason}" for name, check in self.checks.items() if not check.ok]
        if not failing:
            return self._go(State.READY, "every check passes", now)
        if self.was_ready:
            return self._go(State.DEGRADED, "; ".join(failing), now)
        reached = "tfs" in self.checks and self.checks["tfs"].ok
        return self._go(State.LOADING if reached else State.STARTING, "; ".join(failing), now)

    def drain(self, reason: str, now: float) -> Transition | None:
        """Leave the service: no check brings it back."""
        return None if self.stopping else self._go(State.DRAINING, reason, now)

    def stop(self, now: float) -> Transition | None:
        """The last request is answered."""
        return self._go(State.STOPPED, "drained", now)

    def _go(self, state: State, reason: str, now: float) -> Transition | None:
        self.reason = reason
        if state is self.state:
            return None
        transition = Transition(self.state, state, reason, now)
        self.history.append(transition)
        self.state, self.since = state, now
        self.was_ready = self.was_ready or state is State.READY
        return transition
