"""TensorFlow Serving's page → families for ours: renamed, in base units, and bounded whatever strangers send.

The `model_name` that TensorFlow Serving counts a request under is what the client wrote, whether there is such a model or
not, and it never forgets one. Models that are not known fold into one label value, `other`: their counters and
histograms are summed. Gauges are set by the server alone and stay.
"""

import itertools
import math
import re
from collections.abc import Container, Generator, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache

from adapter.telemetry import tfs_page
from adapter.telemetry.exposition import Family, Histogram
from adapter.telemetry.tfs_names import target
from adapter.telemetry.tfs_page import Distribution, Labels, Number, Page

OTHER = "other"
MAX_SAMPLES = 50_000  # the lines of about a hundred models

_MODEL_LABELS = frozenset({"model_name", "model"})
_MODEL_PATH = re.compile(r"([^/]+)/\d+/?$")
# What only the adapter's own metrics are called; a page that claims such a name doesn't get it.
_OURS = ("tandem_", "http_", "rpc_", "process_", "python_", "target")


@dataclass(slots=True)
class Converted:
    """The families, the number of their samples, and what was left out: malformed, or beyond the bound."""

    families: list[Family] = field(default_factory=list)
    samples: int = 0
    skipped: int = 0


def models_on(page: Page) -> Iterator[str]:
    """Names that are models for sure: TensorFlow Serving loaded them, or answered a request to them with OK.

    A model's directory mostly has its name; where it hasn't, the first answer tells.
    """
    for labels in _cells(page, ":tensorflow:cc:saved_model:load_attempt_count"):
        path = _MODEL_PATH.search(labels.get("model_path", ""))
        if path and labels.get("status") == "success":
            yield path[1]
    for labels in _cells(page, ":tensorflow:serving:request_count"):
        if labels.get("status") == "OK" and labels.get("model_name"):
            yield labels["model_name"]


def _cells(page: Page, name: str) -> Iterator[dict[str, str]]:
    family = page.families.get(name)
    return map(dict, family.values if family else ())


def convert(page: Page, known: Container[str], max_samples: int = MAX_SAMPLES) -> Generator[None, None, Converted]:
    """Our families for a page, `known` being the models that keep their names; in steps of a few milliseconds."""
    result = Converted(skipped=page.skipped)
    taken: set[str] = set()
    for source in page.families.values():
        wanted = target(source.name)
        family = Family(wanted.name, source.kind, wanted.help)
        names = _names(family)
        if names & taken or wanted.name.startswith(_OURS):
            result.skipped += len(source.values) + len(source.distributions)
            continue
        taken |= names
        result.families.append(family)
        if source.kind == "histogram":
            yield from _histograms(source, wanted.shift, known, family, result, max_samples)
        else:
            _values(source, wanted.shift, known, family, result, max_samples)
            yield
    return result


def _names(family: Family) -> set[str]:
    """Every sample name that the family may have in OpenMetrics, whose parsers refuse a name with two meanings."""
    suffixes = {"counter": ("_total", "_created"), "histogram": ("_bucket", "_sum", "_count", "_created")}
    return {family.name, *(family.name + suffix for suffix in suffixes.get(family.kind, ()))}


def _values(
    source: tfs_page.Family, shift: int, known: Container[str], family: Family, result: Converted, max_samples: int
) -> None:
    counter = source.kind == "counter"
    sums: dict[Labels, Number] = {}
    for labels, value in source.values.items():
        if counter and not value >= 0:  # NaN, too
            result.skipped += 1
            continue
        key = _folded(labels, known) if counter else labels
        if key in sums:
            sums[key] += value
        elif result.samples >= max_samples:
            result.skipped += 1
        else:
            sums[key] = value
            result.samples += 1
    family.values = {labels: _shifted(value, shift) for labels, value in sums.items()} if shift else sums


def _histograms(
    source: tfs_page.Family, shift: int, known: Container[str], family: Family, result: Converted, max_samples: int
) -> Generator[None, None, None]:
    for number, (labels, cell) in enumerate(source.distributions.items(), 1):
        histogram = _histogram(cell, shift)
        key = _folded(labels, known)
        present = family.histograms.get(key)
        if histogram is None or (present is not None and present.bounds != histogram.bounds):
            result.skipped += 1
        elif present is not None:
            counts = [a + b for a, b in zip(present.counts, histogram.counts, strict=True)]
            family.histograms[key] = Histogram(present.bounds, counts, present.sum + histogram.sum)
        elif result.samples + len(histogram.counts) + 2 > max_samples:
            result.skipped += 1
        else:
            family.histograms[key] = histogram
            result.samples += len(histogram.counts) + 2
        if not number % 50:
            yield


def _histogram(cell: Distribution, shift: int) -> Histogram | None:
    """None where it is no whole histogram: bounds and counts must rise, and the last count is that of all."""
    counts = list(cell.buckets.values())
    bounds = _bounds(tuple(cell.buckets), shift)
    if not bounds or cell.sum is None or not cell.sum >= 0 or cell.count != counts[-1] or counts != sorted(counts):
        return None
    return Histogram(bounds, counts, _shifted(cell.sum, shift))


@lru_cache(maxsize=256)
def _bounds(texts: tuple[str, ...], shift: int) -> tuple[float, ...]:
    """The bounds, moved by decimal places: `104.976` µs is 0.000104976 s and not 0.00010497599999999999. () if unfit."""
    try:
        bounds = tuple(float(Decimal(text).scaleb(-shift)) for text in texts)
    except (ArithmeticError, ValueError):
        return ()
    rising = all(a < b for a, b in itertools.pairwise(bounds))
    return bounds if rising and bounds and bounds[0] >= 0 and bounds[-1] == math.inf else ()


def _shifted(value: Number, shift: int) -> Number:
    return value / 10**shift if shift else value


def _folded(labels: Labels, known: Container[str]) -> Labels:
    for name, value in labels:
        if name in _MODEL_LABELS and value not in known:
            return tuple((n, OTHER if n in _MODEL_LABELS and v not in known else v) for n, v in labels)
    return labels
