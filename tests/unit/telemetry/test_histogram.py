"""Our histogram is what prometheus_client's would be."""

import prometheus_client
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from adapter.telemetry.histogram import Histogram

BOUNDS = (0.1, 1.0, 2.5)


@given(st.lists(st.one_of(st.sampled_from([*BOUNDS, 0.0, 3.0]), st.floats(0, 10)), max_size=20))
def test_it_renders_what_the_library_renders(values: list[float]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    mine = Histogram("h", "Help.", ["a"], BOUNDS, ours).labels("x")
    other = prometheus_client.Histogram("h", "Help.", ["a"], buckets=BOUNDS, registry=theirs).labels("x")
    for value in values:
        mine.observe(value)
        other.observe(value)

    def page(registry: CollectorRegistry) -> list[str]:
        lines = generate_latest(registry).decode().splitlines()
        return [line for line in lines if "_created" not in line]

    assert page(ours) == page(theirs)


def test_a_child_is_made_once() -> None:
    histogram = Histogram("h", "Help.", ["a"], BOUNDS, CollectorRegistry())
    assert histogram.labels("x") is histogram.labels("x")
    assert histogram.labels("x") is not histogram.labels("y")
