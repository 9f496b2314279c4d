"""`/health`: what the platform and people ask. Four views of one state.

`/health/live` fails only when a restart of both tasks would help: an adapter that can answer needs none, one that cannot
fails it by itself, a dead TensorFlow Serving is restarted by the platform alone; one that has hung for long is not.
`/health/startup` passes once the group was ready for the first time; `/health/ready` is the state itself.
"""

import time
from datetime import UTC, datetime

import orjson

from adapter.exchange import Exchange, response
from adapter.group.state import Group
from adapter.http.answer import Answer


class Health:
    """The health resources of `group`."""

    def __init__(self, group: Group) -> None:
        self._group = group

    async def overview(self, _: Exchange) -> Answer:
        return self._answer(self._group.ready)

    async def ready(self, _: Exchange) -> Answer:
        return self._answer(self._group.ready)

    async def startup(self, _: Exchange) -> Answer:
        return self._answer(self._group.was_ready)

    async def live(self, _: Exchange) -> Answer:
        return self._answer(self._group.alive(time.time()))

    def _answer(self, ok: bool) -> Answer:
        group = self._group
        body = {
            "status": "pass" if ok else "fail",
            "state": group.state,
            "reason": group.reason,
            "since": rfc3339(group.since),
            "checks": {
                name: {"status": "pass" if c.ok else "fail", "reason": c.reason, "since": rfc3339(c.since)}
                for name, c in group.checks.items()
            },
            "history": [
                {"from": t.before, "to": t.after, "reason": t.reason, "at": rfc3339(t.at)} for t in group.history
            ],
        }
        headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
        if not ok:
            headers["Retry-After"] = "1"
        return response(200 if ok else 503, orjson.dumps(body), headers)


def rfc3339(seconds: float) -> str:
    """Unix seconds as people and machines read them: UTC, milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
