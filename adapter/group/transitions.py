"""A change of the group's state is told once in each place: the log, the metrics, the trace. `/health` lists it too."""

import logging
import time

from adapter.group.state import State, Transition
from adapter.telemetry.metrics import STATE, TRANSITIONS
from adapter.telemetry.traces import Tracer

log = logging.getLogger(__name__)


class _Life:
    """Where the spans of the group's states go, and since when it is in the one it is in."""

    tracer = Tracer()
    since = time.time()


def begin(state: State, tracer: Tracer | None = None) -> None:
    """The state that the group starts in, on the metrics page from the beginning."""
    STATE.labels(state).set(1)
    if tracer is not None:
        _Life.tracer = tracer


def tell(transition: Transition | None) -> None:
    """Record the change, if there is one."""
    if transition is None:
        return
    STATE.clear()
    STATE.labels(transition.after).set(1)
    TRANSITIONS.labels(transition.after).inc()
    _Life.tracer.state(transition.before, transition.after, transition.reason, _Life.since, transition.at)
    _Life.since = transition.at
    level = logging.WARNING if transition.after is State.DEGRADED else logging.INFO
    attributes = {"event.name": "tandem.state", "from": transition.before, "to": transition.after}
    log.log(level, "%s: %s", transition.after, transition.reason, extra={"attributes": attributes})
