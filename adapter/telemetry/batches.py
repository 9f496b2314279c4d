"""A bounded queue and a thread that empties it: how telemetry leaves without ever being in a request's way.

    event loop ── add ──► queue (full: the oldest is dropped, and counted) ── batches ──► thread ── export ──► collector

The SDK's batch processors do the same but count neither what they drop nor what their exporters fail to deliver, and let
exporting take whatever processor time it wants: here it gets `SHARE` of one core, because a thread of ours and the event
loop take turns at Python's lock. OTEL_BSP_* and OTEL_BLRP_* mean here what they mean there.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from adapter.telemetry.metrics import OTLP_DROPPED, OTLP_EXPORTED, OTLP_QUEUED

SHARE = 0.2

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Items that may wait, items in one batch, and seconds that the first may wait."""

    queue: int = 2048
    batch: int = 512
    delay: float = 5.0


def bounds(environ: Mapping[str, str], prefix: str, default: Bounds) -> Bounds:
    """`<prefix>_MAX_QUEUE_SIZE`, `_MAX_EXPORT_BATCH_SIZE` and `_SCHEDULE_DELAY` (milliseconds); nonsense counts as unset."""
    queue = _number(environ.get(f"{prefix}_MAX_QUEUE_SIZE"), default.queue)
    batch = _number(environ.get(f"{prefix}_MAX_EXPORT_BATCH_SIZE"), min(default.batch, queue))
    delay = _number(environ.get(f"{prefix}_SCHEDULE_DELAY"), int(default.delay * 1000))
    return Bounds(queue, min(batch, queue), delay / 1000)


def _number(text: str | None, default: int) -> int:
    return int(text) if text and text.isdecimal() and 0 < int(text) < 1 << 31 else default


class Batches(Generic[T]):
    """Items of `signal` to `export`, which says whether they arrived. `problem()` is why they did not."""

    def __init__(
        self, signal: str, export: Callable[[Sequence[T]], bool], bounds: Bounds, problem: Callable[[], str]
    ) -> None:
        self._signal = signal
        self._export = export
        self._bounds = bounds
        self._problem = problem
        self._queue: deque[T] = deque()
        self._more = threading.Event()
        self._closing = threading.Event()
        self._failing = False
        self._dropped = OTLP_DROPPED.labels(signal)
        self._exported = OTLP_EXPORTED.labels(signal)
        OTLP_QUEUED.labels(signal).set_function(lambda: len(self._queue))
        self._thread = threading.Thread(target=self._run, name=f"otlp-{signal}", daemon=True)
        self._thread.start()

    def add(self, item: T) -> None:
        """Queue it, from any thread. Costs a fraction of a microsecond, whatever the collector does."""
        queue = self._queue
        while len(queue) >= self._bounds.queue:
            try:
                queue.popleft()
            except IndexError:  # just now taken
                break
            self._dropped.inc()
        queue.append(item)
        if len(queue) >= self._bounds.batch and not self._more.is_set():
            self._more.set()

    def close(self, seconds: float) -> None:
        """Send what waits, for so many seconds at most; what is left counts as dropped. Blocks: not on the event loop."""
        self._closing.set()
        self._more.set()
        self._thread.join(seconds)
        left = len(self._queue)
        if left:
            self._queue.clear()
            self._dropped.inc(left)

    def _run(self) -> None:
        while not self._closing.is_set():
            self._more.wait(self._bounds.delay)
            self._more.clear()
            self._send_batch()
            while len(self._queue) >= self._bounds.batch and not self._closing.is_set():
                self._send_batch()
        while self._queue:
            self._send_batch()

    def _send_batch(self) -> None:
        batch: list[T] = []
        while self._queue and len(batch) < self._bounds.batch:
            batch.append(self._queue.popleft())
        if not batch:
            return
        began = time.thread_time()
        self._deliver(batch)
        self._closing.wait((time.thread_time() - began) * (1 / SHARE - 1))

    def _deliver(self, batch: list[T]) -> None:
        try:
            arrived, why = self._export(batch), ""
        except Exception as error:  # whatever an exporter raises, serving goes on and the next batch is tried
            arrived, why = False, f"{type(error).__name__}: {error}"
        (self._exported if arrived else self._dropped).inc(len(batch))
        if not arrived and not self._failing:
            log.warning("%s cannot be delivered by OTLP: %s", self._signal.capitalize(), why or self._problem())
        elif arrived and self._failing:
            log.info("%s are delivered by OTLP again", self._signal.capitalize())
        self._failing = not arrived
