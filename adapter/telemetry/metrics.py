"""The adapter's own metrics, named after OpenTelemetry's semantic conventions (HTTP server, RPC client), seconds.

Children of every labelled metric are looked up once and kept, and what can be read when the page is drawn is read then
(`set_function`): a request pays for a few additions alone.
Labels hold nothing that a stranger chooses: unknown methods and routes fold into one value.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from adapter.telemetry.exposition import OPENMETRICS
from adapter.telemetry.histogram import Child, Histogram
from adapter.telemetry.traces import Trace

# Their `_created` gauges double the counters' lines and say nothing that `process` start times do not.
disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY = CollectorRegistry()

# Advised boundaries of http.server.request.duration and rpc.client.call.duration, with finer ones below.
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
_METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"})

_REQUESTS = Histogram(
    "http_server_request_duration_seconds",
    "Time from a request's head to the answer's last byte.",
    ["http_request_method", "http_route", "http_response_status_code"],
    _SECONDS,
    REGISTRY,
)
ACTIVE_REQUESTS = Gauge("http_server_active_requests", "Requests being answered now.", registry=REGISTRY)
_CALLS = Histogram(
    "rpc_client_call_duration_seconds",
    "Time of a call to TensorFlow Serving.",
    ["rpc_method", "rpc_response_status_code"],
    _SECONDS,
    REGISTRY,
)
PHASES = ("read", "parse", "pre", "queue", "call", "post", "handler", "render")
# Few buckets: five observations a request have to be cheap, and eight series of labels have to be few series.
_PHASE_SECONDS = (0.0001, 0.0005, 0.0025, 0.01, 0.05, 0.25, 1)
_PHASES = Histogram(
    "tandem_request_phase_seconds",
    "Time of the phases of a request that reached a model.",
    ["phase"],
    _PHASE_SECONDS,
    REGISTRY,
)
RETRIES = Counter("tandem_call_retries", "Calls tried again after UNAVAILABLE.", registry=REGISTRY)
CALLS_WAITING = Gauge("tandem_calls_waiting", "Requests waiting for a call to TensorFlow Serving.", registry=REGISTRY)
CALLS_LIMIT = Gauge(
    "tandem_calls_limit", "Predictions of a model that may be in flight now.", ["model"], registry=REGISTRY
)
MODEL_CALLS_WAITING = Gauge(
    "tandem_model_calls_waiting", "Predictions of a model that wait for one of these.", ["model"], registry=REGISTRY
)
BATCH_REQUESTS = Histogram(
    "tandem_coalesced_requests",
    "Requests that rode in one coalesced call.",
    [],
    (1, 2, 4, 8, 16, 32, 64, 128, 256),
    REGISTRY,
).labels()
STATE = Gauge("tandem_group_state", "1 for the state that the group is in.", ["state"], registry=REGISTRY)
TRANSITIONS = Counter("tandem_group_transitions", "Changes of the group's state.", ["to"], registry=REGISTRY)
TFS_UP = Gauge("tandem_tfs_up", "1 while TensorFlow Serving answers over gRPC.", registry=REGISTRY)
TFS_RESTARTS = Counter(
    "tandem_tfs_restarts", "Times that TensorFlow Serving came back after its connection was lost.", registry=REGISTRY
)
TFS_METRICS_ENABLED = Gauge(
    "tandem_tfs_metrics_enabled",
    "1 if TensorFlow Serving has a monitoring page; under host networking it opens no port and has none.",
    registry=REGISTRY,
)
BODY_BYTES = Gauge(
    "tandem_request_body_bytes_in_flight",
    "Bytes of request bodies that have come and are not answered yet.",
    registry=REGISTRY,
)
LOG_DROPPED = Counter(
    "tandem_log_records_dropped",
    "Log records that nobody read in time or that could not be written.",
    registry=REGISTRY,
)
TFS_LOG_LINES = Counter("tandem_tfs_log_lines", "Lines of TensorFlow Serving's log that were read.", registry=REGISTRY)
TFS_LOG_LINES_DROPPED = Counter(
    "tandem_tfs_log_lines_dropped", "Of these, dropped because reading was too far behind.", registry=REGISTRY
)
TFS_LOG_FILES_LOST = Counter(
    "tandem_tfs_log_files_lost", "Log files of TensorFlow Serving removed before they were read.", registry=REGISTRY
)
ACCESS_DENIED = Counter("tandem_access_denied", "Requests turned away by the gate.", ["reason"], registry=REGISTRY)
RENDERED_FILE_RELOADS = Counter("tandem_rendered_file_reloads", "Rendered files taken anew.", registry=REGISTRY)
RENDERED_FILE_ERRORS = Counter(
    "tandem_rendered_file_errors", "Rendered files that could not be used when they changed.", registry=REGISTRY
)
JWKS_FETCHES = Counter("tandem_jwks_fetches", "Fetches of the keys for tokens.", ["outcome"], registry=REGISTRY)
JWKS_AGE = Gauge("tandem_jwks_age_seconds", "Time since these keys were last seen at their source.", registry=REGISTRY)
_TENANT_REQUESTS = Histogram(
    "tandem_tenant_request_duration_seconds",
    "Time from a request's head to the answer's last byte, by tenant.",
    ["tenant", "http_response_status_code"],
    _SECONDS,
    REGISTRY,
)
TENANT_ACTIVE = Gauge(
    "tandem_tenant_active_requests", "Inference requests of a tenant in flight.", ["tenant"], registry=REGISTRY
)
AUDIT_RECORDS = Counter("tandem_audit_records", "Audit records made.", ["action", "decision"], registry=REGISTRY)
AUDIT_LOST = Counter(
    "tandem_audit_records_lost", "Records that could not be written to the audit files.", registry=REGISTRY
)
AUDIT_SUPPRESSED = Counter(
    "tandem_audit_records_suppressed", "Refusals beyond those recorded in one second.", registry=REGISTRY
)
OTLP_EXPORTED = Counter(
    "tandem_otlp_exported",
    "Spans, log records and pushes of metrics that the collector took.",
    ["signal"],
    registry=REGISTRY,
)
OTLP_DROPPED = Counter(
    "tandem_otlp_dropped",
    "Of these, dropped: the queue was full, or the collector did not take them.",
    ["signal"],
    registry=REGISTRY,
)
OTLP_QUEUED = Gauge("tandem_otlp_queued", "Of these, waiting to be sent.", ["signal"], registry=REGISTRY)
INFO = Gauge("tandem_info", "What runs here; always 1.", ["adapter", "bundle", "bundle_version"], registry=REGISTRY)


@lru_cache(maxsize=1024)
def _request_child(method: str, route: str, status: int) -> Child:
    return _REQUESTS.labels(method, route, str(status))


def observe_request(method: str, route: str, status: int, seconds: float, trace: Trace | None = None) -> None:
    """Count one answered request; one that is sampled is an exemplar of its bucket."""
    child = _request_child(method if method in _METHODS else "_OTHER", route, status)
    child.observe(seconds)
    if trace is not None and trace.sampled:
        child.exemplify(seconds, trace.trace_id, trace.span_id)


_PHASE_CHILDREN = {phase: _PHASES.labels(phase) for phase in PHASES}


def observe_phases(start: float, laps: Sequence[tuple[str, float]]) -> None:
    """Count the phases of one answered request: each ended at its moment and began with the end of the one before."""
    children, bounds = _PHASE_CHILDREN, _PHASE_SECONDS
    first = bounds[0]
    for phase, end in laps:
        child = children[phase]
        seconds = end - start
        # Most phases are in the first bucket: a comparison saves them half of what `observe` takes.
        child.counts[0 if seconds <= first else bisect_left(bounds, seconds)] += 1
        child.total += seconds
        start = end


@lru_cache(maxsize=4096)
def _tenant_child(tenant: str, status: int) -> Child:
    return _TENANT_REQUESTS.labels(tenant, str(status))


def observe_tenant(tenant: str, status: int, seconds: float) -> None:
    """Count one answered request of a tenant that the tenants' file names."""
    _tenant_child(tenant, status).observe(seconds)


