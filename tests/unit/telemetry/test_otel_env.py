"""OpenTelemetry's environment: what decides whether anything leaves, and how traces are sampled."""

from dataclasses import replace

import pytest

from adapter.telemetry.otel_env import Sampling, Sending, read, resource_attributes

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
        {**ENDPOINT, "OTEL_EXPORTER_OTLP_COMPRESSION": "zstd"},
        {**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": "deflate"},
        {**ENDPOINT, "OTEL_EXPORTER_OTLP_CERTIFICATE": "/none"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317"},
    ],
)
def test_what_makes_no_sense_is_said(environ: dict[str, str]) -> None:
    found = read(environ)
    assert found.problems
    assert found.sampling.ratio == 1.0
    assert all(sending == Sending() for sending in found.sending.values())


@pytest.mark.parametrize(
    "name",
    [
        "OTEL_EXPORTER_OTLP_TIMEOUT",
        "OTEL_EXPORTER_OTLP_LOGS_TIMEOUT",
        "OTEL_BSP_MAX_QUEUE_SIZE",
        "OTEL_METRIC_EXPORT_INTERVAL",
        "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
        "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
        "OTEL_SDK_DISABLED",
        "OTEL_EXPORTER_OTLP_INSECURE",
    ],
)
@pytest.mark.parametrize("text", ["abc", "-1", "1.5", "9" * 30, "\u0661"])
def test_a_number_or_truth_that_is_none_is_said_and_kept_from_the_sdk(name: str, text: str) -> None:
    found = read({**ENDPOINT, name: text})
    assert [problem.partition("=")[0] for problem in found.problems] == [name]
    assert found.ignored == {name}
    assert len(found.signals) == 3


def test_what_is_empty_is_as_good_as_not_set_and_kept_from_the_sdk() -> None:
    names = {"OTEL_PROPAGATORS", "OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_EXPORTER_OTLP_COMPRESSION"}
    found = read({**ENDPOINT, **dict.fromkeys(names, " ")})
    assert found == replace(read(ENDPOINT), ignored=frozenset(names))
    assert read({**ENDPOINT, "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": ""}).signals == found.signals


def test_time_is_in_milliseconds_and_each_signals_own_comes_first() -> None:
    general = {"OTEL_EXPORTER_OTLP_TIMEOUT": "2000", "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"}
    own = {"OTEL_EXPORTER_OTLP_LOGS_TIMEOUT": "1500", "OTEL_EXPORTER_OTLP_LOGS_COMPRESSION": "none"}
    found = read({**ENDPOINT, **general, **own})
    assert found.sending["traces"] == found.sending["metrics"] == Sending(2.0, "gzip")
    assert found.sending["logs"] == Sending(1.5, "none")


def test_an_address_without_a_scheme_is_grpcs_alone() -> None:
    assert set(read({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317"}).signals.values()) == {"grpc"}
    assert read({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"}).signals == {}
    found = read({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317", "OTEL_EXPORTER_OTLP_INSECURE": "true"})
    assert found.problems == ()


def test_no_problem_quotes_what_may_hold_a_secret() -> None:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "user:secret@collector", "OTEL_EXPORTER_OTLP_HEADERS": "secret"}
    assert "secret" not in "".join(read(environ).problems)


def test_resource_attributes_are_percent_decoded_and_what_is_no_pair_is_left_out() -> None:
    environ = {"OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=prod, team = a%2Cb ,nonsense,=x"}
    assert resource_attributes(environ) == {"deployment.environment.name": "prod", "team": "a,b"}
