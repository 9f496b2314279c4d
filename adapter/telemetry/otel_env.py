"""OpenTelemetry's own environment variables, read: which signals leave, by which protocol, and how traces are sampled.

Only what decides whether anything is loaded at all; addresses, headers, certificates and time-outs are the exporters' to
read. As the specification asks, a value that makes no sense is ignored and said, never fatal.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote, urlsplit

Signal = Literal["traces", "logs", "metrics"]
Protocol = Literal["grpc", "http/protobuf"]
SIGNALS: tuple[Signal, ...] = ("traces", "logs", "metrics")

_PROTOCOLS: Mapping[str, Protocol] = {"grpc": "grpc", "http/protobuf": "http/protobuf"}
_SAMPLERS = frozenset({"always_on", "always_off", "traceidratio"})


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which requests leave a trace: `ratio` of those that start one, and as their parent was where `parent` counts."""

    ratio: float = 1.0
    parent: bool = True


@dataclass(frozen=True, slots=True)
class OtelEnvironment:
    """`signals` leave by OTLP, each by its protocol; `problems` are variables that were ignored."""

    signals: Mapping[Signal, Protocol] = field(default_factory=dict)
    sampling: Sampling = Sampling()
    tracecontext: bool = True
    baggage: bool = True
    problems: tuple[str, ...] = ()


def read(environ: Mapping[str, str]) -> OtelEnvironment:
    """What the variables say. Nothing leaves where no endpoint is set, or with OTEL_SDK_DISABLED=true."""
    problems: list[str] = []
    signals: dict[Signal, Protocol] = {}
    if environ.get("OTEL_SDK_DISABLED", "").lower() != "true":
        for signal in SIGNALS:
            protocol = _protocol(signal, environ, problems)
            if protocol is not None:
                signals[signal] = protocol
    propagators = {name.strip() for name in environ.get("OTEL_PROPAGATORS", "tracecontext,baggage").lower().split(",")}
    unknown = sorted(propagators - {"tracecontext", "baggage", "none", ""})
    if unknown:
        problems.append(f"OTEL_PROPAGATORS: only tracecontext and baggage are known, not {', '.join(unknown)}")
    sampling = _sampling(environ, problems)
    return OtelEnvironment(signals, sampling, "tracecontext" in propagators, "baggage" in propagators, tuple(problems))


def _protocol(signal: Signal, environ: Mapping[str, str], problems: list[str]) -> Protocol | None:
    name = signal.upper()
    endpoint = environ.get(f"OTEL_EXPORTER_OTLP_{name}_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    exporters = {part.strip() for part in environ.get(f"OTEL_{name}_EXPORTER", "otlp").lower().split(",")}
    if not exporters <= {"otlp", "none", ""}:
        problems.append(f"OTEL_{name}_EXPORTER: only otlp and none are known")
    if not endpoint or "otlp" not in exporters:
        return None
    given = environ.get(f"OTEL_EXPORTER_OTLP_{name}_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") or ""
    if given in _PROTOCOLS:
        return _PROTOCOLS[given]
    if given:
        problems.append(f"OTEL_EXPORTER_OTLP_PROTOCOL={given!r}: expected grpc or http/protobuf")
    try:
        port = urlsplit(endpoint).port
    except ValueError:
        port = None
    return "grpc" if port == 4317 else "http/protobuf"  # gRPC's registered port; else the specification's default


def _sampling(environ: Mapping[str, str], problems: list[str]) -> Sampling:
    given = environ.get("OTEL_TRACES_SAMPLER") or "parentbased_always_on"
    name = given.lower().removeprefix("parentbased_")
    if name not in _SAMPLERS:
        problems.append(f"OTEL_TRACES_SAMPLER={given!r}: no such sampler, parentbased_always_on is taken")
        return Sampling()
    ratio = {"always_on": 1.0, "always_off": 0.0}.get(name, -1.0)
    if ratio < 0:
        text = environ.get("OTEL_TRACES_SAMPLER_ARG") or "1.0"
        try:
            ratio = float(text)
        except ValueError:
            ratio = -1.0
        if not 0 <= ratio <= 1:
            problems.append(f"OTEL_TRACES_SAMPLER_ARG={text!r}: expected a number from 0 to 1, 1 is taken")
            ratio = 1.0
    return Sampling(ratio, parent=given.lower().startswith("parentbased_"))


def resource_attributes(environ: Mapping[str, str]) -> dict[str, str]:
    """OTEL_RESOURCE_ATTRIBUTES: `key=value` pairs, percent-encoded; what is no pair is left out."""
    pairs = (part.partition("=") for part in environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","))
    return {key.strip(): unquote(value.strip()) for key, equals, value in pairs if equals and key.strip()}
