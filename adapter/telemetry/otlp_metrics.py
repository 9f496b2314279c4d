"""The page's figures as OpenTelemetry's: the same families, under the conventions' names where these have one.

    http_server_request_duration_seconds{http_request_method="POST"}   http.server.request.duration, s, http.request.method
    tandem_call_retries_total                                          tandem_call_retries
    tensorflow_serving_request_latency_seconds                         the same, s

A backend that writes them as Prometheus metrics (the Collector's exporter) arrives at the page's names again. Counts are
cumulative: the adapter's since it started, TensorFlow Serving's since it did.
"""

import time
from collections.abc import Iterable, Iterator, Mapping

from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import Histogram as HistogramData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import CollectorRegistry
from prometheus_client.samples import Sample

from adapter.telemetry.exposition import Family, Histogram
from adapter.telemetry.tfs_page import Kind, Labels

NAMES = {
    "http_server_request_duration_seconds": "http.server.request.duration",
    "http_server_active_requests": "http.server.active_requests",
    "rpc_client_call_duration_seconds": "rpc.client.call.duration",
}
ATTRIBUTES = {
    "http_request_method": "http.request.method",
    "http_route": "http.route",
    "http_response_status_code": "http.response.status_code",
    "rpc_method": "rpc.method",
    "rpc_response_status_code": "rpc.response.status_code",
}
_KINDS: Mapping[str, Kind] = {"counter": "counter", "gauge": "gauge"}
_CUMULATIVE = AggregationTemporality.CUMULATIVE
_STARTED = time.time_ns()

Exemplars = Mapping[tuple[str, Labels], list[Exemplar]]


def data(
    registry: CollectorRegistry,
    theirs: Iterable[Family],
    theirs_since: int,
    resource: Resource,
    scope: InstrumentationScope,
) -> MetricsData:
    """One push: the registry's metrics and the families of TensorFlow Serving, which counts since `theirs_since`."""
    now = time.time_ns()
    ours, exemplars = own_families(registry)
    metrics = [_metric(family, _STARTED, now, exemplars) for family in ours]
    metrics += [_metric(family, theirs_since, now, {}) for family in theirs]
    scoped = ScopeMetrics(scope, [metric for metric in metrics if metric.data.data_points], "")
    return MetricsData([ResourceMetrics(resource, [scoped], "")])


def own_families(registry: CollectorRegistry) -> tuple[list[Family], Exemplars]:
    """The registry's metrics, without `target_info`, which is the resource here; and the exemplars of its histograms."""
    families: list[Family] = []
    exemplars: dict[tuple[str, Labels], list[Exemplar]] = {}
    for metric in registry.collect():
        kind = _KINDS.get(metric.type)
        if kind is not None:
            family = Family(metric.name, kind, metric.documentation)
            family.values = {tuple(sample.labels.items()): sample.value for sample in metric.samples}
        elif metric.type == "histogram":
            family = Family(metric.name, "histogram", metric.documentation)
            for labels, histogram, found in _histograms(metric.samples):
                family.histograms[labels] = histogram
                if found:
                    exemplars[metric.name, labels] = found
        else:
            continue
        families.append(family)
    return families, exemplars


def _histograms(samples: Iterable[Sample]) -> Iterator[tuple[Labels, Histogram, list[Exemplar]]]:
    """Each labels' histogram: prometheus_client lists its buckets, its count and its sum in this order."""
    bounds: list[float] = []
    counts: list[int] = []
    exemplars: list[Exemplar] = []
    for sample in samples:
        if sample.name.endswith("_bucket"):
            bounds.append(float(sample.labels["le"]))
            counts.append(int(sample.value))
            if sample.exemplar is not None:
                found = sample.exemplar
                ids = int(found.labels["span_id"], 16), int(found.labels["trace_id"], 16)
                exemplars.append(Exemplar({}, found.value, int(float(found.timestamp or 0) * 1e9), *ids))
        elif sample.name.endswith("_sum"):
            yield tuple(sample.labels.items()), Histogram(bounds, counts, sample.value), exemplars
            bounds, counts, exemplars = [], [], []


def _metric(family: Family, since: int, now: int, exemplars: Exemplars) -> Metric:
    unit = "s" if family.name.endswith("_seconds") else "By" if "_bytes" in family.name else ""
    return Metric(NAMES.get(family.name, family.name), family.help, unit, _data(family, since, now, exemplars))


def _data(family: Family, since: int, now: int, exemplars: Exemplars) -> Sum | Gauge | HistogramData:
    if family.kind == "histogram":
        points = [
            _point(labels, histogram, since, now, exemplars.get((family.name, labels), []))
            for labels, histogram in family.histograms.items()
        ]
        return HistogramData(points, _CUMULATIVE)
    counter = family.kind == "counter"
    numbers = [
        NumberDataPoint(_attributes(labels), since if counter else 0, now, value)
        for labels, value in family.values.items()
    ]
    return Sum(numbers, _CUMULATIVE, is_monotonic=True) if counter else Gauge(numbers)


def _point(labels: Labels, histogram: Histogram, since: int, now: int, exemplars: list[Exemplar]) -> HistogramDataPoint:
    counts = [after - before for before, after in zip((0, *histogram.counts), histogram.counts, strict=False)]
    none: float = None  # type: ignore[assignment]  # the format leaves the extremes out where they are not known
    return HistogramDataPoint(
        _attributes(labels),
        since,
        now,
        histogram.counts[-1],
        histogram.sum,
        counts,
        histogram.bounds[:-1],
        none,
        none,
        exemplars,
    )


def _attributes(labels: Labels) -> dict[str, str | int]:
    found: dict[str, str | int] = {ATTRIBUTES.get(name, name): value for name, value in labels}
    status = found.get("http.response.status_code")
    if status is not None:
        found["http.response.status_code"] = int(status)
    return found
