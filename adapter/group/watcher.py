"""Watches TensorFlow Serving over its socket and feeds the group's checks: is it there, does it serve the right version.

TFS's own gRPC health service is no help: it says SERVING once and never changes (model_servers/server.cc). So the model
status is asked: often while something changes, seldom while all is well, and at once when something hints at a change:
the connection is lost, a call fails, TFS's log tells of a failure, its monitoring page cannot be had.

    interval   0.1 s until ready, and for a minute of not being ready; then, and while ready, 0.5 s
    dead       noticed with the connection, within milliseconds
    hung       two questions without an answer, 0.4 s each: at most 1.3 s
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import grpc

from adapter.errors import CallFailed
from adapter.group.state import TFS, WARM_UP, Group, Transition
from adapter.group.warmup import WarmUp
from adapter.inference.calls import STATUS, Connection
from adapter.pb import serving_pb2
from adapter.telemetry.metrics import TFS_UP, tfs_restarted

CHANGING_SECONDS = 0.1
STEADY_SECONDS = 0.5
# After so long without becoming ready (a large model loads, a task is down), a tenth of a second is no news any more.
PATIENCE_SECONDS = 60.0
TIMEOUT_SECONDS = 0.4
# A loaded TFS may answer late once; twice means that it hangs.
TIMEOUTS_TOLERATED = 1
WARM_UP_AGAIN_SECONDS = 1.0

_State = serving_pb2.ModelVersionStatus.State

Results = dict[str, tuple[bool, str]]


class Watcher:
    """Asks for the status of `models` (name → version) and tells `group`. Without models: does TFS answer at all.

    `warm_up` is run whenever every model has become available; `tell` hears of each change of the group's state.
    """

    def __init__(
        self,
        group: Group,
        connection: Connection,
        models: Mapping[str, int],
        tell: Callable[[Transition | None], None],
        warm_up: WarmUp | None = None,
    ) -> None:
        self._group = group
        self._connection = connection
        self._models = models
        self._tell = tell
        self._warmth = Warmth(warm_up, self.look) if warm_up is not None else None
        self._now = asyncio.Event()
        self._timeouts = 0
        self._failures: dict[str, str] = {}
        self._was_lost = False
        connection.on_unavailable = self.look
        connection.on_lost = self._lost

    async def run(self) -> None:
        """Watch until cancelled."""
        lost = asyncio.create_task(self._connection.watch())
        try:
            while True:
                await self._turn()
        finally:
            lost.cancel()
            if self._warmth is not None:
                self._warmth.cool()

    def look(self) -> None:
        """Something may have changed: ask now."""
        self._now.set()

    def note_failure(self, model: str, text: str) -> None:
        """TFS's own log says that `model` ("": the server itself) failed: the checks quote it until they pass.

        Its status API says so only at the end of all retries, and answers nobody during the first load.
        """
        if model in self._models or not model:
            self._failures[model] = text[:1024]
            self.look()

    def _lost(self) -> None:
        """The connection is gone, and with it the process: however soon the next one answers, it has to be warmed."""
        self._was_lost = True
        if self._warmth is not None:
            self._warmth.cool()
        self.look()

    async def _turn(self) -> None:
        began = time.monotonic()
        self._now.clear()
        results = await self._check()
        if results is None:
            return  # no answer: ask again at once
        if self._warmth is not None:
            rest = (check.ok for name, check in self._group.checks.items() if name not in results and name != WARM_UP)
            results[WARM_UP] = self._warmth.result(all(ok for ok, _ in results.values()), all(rest))
        self._tell(self._group.observe(results, time.time()))
        with suppress(TimeoutError):
            async with asyncio.timeout(self._interval()):
                await self._now.wait()
        # However many calls fail or lines are written, once in each half of the short interval is enough.
        await asyncio.sleep(max(0.0, began + CHANGING_SECONDS / 2 - time.monotonic()))

    def _interval(self) -> float:
        changing = not self._group.ready and time.time() - self._group.since < PATIENCE_SECONDS
        return CHANGING_SECONDS if changing else STEADY_SECONDS

    async def _check(self) -> Results | None:
        """The checks' results, or None while it cannot be told yet."""
        names = list(self._models) or [""]
        try:
            answers = await asyncio.gather(*(self._status(name) for name in names))
        except CallFailed as error:
            if error.code is grpc.StatusCode.DEADLINE_EXCEEDED:
                self._timeouts += 1
                if self._timeouts <= TIMEOUTS_TOLERATED:
                    return None
                self._group.hung_since = self._group.hung_since or time.time()
                self._connection.hung = True
                reason = f"TensorFlow Serving does not answer within {TIMEOUT_SECONDS} s"
            else:
                self._answers()
                reason = f"TensorFlow Serving cannot be reached ({error.message})"
            TFS_UP.set(0)
            unknown = False, "not known while TensorFlow Serving does not answer"
            return {
                TFS: (False, self._quoting(reason, *self._failures)),
                **{f"model:{m}": unknown for m in self._models},
            }
        self._answers()
        TFS_UP.set(1)
        if self._was_lost:
            self._was_lost = False
            tfs_restarted()
        self._failures.pop("", None)
        results: Results = {TFS: (True, "TensorFlow Serving answers")}
        for name, answer in zip(names, answers, strict=True):
            if name:
                ok, reason = judge(answer, self._models[name])
                if ok:
                    self._failures.pop(name, None)
                results[f"model:{name}"] = ok, reason if ok else self._quoting(reason, name)
        return results

    def _answers(self) -> None:
        """It is not hung: it has answered, or is not there."""
        self._timeouts = 0
        self._group.hung_since = None
        self._connection.hung = False

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


class Warmth:
    """Whether the warm-up has passed since the models became available; `changed` is called when one has ended."""

    def __init__(self, warm_up: WarmUp, changed: Callable[[], None]) -> None:
        self._warm_up = warm_up
        self._changed = changed
        self._task: asyncio.Task[None] | None = None
        self._passed = False
        self._problem = ""

    def result(self, served: bool, usable: bool) -> tuple[bool, str]:
        """The check's result; begins the warm-up when there is one to begin.

        `served`: every model is served now; otherwise the warmth is gone. `usable`: so is the rest, such as the handler.
        """
        if not served:
            self.cool()
            return False, "waits for the models"
        if self._passed:
            return True, f"{self._warm_up.size} requests answered"
        if self._task is None and not usable:
            return False, "waits for the other checks"
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return False, self._problem or "sending the bundle's warm-up requests"

    def cool(self) -> None:
        """What has been warmed is gone, or was never served."""
        self._passed, self._problem = False, ""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self) -> None:
        """Until it passes; a failure is told at once, and tried again."""
        while (problem := await self._warm_up.run()) is not None:
            self._problem = problem
            self._changed()
            await asyncio.sleep(WARM_UP_AGAIN_SECONDS)
        self._passed = True
        self._changed()


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
