"""TensorFlow Serving's page on ours: names, units, types, and bounds whatever strangers send."""

import math
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter.inference.turns import at_once
from adapter.telemetry import exposition, tfs_metrics, tfs_page
from adapter.telemetry.exposition import OPENMETRICS, TEXT
from adapter.telemetry.tfs_names import target
from tests.metrics import Page, promtool_complaints, read_openmetrics, read_text, value

DATA = Path(__file__).parents[2] / "golden" / "data"
RECORDED = (DATA / "metrics_after_rest.txt").read_text()
TYPES = dict(line.split() for line in (DATA / "metric_types.txt").read_text().splitlines())
MODELS = {"half_plus_two", "examples", "multi"}
SERVING = "tensorflow_serving"


def converted(page: str, known: set[str] = MODELS, max_samples: int = 50_000) -> tfs_metrics.Converted:
    return at_once(tfs_metrics.convert(at_once(tfs_page.parse(page)), known, max_samples))


def rendered(page: str, content_type: str, known: set[str] = MODELS) -> bytes:
    end = b"# EOF\n" if content_type == OPENMETRICS else b""
    return at_once(exposition.render(converted(page, known).families, content_type)) + end


def read(page: str, known: set[str] = MODELS) -> Page:
    """The page as both parsers read it, which must agree."""
    openmetrics, text = read_openmetrics(rendered(page, OPENMETRICS, known)), read_text(rendered(page, TEXT, known))
    assert {n: f.samples for n, f in openmetrics.items()} == {n: f.samples for n, f in text.items()}
    return openmetrics


def escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"")  # as TFS does: line feeds stay


# Names and types


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (":tensorflow:serving:request_count", "tensorflow_serving_request_count"),
        (":tensorflow:serving:request_example_count_total", "tensorflow_serving_request_example_count"),
        (":tensorflow:serving:request_latency", "tensorflow_serving_request_latency_seconds"),
        (":tensorflow:cc:saved_model:load_latency_by_stage", "tensorflow_cc_saved_model_load_latency_by_stage_seconds"),
        (":tensorflow:core:graph_run_time_usecs", "tensorflow_core_graph_run_time_seconds"),
        (":tensorflow:core:graph_run_time_usecs_histogram", "tensorflow_core_graph_run_time_distribution_seconds"),
        (":tensorflow:core:xla_launch_counter", "tensorflow_core_xla_launch"),
        (":tensorflow:serving:batching:batch_delay_us", "tensorflow_serving_batching_batch_delay_seconds"),
        (":tensorflow:core:use_dynamic_padding_gauge", "tensorflow_core_use_dynamic_padding"),
        ("_2nd:thing", "_2nd_thing"),
        (":", "_"),
    ],
)
def test_a_name_follows_the_rule(source: str, name: str) -> None:
    assert target(source).name == name


def test_every_recorded_metric_is_on_the_page_with_its_type_and_a_description() -> None:
    recorded = dict(re.findall(r"^# TYPE (\S+) (\S+)$", RECORDED, re.MULTILINE))
    page = read(RECORDED)
    assert {target(name).name: kind for name, kind in recorded.items()} == {n: f.type for n, f in page.items()}
    for source in recorded:
        assert source in page[target(source).name].documentation


def test_every_metric_that_a_stock_server_has_keeps_its_type_and_a_name_of_its_own() -> None:
    page = "".join(f"# TYPE {name} {kind}\n" for name, kind in TYPES.items())
    assert {n: f.type for n, f in read(page).items()} == {target(name).name: kind for name, kind in TYPES.items()}
    assert len({target(name).name for name in TYPES}) == len(TYPES)


def test_promtool_has_nothing_to_say_about_any_metric_that_a_stock_server_has() -> None:
    cells = {
        "histogram": '{0}_bucket{{le="10"}} 1\n{0}_bucket{{le="+Inf"}} 1\n{0}_sum{{}} 1\n{0}_count{{}} 1\n',
        "counter": "{0}{{}} 1\n",
        "gauge": "{0}{{}} 1\n",
    }
    page = "".join(f"# TYPE {name} {kind}\n{cells[kind].format(name)}" for name, kind in TYPES.items())
    assert promtool_complaints(rendered(page, TEXT)) == ""
    assert promtool_complaints(rendered(RECORDED, TEXT)) == ""


# Values