class _CallObservers(dict[str, Callable[[str, float], None]]):
    def __missing__(self, path: str) -> Callable[[str, float], None]:
        method = path[1:]
        children: dict[str, Child] = {}

        def observe(status: str, seconds: float) -> None:
            child = children.get(status)
            if child is None:
                child = children[status] = _CALLS.labels(method, status)
            child.observe(seconds)

        self[path] = observe
        return observe


CALL_SECONDS: Mapping[str, Callable[[str, float], None]] = _CallObservers()
"""`CALL_SECONDS[path](status, seconds)` counts one call."""


class TfsLife:
    """Since when TensorFlow Serving counts: Unix nanoseconds of the process that runs now, as far as it was seen."""

    since = time.time_ns()


def tfs_restarted() -> None:
    """TensorFlow Serving answers again after its connection was lost: its own figures begin anew."""
    TFS_RESTARTS.inc()
    TfsLife.since = time.time_ns()


def identify(resource: Mapping[str, str]) -> None:
    """Put the resource's attributes on `target_info` (OpenTelemetry's "Prometheus and OpenMetrics Compatibility")."""
    REGISTRY.set_target_info({name.replace(".", "_"): value for name, value in resource.items()})


def page(content_type: str) -> bytes:
    """The adapter's own metrics in the format of `content_type`; OpenMetrics' end is left to whoever adds to them."""
    if content_type == OPENMETRICS:
        text: bytes = openmetrics.generate_latest(REGISTRY)  # type: ignore[no-untyped-call]
        return text.removesuffix(b"# EOF\n")
    return generate_latest(REGISTRY)
