"""OpenTelemetry's environment: what decides whether anything leaves, and how traces are sampled."""

import pytest

from adapter.telemetry.otel_env import Sampling, read, resource_attributes

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


def test_without_an_endpoint_nothing_leaves() -> None:
    assert read({"OTEL_TRACES_EXPORTER": "otlp"}).signals == {}


def test_one_endpoint_is_for_every_signal() -> None:
    assert set(read(ENDPOINT).signals) == {"traces", "logs", "metrics"}


def test_a_signal_may_have_an_endpoint_and_a_protocol_of_its_own() -> None:
    environ = {"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://logs/v1", "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "grpc"}
    assert read(environ).signals == {"logs": "grpc"}


@pytest.mark.parametrize(
    "environ", [{"OTEL_SDK_DISABLED": "true"}, {f"OTEL_{s}_EXPORTER": "none" for s in ("TRACES", "LOGS", "METRICS")}]
)
def test_what_is_turned_off_does_not_leave(environ: dict[str, str]) -> None:
    assert read({**ENDPOINT, **environ}).signals == {}


@pytest.mark.parametrize(
    ("endpoint", "given", "protocol"),
    [
        ("http://c:4317", "", "grpc"),
        ("http://c:4318", "", "http/protobuf"),
        ("http://c", "", "http/protobuf"),
        ("http://c:4317", "http/protobuf", "http/protobuf"),
        ("http://c:4318", "grpc", "grpc"),
    ],
)
def test_the_protocol_is_the_given_one_or_that_of_the_port(endpoint: str, given: str, protocol: str) -> None:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": given}
    assert read(environ).signals["traces"] == protocol


@pytest.mark.parametrize(
    ("sampler", "argument", "expected"),
    [
        ("", "", Sampling(1.0, parent=True)),
        ("always_on", "", Sampling(1.0, parent=False)),
        ("always_off", "", Sampling(0.0, parent=False)),
        ("traceidratio", "0.25", Sampling(0.25, parent=False)),
        ("parentbased_always_off", "", Sampling(0.0, parent=True)),
        ("parentbased_traceidratio", "0.01", Sampling(0.01, parent=True)),
        ("traceidratio", "", Sampling(1.0, parent=False)),
    ],
)
def test_the_samplers_of_the_specification(sampler: str, argument: str, expected: Sampling) -> None:
    found = read({"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": argument})
    assert found.sampling == expected
    assert found.problems == ()


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_TRACES_SAMPLER": "jaeger_remote"},
        {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "2"},
        {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "half"},
        {"OTEL_PROPAGATORS": "b3"},
        {**ENDPOINT, "OTEL_LOGS_EXPORTER": "console"},
        {**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
    ],
)
def test_what_makes_no_sense_is_ignored_and_said(environ: dict[str, str]) -> None:
    found = read(environ)
    assert found.problems
    assert found.sampling.ratio == 1.0


def test_resource_attributes_are_percent_decoded_and_what_is_no_pair_is_left_out() -> None:
    environ = {"OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=prod, team = a%2Cb ,nonsense,=x"}
    assert resource_attributes(environ) == {"deployment.environment.name": "prod", "team": "a,b"}