def test_every_recorded_sample_arrives_with_its_value_in_base_units() -> None:
    page = read(RECORDED, {*MODELS, "", "nope", "half_plus_two?x=1"})
    samples = {(s.name, frozenset(s.labels.items())): s.value for family in page.values() for s in family.samples}
    source_samples = re.findall(r"^(:[\w:]+)\{(.*)\} (\S+)$", RECORDED, re.MULTILINE)
    assert len(source_samples) == len(samples) > 900
    for name, pairs, number in source_samples:
        labels = dict(re.findall(r'(\w+)="([^"]*)"', pairs))
        part = re.search(r"_(bucket|sum|count)$", name)
        histogram = part is not None and TYPES.get(name[: part.start()]) == "histogram"
        source = name[: part.start()] if part is not None and histogram else name
        wanted = target(source)
        suffix = part[0] if part is not None and histogram else "_total" if TYPES[source] == "counter" else ""
        if "le" in labels:
            shifted = float(labels["le"]) / 10**wanted.shift
            labels["le"] = next(
                s.labels["le"]
                for s in page[wanted.name].samples
                if "le" in s.labels and math.isclose(float(s.labels["le"]), shifted)
            )
        expected = float(number) / (10**wanted.shift if suffix not in ("_bucket", "_count") else 1)
        assert samples[wanted.name + suffix, frozenset(labels.items())] == pytest.approx(expected), name


def test_bounds_move_by_decimal_places_and_lose_nothing() -> None:
    page = read(RECORDED)
    bounds = {s.labels["le"] for s in page[f"{SERVING}_request_latency_seconds"].samples if "le" in s.labels}
    source = set(re.findall(r':request_latency_bucket.*le="([^"]+)"', RECORDED))
    assert len(bounds) == len(source) == 34
    # Divided as doubles, 104.976 and 16834.1 would be 0.00010497599999999999 and 0.016834099999999998.
    assert {"1e-05", "3.24e-05", "0.000104976", "1.27482", "252.873", "+Inf"} <= bounds


def test_a_counter_beyond_what_a_double_holds_keeps_its_last_digit() -> None:
    page = "# TYPE :a counter\n:a{} 9007199254740993\n"
    assert b"a_total 9007199254740993\n" in rendered(page, TEXT)


def test_milliseconds_are_told_from_microseconds() -> None:
    page = '# TYPE :tensorflow:data:iterator_gap histogram\n:tensorflow:data:iterator_gap_bucket{le="+Inf"} 1\n'
    page += ":tensorflow:data:iterator_gap_sum{} 1500\n:tensorflow:data:iterator_gap_count{} 1\n"
    assert value(read(page), "tensorflow_data_iterator_gap_seconds_sum") == 1.5


def test_values_that_are_not_finite_stay_so_in_gauges() -> None:
    page = '# TYPE :g gauge\n:g{a="1"} NaN\n:g{a="2"} +Inf\n:g{a="3"} -Inf\n:g{a="4"} -2.5e-3\n'
    values = [s.value for s in read_openmetrics(rendered(page, OPENMETRICS))["g"].samples]
    assert math.isnan(values[0])
    assert values[1:] == [math.inf, -math.inf, -0.0025]


def test_what_has_no_type_or_one_that_tfs_does_not_have_is_unknown() -> None:
    page = ':plain{} 7\n# TYPE :u untyped\n:u{} 1\n# TYPE :s summary\n:s{quantile="0.5"} 2\n:s_sum{} 3\n:s_count{} 4\n'
    families = read_openmetrics(rendered(page, OPENMETRICS))
    assert {name: family.type for name, family in families.items()} == dict.fromkeys(
        ("plain", "u", "s", "s_sum", "s_count"), "unknown"
    )


# Folding


def test_models_that_are_not_known_are_summed_under_one_name() -> None:
    page = read(RECORDED)
    requests = f"{SERVING}_request_count_total"
    assert value(page, requests, model_name="other", status="NOT_FOUND") == 4 + 1
    assert value(page, requests, model_name="other", status="INVALID_ARGUMENT") == 14
    assert value(page, requests, model_name="half_plus_two", status="NOT_FOUND") == 4
    assert value(page, requests, model_name="nope", status="NOT_FOUND") is None


def test_histograms_of_unknown_models_are_summed_bucket_by_bucket() -> None:
    page = "# TYPE :h histogram\n"
    for model, first, all_, total in (("a", 1, 2, 10), ("b", 3, 5, 20), ("m", 7, 7, 30)):
        page += (
            f':h_bucket{{model_name="{model}",le="1"}} {first}\n:h_bucket{{model_name="{model}",le="+Inf"}} {all_}\n'
        )
        page += f':h_sum{{model_name="{model}"}} {total}\n:h_count{{model_name="{model}"}} {all_}\n'
    found = {
        (s.name, s.labels.get("le")): s.value
        for s in read(page, {"m"})["h"].samples
        if s.labels["model_name"] == "other"
    }
    assert found == {("h_bucket", "1.0"): 4, ("h_bucket", "+Inf"): 7, ("h_sum", None): 30, ("h_count", None): 7}


def test_gauges_are_the_servers_own_and_stay() -> None:
    page = '# TYPE :g gauge\n:g{model_name="a"} 1\n:g{model_name="b"} 2\n'
    assert [s.labels["model_name"] for s in read(page)["g"].samples] == ["a", "b"]


def test_a_model_is_known_when_it_was_loaded_or_answered_once() -> None:
    page = at_once(tfs_page.parse(RECORDED))
    assert set(tfs_metrics.models_on(page)) == MODELS


