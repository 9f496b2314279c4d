"""What TensorFlow Serving's metrics are called on our page, and in which unit they stand there.

:tensorflow:serving:request_count            counter    tensorflow_serving_request_count_total
:tensorflow:serving:request_latency          histogram  tensorflow_serving_request_latency_seconds          µs ÷ 10^6
:tensorflow:core:graph_run_time_usecs        counter    tensorflow_core_graph_run_time_seconds_total        µs ÷ 10^6
:tensorflow:core:graph_run_time_usecs_histogram  hist.  tensorflow_core_graph_run_time_distribution_seconds µs ÷ 10^6

The rule, in the order of its steps (Prometheus' "Metric and label naming"; OpenMetrics 1.0, "Suffixes"):
1. Colons, kept for recording rules, become `_`; the first one goes.
2. A type's name goes out of the metric's: `_gauge`, `_counter`; `_histogram` becomes `_distribution`, since TensorFlow
   has a counter of the same name beside it.
3. Times are in seconds and say so at the end. What is a time is known by its name (`…_usecs`, `…latency`, `…duration`)
   or, where the name is silent, from what TensorFlow's source says of it.
4. Counters, and they alone, end in `_total`.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

_UNITS = {"us": 6, "usec": 6, "usecs": 6, "micros": 6, "ms": 3, "msec": 3, "msecs": 3, "millis": 3}
_UNIT_WORD = re.compile(rf"_({'|'.join(_UNITS)})(?=_|$)")
_MICROSECONDS = re.compile(r"_latency(_by_stage)?$|_durations?$")
_SILENT = {
    # T: core/framework/metrics.cc, core/data/service, core/common_runtime, python/lib/io (their descriptions)
    "tensorflow_core_bfc_allocator_delay": 6,
    "tensorflow_core_checkpoint_write_training_time_saved": 6,
    "tensorflow_data_iterator_busy": 6,
    "tensorflow_data_iterator_gap": 3,  # alone in milliseconds
    "tensorflow_data_iterator_lifetime": 6,
    "tensorflow_data_pipeline_processing_time": 6,
    "tensorflow_tpu_variable_distribution_time": 6,
}


@dataclass(frozen=True, slots=True)
class Target:
    """`name` of the family (a counter's samples add `_total`), `help`, and `shift`: divide by 10 to this power."""

    name: str
    help: str
    shift: int


@lru_cache(maxsize=4096)
def target(source: str) -> Target:
    """The name, description and unit for the metric that TensorFlow Serving calls `source`."""
    name = source.lstrip(":").replace(":", "_") or "_"
    if name[0].isdigit():
        name = f"_{name}"
    name = re.sub(r"_(gauge|counter)(?=_|$)", "", name)
    name = re.sub(r"_histogram(?=_|$)", "_distribution", name)
    name = name.removesuffix("_total")
    shift = _SILENT.get(name, 6 if _MICROSECONDS.search(name) else 0)
    word = _UNIT_WORD.search(name)
    if word:
        shift = _UNITS[word[1]]
        name = name[: word.start()] + name[word.end() :]
    unit = ""
    if shift:
        name += "_seconds"
        unit = {3: ", milliseconds there", 6: ", microseconds there"}[shift]
    return Target(name, f"TensorFlow Serving's {source}{unit}.", shift)
