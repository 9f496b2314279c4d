"""A change of the group's state is told once in each place: the log, the metrics, the trace. `/health` lists it too."""

import logging

from adapter.group.state import State, Transition
from adapter.telemetry.metrics import STATE, TRANSITIONS

log = logging.getLogger(__name__)


def begin(state: State) -> None:
    """The state that the group starts in, on the metrics page from the beginning."""
    STATE.labels(state).set(1)


def tell(transition: Transition | None) -> None:
    """Record the change, if there is one."""
    if transition is None:
        return
    STATE.clear()
    STATE.labels(transition.after).set(1)
    TRANSITIONS.labels(transition.after).inc()
    level = logging.WARNING if transition.after is State.DEGRADED else logging.INFO
    attributes = {"event.name": "tandem.state", "from": transition.before, "to": transition.after}
    log.log(level, "%s: %s", transition.after, transition.reason, extra={"attributes": attributes})
