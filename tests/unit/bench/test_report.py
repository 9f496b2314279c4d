"""What the benchmark says of its samples."""

import os
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from adapter.inference.wire import model_spec, predict_request
from tests.bench.life import Beside, Idle, Largest
from tests.bench.measure import Sample, Samples
from tests.bench.observing import Observed
from tests.bench.peers import peers
from tests.bench.picture import picture
from tests.bench.processes import Cores, usage
from tests.bench.report import report
from tests.bench.workloads import V2_BINARY, workloads


def sample(peer: str, rate: float, number: int = 1, failure: str = "", workload: str = "small") -> Sample:
    return Sample(peer, workload, 64, number, 100, rate, 0.001, 0.002, 0.003, 100e-6, 10e-6, 80 << 20, failure)


def text(
    samples: Samples,
    beside: tuple[Beside, ...] = (),
    idle: Idle | None = None,
    seen: Observed | None = None,
    largest: Largest | None = None,
) -> str:
    left_out = {"kserve": "no wheel|here"}
    return report("A machine.", "Somehow.", samples, peers(), workloads(), left_out, idle, beside, seen, largest)


def test_a_ratio_is_the_median_of_the_ratios_within_each_round():
    """A slow round slows everybody: 100/20, 10/2 and 90/30 say 5, though the medians of the rates would say 4.5."""
    ours = [sample("tandem", rate, number) for number, rate in enumerate((100, 10, 90))]
    theirs = [sample("fastapi", rate, number) for number, rate in enumerate((20, 2, 30))]
    samples = Samples(ours + theirs)
    assert samples.ratio("rate", ("tandem", "small"), ("fastapi", "small"), 64) == 5


def test_one_failed_round_makes_the_peer_invalid():
    samples = Samples([sample("tandem", 10, 1), sample("tandem", 10, 2, failure="another answer than expected")])
    assert samples.median("rate", "tandem", "small", 64) is None
    assert "| tandem | *invalid: another answer than expected* |" in text(samples)


@pytest.mark.parametrize(
    ("rate", "said"), [(50, "| ≥ 5.00 | 5.00 | reached |"), (49, "| ≥ 5.00 | 4.90 | **missed** |")]
)
def test_a_goal_is_reached_or_missed(rate, said):
    assert said in text(Samples([sample("tandem", rate), sample("fastapi", 10)]))


def test_goals_against_peers_that_did_not_run_are_left_out():
    assert "tandem by kserve" not in text(Samples([sample("tandem", 50), sample("fastapi", 10)]))


def test_a_peer_that_did_not_run_is_named_with_the_reason():
    assert "| kserve | *left out: no wheel\\|here* |" in text(Samples([sample("tandem", 1)]))


def test_what_a_small_request_waits_behind_large_ones_is_judged_beyond_its_own_p99():
    beside = Beside("tandem", (0.001, 0.002, 0.003), (0.005, 0.021, 0.030), 10.0)
    assert "| ≤ 20.0 ms | 19.0 ms | reached |" in text(Samples([sample("tandem", 1)]), (beside,))


def test_what_anybody_waits_beside_a_body_near_the_limit_is_judged():
    found = text(Samples([sample("tandem", 1)]), largest=Largest(60_000_123, 0.021))
    assert "| `/health/live` beside a body of 60 MB: longest | ≤ 20.0 ms | 21.0 ms | **missed** |" in found


def test_idle_figures_are_judged():
    found = text(Samples([sample("tandem", 1)]), idle=Idle(start=0.8, ready=0.2, rss=97 << 20, cpu=0.004))
    assert "| memory when idle | ≤ 96 MiB | 97 MiB | **missed** |" in found
    assert "| CPU when idle | ≤ 0.99% | 0.40% | reached |" in found


def test_what_being_observed_takes_is_judged():
    found = text(Samples([sample("tandem", 1)]), seen=Observed(lines=49_000, added=1 << 20, page=0.0161, series=1077))
    assert "followed a second of CPU | ≥ 50,000 | 49,000 | **missed** |" in found
    assert "| memory that this takes | ≤ 8.0 MiB | 1.0 MiB | reached |" in found
    assert "| `/metrics` of 1,077 series: p50 of 200 | ≤ 20.0 ms | 16.1 ms | reached |" in found


def test_the_picture_has_a_bar_for_each_peer_and_workload():
    samples = Samples([sample("tandem", 50), sample("fastapi", 10), sample("tandem", 5, workload="large")])
    bars = [
        element for element in ElementTree.fromstring(picture(samples, workloads())).iter() if element.get("rx") == "2"
    ]
    assert len(bars) == 3


def test_a_workload_says_the_same_in_json_and_on_the_wire():
    small = workloads()["small"]
    _, body = small.v2_binary()
    assert body.endswith(small.tensor.data.tobytes())
    assert small.grpc() == predict_request(
        model_spec("half_plus_two", None, None, "serving_default"), {"x": small.tensor}
    )
    assert np.array_equal(np.array(small.instances, np.float32), small.tensor.data)


def test_a_binary_answer_is_read_by_its_own_length_of_header():
    head = b'{"outputs":[{"name":"y","shape":[1,2],"datatype":"FP32","parameters":{"binary_data_size":8}}]}'
    headers = {"Inference-Header-Content-Length": str(len(head))}
    assert V2_BINARY.y(headers, head + np.array([1, 2], np.float32).tobytes()).tolist() == [[1, 2]]


def test_usage_counts_this_process():
    found = usage(os.getpid())
    assert found.cpu > 0
    assert found.rss > 1 << 20


def test_peers_have_a_core_of_their_own_where_there_are_two():
    cores = Cores.of_this_machine()
    assert cores.peer | cores.rest == os.sched_getaffinity(0)
    assert len(os.sched_getaffinity(0)) == 1 or not cores.peer & cores.rest
