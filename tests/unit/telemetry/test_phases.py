"""The histogram of a request's phases counts each as any histogram would."""

import pytest

from adapter.telemetry import metrics
from tests.metrics import read_text, value


def counted(phase: str, le: str) -> float:
    return value(read_text(metrics.page("")), "tandem_request_phase_seconds_bucket", phase=phase, le=le) or 0.0


@pytest.mark.parametrize(
    ("seconds", "under", "bucket"),
    [
        (0.0, None, "0.0001"),
        (0.0001, None, "0.0001"),
        (0.00011, "0.0001", "0.0005"),
        (0.0025, "0.0005", "0.0025"),
        (0.3, "0.25", "1.0"),
        (1.5, "1.0", "+Inf"),
    ],
)
def test_a_phase_is_in_the_first_bucket_that_holds_it(seconds: float, under: str | None, bucket: str) -> None:
    before = counted("handler", bucket), counted("handler", under) if under else 0.0
    metrics.observe_phases(0.0, [("handler", seconds)])
    assert counted("handler", bucket) == before[0] + 1
    assert under is None or counted("handler", under) == before[1]


def test_each_phase_begins_where_the_one_before_ended() -> None:
    was = [counted("read", "0.01"), counted("queue", "0.25"), counted("queue", "0.05")]
    metrics.observe_phases(10.0, [("read", 10.005), ("queue", 10.105)])
    assert [counted("read", "0.01"), counted("queue", "0.25"), counted("queue", "0.05")] == [
        was[0] + 1,
        was[1] + 1,
        was[2],
    ]
