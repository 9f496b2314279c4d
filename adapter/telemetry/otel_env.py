"""OpenTelemetry's own environment variables, read: which signals leave, by which protocol, and how traces are sampled.

Addresses, headers and certificates are the exporters' to read, and limits of spans the SDK's. As the specification asks,
an empty value is as good as none, and one that makes no sense is ignored and said, never fatal; both are to be kept from
the SDK, which does not always see it that way (`ignored`). No value is quoted that may hold a secret.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote, urlsplit

Signal = Literal["traces", "logs", "metrics"]
Protocol = Literal["grpc", "http/protobuf"]
SIGNALS: tuple[Signal, ...] = ("traces", "logs", "metrics")

_PROTOCOLS: Mapping[str, Protocol] = {"grpc": "grpc", "http/protobuf": "http/protobuf"}
_SAMPLERS = frozenset({"always_on", "always_off", "traceidratio"})
_COMPRESSIONS: Mapping[Protocol, frozenset[str]] = {
    "grpc": frozenset({"none", "gzip"}),
    "http/protobuf": frozenset({"none", "gzip", "deflate"}),
}
_NUMBER = re.compile(
    r"OTEL_(EXPORTER_OTLP_(\w+_)?TIMEOUT|METRIC_EXPORT_INTERVAL"
    r"|(BSP|BLRP)_(MAX_QUEUE_SIZE|MAX_EXPORT_BATCH_SIZE|SCHEDULE_DELAY)|\w+_LIMIT)"
)
_TRUTH = re.compile(r"OTEL_SDK_DISABLED|OTEL_EXPORTER_OTLP_(\w+_)?INSECURE")
_FILE = re.compile(r"OTEL_EXPORTER_OTLP_(\w+_)?(CERTIFICATE|CLIENT_KEY)")


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which requests leave a trace: `ratio` of those that start one, and as their parent was where `parent` counts."""

    ratio: float = 1.0
    parent: bool = True


@dataclass(frozen=True, slots=True)
class Sending:
    """How a signal leaves: seconds that one export may take, and "none", "gzip" or "deflate"."""

    timeout: float = 10.0
    compression: str = "none"


@dataclass(frozen=True, slots=True)
class OtelEnvironment:
    """`signals` leave by OTLP, each by its protocol and as `sending` says.

    `problems` are to be said; variables that are `ignored` are as good as not set, for whoever else reads them.
    """

    signals: Mapping[Signal, Protocol] = field(default_factory=dict)
    sending: Mapping[Signal, Sending] = field(default_factory=dict)
    sampling: Sampling = Sampling()
    tracecontext: bool = True
    baggage: bool = True
    problems: tuple[str, ...] = ()
    ignored: frozenset[str] = frozenset()


def read(environ: Mapping[str, str]) -> OtelEnvironment:
    """What the variables say. Nothing leaves where no endpoint is set, or with OTEL_SDK_DISABLED=true."""
    problems: list[str] = []
    given = {name: text for name, text in environ.items() if name.startswith("OTEL_")}
    sound = {name: text for name, text in given.items() if text.strip() and _sound(name, text, problems)}
    signals: dict[Signal, Protocol] = {}
    sending: dict[Signal, Sending] = {}
    if sound.get("OTEL_SDK_DISABLED", "").lower() != "true":
        for signal in SIGNALS:
            protocol = _protocol(signal, sound, problems)
            if protocol is not None:
                signals[signal] = protocol
                sending[signal] = _sending(signal, protocol, sound, problems)
    propagators = {name.strip() for name in sound.get("OTEL_PROPAGATORS", "tracecontext,baggage").lower().split(",")}
    unknown = sorted(propagators - {"tracecontext", "baggage", "none", ""})
    if unknown:
        problems.append(f"OTEL_PROPAGATORS: only tracecontext and baggage are known, not {', '.join(unknown)}")
    return OtelEnvironment(
        signals,
        sending,
        _sampling(sound, problems),
        "tracecontext" in propagators,
        "baggage" in propagators,
        tuple(dict.fromkeys(problems)),
        frozenset(given.keys() - sound.keys()),
    )


def _sound(name: str, text: str, problems: list[str]) -> bool:
    """Whether the value can be meant, as far as its form goes."""
    if _NUMBER.fullmatch(name):
        least = 0 if name.endswith("_LIMIT") else 1
        if not (text.isascii() and text.isdecimal() and least <= int(text[:11]) < 1 << 31):
            problems.append(f"{name}={text[:32]!r}: expected a whole number from {least} on, it is ignored")
            return False
    elif _TRUTH.fullmatch(name):
        if text.lower() not in ("true", "false"):
            problems.append(f"{name}={text[:32]!r}: expected true or false, it is ignored")
            return False
    elif _FILE.fullmatch(name) and not os.access(text, os.R_OK):
        problems.append(f"{name}: {text[:256]} cannot be read")
    return True


def _of(signal: Signal, what: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """The name and value of the signal's own variable, or else of that for all signals; the value may be empty."""
    own, shared = f"OTEL_EXPORTER_OTLP_{signal.upper()}_{what}", f"OTEL_EXPORTER_OTLP_{what}"
    return (own, environ[own]) if own in environ else (shared, environ.get(shared, ""))


def _sending(signal: Signal, protocol: Protocol, environ: Mapping[str, str], problems: list[str]) -> Sending:
    _, milliseconds = _of(signal, "TIMEOUT", environ)
    name, compression = _of(signal, "COMPRESSION", environ)
    if compression and compression not in _COMPRESSIONS[protocol]:
        known = ", ".join(sorted(_COMPRESSIONS[protocol]))
        problems.append(f"{name}={compression[:32]!r}: expected one of {known}, none is taken")
        compression = ""
    return Sending(int(milliseconds or 10_000) / 1000, compression or "none")


def _protocol(signal: Signal, environ: Mapping[str, str], problems: list[str]) -> Protocol | None:
    name = signal.upper()
    variable, endpoint = _of(signal, "ENDPOINT", environ)
    exporters = {part.strip() for part in environ.get(f"OTEL_{name}_EXPORTER", "otlp").lower().split(",")}
    if not exporters <= {"otlp", "none", ""}:
        problems.append(f"OTEL_{name}_EXPORTER: only otlp and none are known")
    if not endpoint or "otlp" not in exporters:
        return None
    asked, given = _of(signal, "PROTOCOL", environ)
    if given and given not in _PROTOCOLS:
        problems.append(f"{asked}={given[:32]!r}: expected grpc or http/protobuf")
    bare = "://" not in endpoint
    try:
        port = urlsplit(f"//{endpoint}" if bare else endpoint).port
    except ValueError:
        port = None
    # Unset: gRPC for its registered port, else the specification's default.
    protocol = _PROTOCOLS.get(given) or ("grpc" if port == 4317 else "http/protobuf")
    if bare and protocol == "http/protobuf":
        problems.append(f"{variable}: it begins with neither http:// nor https://, so {signal} do not leave")
        return None
    if bare and not _of(signal, "INSECURE", environ)[1]:
        problems.append(f"{variable}: without http:// before it, it is spoken to by TLS (OTEL_EXPORTER_OTLP_INSECURE)")
    return protocol


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