def test_the_number_of_samples_is_bounded_and_what_is_left_out_is_counted() -> None:
    page = "# TYPE :g gauge\n" + "".join(f':g{{n="{i}"}} {i}\n' for i in range(100))
    result = converted(page, max_samples=30)
    assert (result.samples, result.skipped) == (30, 70)
    assert len(result.families[0].values) == 30


# Whatever comes


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_label_value_goes_round(text: str) -> None:
    page = f'# TYPE :c counter\n:c{{a="{escaped(text)}",b="x"}} 5\n'
    for content_type, parser in ((OPENMETRICS, read_openmetrics), (TEXT, read_text)):
        (sample,) = parser(rendered(page, content_type))["c"].samples
        assert sample.labels == {"a": text, "b": "x"}


def test_a_model_name_cannot_forge_a_sample() -> None:
    name = escaped('x"} 1\n:tensorflow:core:direct_session_runs{} 99\n# TYPE :evil counter\n:evil{} 1')
    page = "# TYPE :tensorflow:core:direct_session_runs counter\n:tensorflow:core:direct_session_runs{} 1\n"
    page += f'# TYPE :tensorflow:serving:request_count counter\n:tensorflow:serving:request_count{{model_name="{name}"}} 3\n'
    found = read(page)
    assert set(found) == {"tensorflow_core_direct_session_runs", "tensorflow_serving_request_count"}
    assert value(found, "tensorflow_core_direct_session_runs_total") == 1
    assert value(found, "tensorflow_serving_request_count_total", model_name="other") == 3


@pytest.mark.parametrize(
    "line",
    [
        "no value",
        ":a{",
        ':a{x="1} 1',
        ':a{x="1",x="2"} 1',
        ":a{x=1} 1",
        ":a{} one",
        ":a{} 1_000",
        ":c{} -1",
        ":c{} NaN",
        ':h_bucket{le="1"} 1',
        ':h_bucket{le="one"} 1\n:h_bucket{le="+Inf"} 1\n:h_sum{} 1\n:h_count{} 1',
        ':h_bucket{le="2"} 1\n:h_bucket{le="1"} 1\n:h_bucket{le="+Inf"} 1\n:h_sum{} 1\n:h_count{} 1',
        ':h_bucket{le="1"} 2\n:h_bucket{le="+Inf"} 1\n:h_sum{} 1\n:h_count{} 1',
        ':h_bucket{le="1"} 1\n:h_bucket{le="+Inf"} 2\n:h_sum{} 1\n:h_count{} 1',
        ':h_bucket{le="1"} 1\n:h_sum{} 1\n:h_count{} 1',
        ':h_bucket{le="+Inf"} 1\n:h_sum{} NaN\n:h_count{} 1',
        ":h{} 1",
        ":tandem:tfs_up{} 1",
        ":c_total{} 1",
    ],
)
def test_what_makes_no_sense_is_left_out_and_counted(line: str) -> None:
    page = f"# TYPE :c counter\n# TYPE :h histogram\n{line}\n# TYPE :good gauge\n:good{{}} 1\n"
    assert converted(page).skipped > 0
    assert [s for family in read(page).values() for s in family.samples if s.name != "good"] == []


_LINES = st.sampled_from(RECORDED.splitlines()[:60] + RECORDED.splitlines()[-200:])
_PIECES = st.one_of(
    _LINES, st.text(max_size=20), st.sampled_from(["\n", '"', "{", "}", "\\", "# TYPE ", ' le="', "NaN"])
)


@given(st.lists(_PIECES, max_size=40).map("".join) | st.lists(_PIECES, max_size=40).map("\n".join))
def test_no_page_raises_and_what_is_left_of_it_is_valid(page: str) -> None:
    read_openmetrics(rendered(page, OPENMETRICS))
    read_text(rendered(page, TEXT))


@given(st.integers(0, len(RECORDED)), st.integers(0, 200), st.text(max_size=5))
def test_the_recorded_page_with_a_hole_in_it_is_still_valid(start: int, length: int, filling: str) -> None:
    around = RECORDED[max(0, start - 3000) : start] + filling + RECORDED[start + length : start + length + 3000]
    read_openmetrics(rendered(around, OPENMETRICS))


# Time


def test_a_page_of_eight_mebibytes_is_read_in_many_pieces() -> None:
    page = (RECORDED * (8 * 2**20 // len(RECORDED) + 1))[: 8 << 20]
    assert sum(1 for _ in tfs_page.parse(page)) > 100


@pytest.mark.parametrize("piece", ['a{"', 'a{b="', "a{b=", 'a{b="\\', "{", "a "])
def test_no_page_takes_time_beyond_its_length_before_it_gives_way(piece: str) -> None:
    steps = tfs_page.parse(piece * (2**20 // len(piece)))
    started = time.process_time()
    next(steps, None)
    assert time.process_time() - started < 1  # linear: a hundredth of that; quadratic: hours
