"""Who is measured, and how each is started."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.bench.tools import ROOT
from tests.bench.workloads import V1, V2_BINARY, Format
from tests.environments import environment

SERVERS = Path(__file__).parent / "servers"
OURS = "tandem"


@dataclass(frozen=True)
class Backend:
    """What all peers call: a gRPC target, whose process (None: not ours), and its REST address if it has one."""

    grpc: str
    pid: int | None
    rest: str


@dataclass(frozen=True)
class Peer:
    """One column of the comparison. `format` is None for the floor, which speaks no HTTP; `command` makes the command line
    from a free port and the backend, and is None for what runs already, at `address`; `only` names the workloads it takes.
    """

    name: str
    text: str
    format: Format | None
    command: Callable[[int, Backend], Sequence[object]] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    only: frozenset[str] = frozenset()
    address: str = ""

    def takes(self, workload: str) -> bool:
        return not self.only or workload in self.only

    def variables(self, port: int, backend: Backend) -> dict[str, str]:
        """The environment it is started with."""
        known = {"port": str(port), "backend": backend.grpc}
        return {name: value.format_map(known) for name, value in self.environment.items()}


def adapter(name: str, text: str, spoken: Format = V1, only: Sequence[str] = (), **settings: str) -> Peer:
    """Ours, as a gateway, with these settings; logs and metrics are on. Its calls in flight are bounded, as a job bounds
    them together with `--grpc_max_threads`; its peers' are not, so the bound is that of the highest concurrency here.
    """
    given = {"ADAPTER_TFS_MAX_CALLS": "64"} | {f"ADAPTER_{key.upper()}": value for key, value in settings.items()}
    return Peer(
        name,
        text,
        spoken,
        lambda *_: (sys.executable, "-m", "adapter"),
        {"ADAPTER_HOST": "127.0.0.1", "ADAPTER_PORT": "{port}", "ADAPTER_TFS_GRPC": "{backend}", **given},
        frozenset(only),
    )


def _fastapi(port: int, backend: Backend) -> Sequence[object]:
    uvicorn = (
        environment("bench-fastapi"),
        "-m",
        "uvicorn",
        "fastapi_tuned:app",
        "--app-dir",
        SERVERS,
        "--no-access-log",
    )
    return (*uvicorn, "--log-level", "warning", "--host", "127.0.0.1", "--port", port)


def _kserve(port: int, backend: Backend) -> Sequence[object]:
    kserve = (environment("bench-kserve"), SERVERS / "kserve_transformer.py", "--model_name", "half_plus_two")
    return (*kserve, "--http_port", port, "--enable_grpc", "false", "--enable_latency_logging", "false")


def _kserve_rest(port: int, backend: Backend) -> Sequence[object]:
    return (*_kserve(port, backend), "--predictor_host", backend.rest, "--predictor_protocol", "v1")


# Traces are configured and no request is sampled: what its looking costs. Nobody listens there, and nobody needs to.
TRACING = {
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9/v1/traces",
    "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
    "OTEL_TRACES_SAMPLER_ARG": "0",
}


def _traced(peer: Peer, name: str, text: str) -> Peer:
    return replace(peer, name=name, text=text, environment={**peer.environment, **TRACING}, only=frozenset({"small"}))


_PYTHON = {"PYTHONPATH": str(ROOT), "BENCH_BACKEND": "{backend}"}
COALESCED = "half_plus_two,bytes_len"


def peers() -> dict[str, Peer]:
    """All that can be measured here, by name: ours first."""
    rest = os.environ.get("BENCH_TFS_REST", "")
    ours = adapter(OURS, "the adapter, coalescing", coalesce=COALESCED)
    found = [
        ours,
        _traced(ours, "tandem-traced", "the same with tracing configured, no request sampled"),
        adapter("tandem-alone", "the adapter, each request a call of its own"),
        adapter(
            "tandem-v2", "the adapter, Open Inference Protocol, binary tensors", V2_BINARY, ["small", "medium", "large"]
        ),
        Peer("fastapi", "FastAPI and grpc.aio, tuned by hand (raw body, orjson)", V1, _fastapi, _PYTHON),
        Peer("kserve", "KServe's Python transformer calling gRPC", V1, _kserve, _PYTHON),
        Peer("floor", "bare grpc.aio calls, ready-made bytes, no HTTP", None),
    ]
    if rest:
        found += [
            Peer(
                "kserve-rest", "KServe's Python transformer over TensorFlow Serving's REST", V1, _kserve_rest, _PYTHON
            ),
            Peer("tfs-rest", "TensorFlow Serving's own REST", V1, address=rest),
        ]
    return {peer.name: peer for peer in found}
