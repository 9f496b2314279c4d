"""Watches TensorFlow Serving over its socket and feeds the group's checks: is it there, does it serve the right version.

TFS's own gRPC health service is no help: it says SERVING once and never changes (model_servers/server.cc). So the model
status is asked, a few times a second, and at once when a call fails.
"""

import asyncio
import logging
import time
from collections.abc import Mapping

import grpc

from adapter.errors import CallFailed
from adapter.group.state import Group, Transition
from adapter.inference.calls import STATUS, Connection
from adapter.pb import serving_pb2
from adapter.telemetry.metrics import STATE, TFS_UP, TRANSITIONS

INTERVAL_SECONDS = 0.2
TIMEOUT_SECONDS = 0.4
# A loaded TFS may answer late once; twice means that it hangs. With the interval that is still within a second.
TIMEOUTS_TOLERATED = 1

log = logging.getLogger(__name__)
_State = serving_pb2.ModelVersionStatus.State

Results = dict[str, tuple[bool, str]]


class Watcher:
    """Polls the status of `models` (name → version) and tells `group`. Without models: does TFS answer at all."""

    def __init__(self, group: Group, connection: Connection, models: Mapping[str, int]) -> None:
        self._group = group
        self._connection = connection
        self._models = models
        self._now = asyncio.Event()
        self._timeouts = 0
        self._failures: dict[str, str] = {}
        connection.on_unavailable = self._now.set

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            results = await self._check()
            if results is not None:
                self.tell(self._group.observe(results, time.time()))
            self._now.clear()
            try:
                async with asyncio.timeout(INTERVAL_SECONDS):
                    await self._now.wait()
            except TimeoutError:
                continue
            # Asked for by a failed call: once each tenth of a second is enough, however many calls fail.
            await asyncio.sleep(INTERVAL_SECONDS / 4)

    def tell(self, transition: Transition | None) -> None:
        """Record a change of state: log and metrics."""
        if transition is None:
            return
        STATE.clear()
        STATE.labels(transition.after).set(1)
        TRANSITIONS.labels(transition.after).inc()
        level = logging.WARNING if transition.after == "degraded" else logging.INFO
        attributes = {"event.name": "tandem.state", "from": transition.before, "to": transition.after}
        log.log(level, "%s: %s", transition.after, transition.reason, extra={"attributes": attributes})

    def note_failure(self, model: str, text: str) -> None:
        """TFS's own log says that `model` ("": the server itself) failed: the checks quote it until they pass.

        Its status API says so only at the end of all retries, and answers nobody during the first load.
        """
        if model in self._models or not model:
            self._failures[model] = text[:1024]

    async def _check(self) -> Results | None:
        """The checks' results, or None while it cannot be told yet."""
        names = list(self._models) or [""]
        try:
            answers = await asyncio.gather(*(self._status(name) for name in names))
        except CallFailed as error:
            if error.code is grpc.StatusCode.DEADLINE_EXCEEDED and self._timeouts < TIMEOUTS_TOLERATED:
                self._timeouts += 1
                return None
            TFS_UP.set(0)
            reason = (
                f"TensorFlow Serving does not answer within {TIMEOUT_SECONDS} s"
                if error.code is grpc.StatusCode.DEADLINE_EXCEEDED
                else f"TensorFlow Serving cannot be reached ({error.message})"
            )
            return {"tfs": (False, self._quoting(reason, *self._failures))}
        self._timeouts = 0
        TFS_UP.set(1)
        self._failures.pop("", None)
        results: Results = {"tfs": (True, "TensorFlow Serving answers")}
        for name, answer in zip(names, answers, strict=True):
            if name:
                ok, reason = judge(answer, self._models[name])
                if ok:
                    self._failures.pop(name, None)
                results[f"model:{name}"] = ok, reason if ok else self._quoting(reason, name)
        return results

    def _quoting(self, reason: str, *models: str) -> str:
        """`reason`, and what TFS's log says of these."""
        said = [self._failures[model] for model in models if model in self._failures]
        return f"{reason}; its log says: {' · '.join(said)}" if said else reason

    async def _status(self, name: str) -> serving_pb2.GetModelStatusResponse:
        request = serving_pb2.GetModelStatusRequest(model_spec=serving_pb2.ModelSpec(name=name))
        try:
            answer = await self._connection.ask(STATUS, request.SerializeToString(), TIMEOUT_SECONDS)
        except CallFailed as error:
            if error.code is grpc.StatusCode.NOT_FOUND:  # it answers; it has no such model (yet)
                return serving_pb2.GetModelStatusResponse()
            raise
        return serving_pb2.GetModelStatusResponse.FromString(answer)


def judge(status: serving_pb2.GetModelStatusResponse, version: int) -> tuple[bool, str]:
    """Whether exactly `version` is AVAILABLE, and what is there instead."""
    versions = {entry.version: entry for entry in status.model_version_status}
    available = sorted(number for number, entry in versions.items() if entry.state == _State.AVAILABLE)
    if available == [version]:
        return True, f"version {version} is AVAILABLE"
    if version in versions and versions[version].status.error_code:
        return False, f"version {version} failed: {versions[version].status.error_message[:1024]}"
    found = ", ".join(f"version {n} {_State.Name(e.state)}" for n, e in sorted(versions.items())) or "no version"
    return False, f"expected version {version} AVAILABLE, found {found}"
