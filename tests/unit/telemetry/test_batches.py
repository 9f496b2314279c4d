"""The queue between the event loop and the collector: bounded, counted, emptied at the end."""

import threading
from collections.abc import Sequence

import pytest

from adapter.telemetry.batches import Batches, Bounds, bounds
from adapter.telemetry.metrics import OTLP_DROPPED, OTLP_EXPORTED


class Collector:
    """Takes batches once its gate is open, or fails."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.taking = threading.Event()
        self.batches: list[Sequence[int]] = []
        self.failure: Exception | None = None

    def __call__(self, batch: Sequence[int]) -> bool:
        self.taking.set()
        self.gate.wait(30)
        if self.failure is not None:
            raise self.failure
        self.batches.append(batch)
        return True


def counts(signal: str) -> tuple[float, float]:
    return OTLP_EXPORTED.labels(signal)._value.get(), OTLP_DROPPED.labels(signal)._value.get()


def test_what_is_added_arrives_in_batches_and_in_order() -> None:
    collector = Collector()
    collector.gate.set()
    batches = Batches("a", collector, Bounds(queue=100, batch=10, delay=60), lambda: "")
    for number in range(25):
        batches.add(number)
    batches.close(30)
    assert [number for batch in collector.batches for number in batch] == list(range(25))
    assert max(len(batch) for batch in collector.batches) <= 10
    assert counts("a") == (25, 0)


def test_a_full_queue_loses_its_oldest_and_counts_them() -> None:
    collector = Collector()
    batches = Batches("b", collector, Bounds(queue=10, batch=5, delay=60), lambda: "")
    for number in range(5):
        batches.add(number)
    assert collector.taking.wait(30)  # these five are on their way, to a collector that hangs
    for number in range(100, 130):
        batches.add(number)
    collector.gate.set()
    batches.close(30)
    assert [n for batch in collector.batches for n in batch] == [*range(5), *range(120, 130)]
    assert counts("b") == (15, 20)


def test_many_threads_may_add_at_one_time_and_every_item_is_sent_or_counted() -> None:
    collector = Collector()
    collector.gate.set()
    batches = Batches("e", collector, Bounds(queue=50, batch=10, delay=60), lambda: "")
    start = threading.Barrier(4)

    def add(first: int) -> None:
        start.wait(30)
        for number in range(first, first + 2000):
            batches.add(number)

    threads = [threading.Thread(target=add, args=(first,)) for first in range(0, 8000, 2000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    batches.close(30)
    sent = [number for batch in collector.batches for number in batch]
    exported, dropped = counts("e")
    assert len(sent) == len(set(sent)) == exported
    assert exported + dropped == 8000


def test_what_the_collector_does_not_take_is_counted_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    collector = Collector()
    collector.gate.set()
    collector.failure = OSError("no route")
    batches = Batches("c", collector, Bounds(queue=10, batch=1, delay=60), lambda: "")
    for number in range(3):
        batches.add(number)
    batches.close(30)
    assert counts("c") == (0, 3)
    assert [record.getMessage() for record in caplog.records] == ["C cannot be delivered by OTLP: OSError: no route"]


def test_a_collector_that_hangs_does_not_keep_the_process() -> None:
    collector = Collector()
    batches = Batches("d", collector, Bounds(queue=10, batch=2, delay=60), lambda: "")
    for number in range(6):
        batches.add(number)
    assert collector.taking.wait(30)
    batches.close(0.01)
    assert counts("d") == (0, 4)  # the two on their way may still arrive
    collector.gate.set()


def test_the_bounds_are_the_specifications_variables_and_nonsense_counts_as_unset() -> None:
    environ = {"OTEL_BSP_MAX_QUEUE_SIZE": "64", "OTEL_BSP_SCHEDULE_DELAY": "100"}
    assert bounds(environ, "OTEL_BSP", Bounds()) == Bounds(64, 64, 0.1)
    assert bounds({"OTEL_BSP_MAX_QUEUE_SIZE": "-1"}, "OTEL_BSP", Bounds()) == Bounds()
