"""The local model server answers every recorded gRPC case as the recorded TensorFlow Serving did."""

import base64
import itertools
import json
import re
import threading
import urllib.error
import urllib.request
from typing import Any

import grpc
import pytest

from adapter.pb import serving_pb2 as pb
from adapter.pb import tensorflow_pb2 as tf
from tests.golden.conftest import DATA, relocated
from tests.servers import ModelServer, free_port

CASES: list[dict[str, Any]] = json.loads((DATA / "grpc_cases.json").read_text())
EXPERIMENTS: dict[str, Any] = json.loads((DATA / "experiments.json").read_text())
CALLS = {case["id"]: case for case in CASES if "method" in case}
RESPONSES = {
    "Predict": pb.PredictResponse,
    "Classify": pb.ClassificationResponse,
    "Regress": pb.RegressionResponse,
    "MultiInference": pb.MultiInferenceResponse,
    "GetModelMetadata": pb.GetModelMetadataResponse,
    "GetModelStatus": pb.GetModelStatusResponse,
}
PREDICT = "/tensorflow.serving.PredictionService/Predict"


@pytest.fixture(scope="session")
def channel(model_server: ModelServer) -> grpc.Channel:
    return model_server.channel()


def call(channel: grpc.Channel, method: str, request: bytes, timeout: float = 30) -> tuple[str, str, bytes | None]:
    try:
        return "OK", "", channel.unary_unary(method)(request, timeout=timeout)
    except grpc.RpcError as error:
        return error.code().name, error.details(), None


def without_function_ids(text: str) -> str:
    """Function names in a graph end in a number that depends on the TensorFlow that wrote the model."""
    return re.sub(r"(\{\{function_node \w+?)_\d+(\}\})", r"\1_N\2", text)


def readable(method: str, data: bytes) -> Any:
    """A response to compare: as a message, since the order of map entries on the wire is arbitrary."""
    message = RESPONSES[method.rpartition("/")[2]].FromString(data)
    if isinstance(message, pb.GetModelMetadataResponse):
        signatures = pb.SignatureDefMap.FromString(message.metadata.pop("signature_def").value)
        return message, signatures
    return message


@pytest.mark.parametrize("name", CALLS)
def test_a_recorded_call_gets_the_recorded_answer(channel: grpc.Channel, name: str) -> None:
    case = CALLS[name]
    request = base64.b64decode(case["request_bytes_b64"])
    code, details, response = call(channel, case["method"], request, timeout=0.5 if name == "deadline" else 30)
    assert (code, without_function_ids(details)) == (case["code"], without_function_ids(case["details"]))
    if response is not None:
        recorded = base64.b64decode(case["response_bytes_b64"])
        assert readable(case["method"], response) == readable(case["method"], recorded)


@pytest.mark.parametrize(
    "case", [case for case in CASES if case["id"].startswith("raw /")], ids=lambda case: case["id"]
)
def test_what_is_not_offered_is_unimplemented_without_a_text(channel: grpc.Channel, case: dict[str, Any]) -> None:
    code, details, _ = call(channel, case["id"].removeprefix("raw "), b"")
    assert (code, details) == (case["code"], case.get("details", ""))


def test_a_request_that_is_no_message_is_an_internal_error_without_a_text(channel: grpc.Channel) -> None:
    assert call(channel, PREDICT, b"\xff\xff\xff")[:2] == ("INTERNAL", "")


@pytest.mark.parametrize(
    "case", [case for case in CASES if case["id"].startswith("health")], ids=lambda case: case["id"]
)
def test_health_knows_the_services_by_their_unqualified_names(channel: grpc.Channel, case: dict[str, Any]) -> None:
    service = case["id"].removeprefix("health ").encode()
    request = bytes([0x0A, len(service)]) + service if service else b""
    code, details, response = call(channel, "/grpc.health.v1.Health/Check", request)
    assert (code, details) == (case["code"], case.get("details", ""))
    assert response == (b"\x08\x01" if code == "OK" else None)


def test_reflection_is_the_one_recorded_service_that_is_not_offered(channel: grpc.Channel) -> None:
    reflection = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    with pytest.raises(grpc.RpcError) as failure:
        next(reflection(iter([b"\x3a\x00"])))
    assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED


def predict(channel: grpc.Channel, signature: str, **inputs: tf.TensorProto) -> pb.PredictResponse:
    request = pb.PredictRequest(model_spec=pb.ModelSpec(name="multi", signature_name=signature))
    for name, tensor in inputs.items():
        request.inputs[name].CopyFrom(tensor)
    return pb.PredictResponse.FromString(channel.unary_unary(PREDICT)(request.SerializeToString()))


def tensor(dtype: str, size: int, **values: Any) -> tf.TensorProto:
    shape = tf.TensorShapeProto(dim=[tf.TensorShapeProto.Dim(size=size)])
    return tf.TensorProto(dtype=getattr(tf, dtype), tensor_shape=shape, **values)


def test_every_dtype_comes_back_in_its_own_field(channel: grpc.Channel) -> None:
    outputs = predict(channel, "dbl", x=tensor("DT_FLOAT", 2, float_val=[3, 6])).outputs
    assert list(outputs["d"].double_val) == [1.0, 2.0]
    assert list(outputs["i32"].int_val) == [3, 6]
    assert list(outputs["u8"].int_val) == [3, 6]
    assert list(outputs["u64"].uint64_val) == [3, 6]
    assert list(predict(channel, "half_out", x=tensor("DT_FLOAT", 1, float_val=[1])).outputs["o"].half_val) == [0x3C00]


def test_small_integers_wrap_and_missing_values_repeat_the_last_one(channel: grpc.Channel) -> None:
    flag, n = tensor("DT_BOOL", 3, bool_val=[True, False]), tensor("DT_INT32", 3)
    outputs = predict(channel, "ints", flag=flag, n=n, u=tensor("DT_UINT8", 3, int_val=[300])).outputs
    assert list(outputs["nflag"].bool_val) == [False, True, True]
    assert list(outputs["n1"].int_val) == [1, 1, 1]
    assert list(outputs["u1"].int_val) == [45, 45, 45]


def test_half_precision_values_are_taken_as_bits(channel: grpc.Channel) -> None:
    outputs = predict(channel, "half_in", h=tensor("DT_HALF", 2, half_val=[0x3C00, 0xC000])).outputs
    assert list(outputs["o"].float_val) == [1.0, -2.0]


@pytest.mark.parametrize(
    "bad",
    [
        tensor("DT_FLOAT", 5, tensor_content=b"\0" * 8),
        tensor("DT_FLOAT", -1, float_val=[1]),
        tensor("DT_INVALID", 1, float_val=[1]),
        tf.TensorProto(dtype=tf.DT_FLOAT, tensor_shape=tf.TensorShapeProto(unknown_rank=True)),
    ],
    ids=["content of the wrong size", "negative size", "no dtype", "unknown rank"],
)
def test_a_tensor_that_is_none_is_a_parsing_error(channel: grpc.Channel, bad: tf.TensorProto) -> None:
    with pytest.raises(grpc.RpcError) as failure:
        predict(channel, "scalar_out", x=bad)
    assert (failure.value.code().name, failure.value.details()) == ("INVALID_ARGUMENT", "tensor parsing error: x")


def test_a_message_of_64_mb_passes_both_ways(channel: grpc.Channel) -> None:
    request = pb.PredictRequest(model_spec=pb.ModelSpec(name="half_plus_two"))
    request.inputs["x"].CopyFrom(tensor("DT_FLOAT", 16_000_000, tensor_content=bytes(64_000_000)))
    response = pb.PredictResponse.FromString(channel.unary_unary(PREDICT)(request.SerializeToString()))
    assert len(response.outputs["y"].float_val) == 16_000_000


def test_calls_above_grpc_max_threads_are_refused_until_the_deadlines_of_the_others_free_a_thread(
    channel: grpc.Channel,
) -> None:
    minutes_long = base64.b64decode(CALLS["deadline"]["request_bytes_b64"])
    calls = [channel.unary_unary(PREDICT).future(minutes_long, timeout=2) for _ in range(20)]
    codes = [future.exception().code().name for future in calls]
    assert (codes.count("DEADLINE_EXCEEDED"), codes.count("RESOURCE_EXHAUSTED")) == (8, 12)
    quick = base64.b64decode(CALLS["predict"]["request_bytes_b64"])
    pauses = itertools.repeat(0.05, 200)
    while call(channel, PREDICT, quick)[0] == "RESOURCE_EXHAUSTED":
        threading.Event().wait(next(pauses))
    assert call(channel, PREDICT, quick)[0] == "OK"


def test_a_signature_that_computes_nothing_is_an_error_and_no_crash(channel: grpc.Channel) -> None:
    request = pb.PredictRequest(model_spec=pb.ModelSpec(name="half_plus_two", signature_name="__saved_model_init_op"))
    assert call(channel, PREDICT, request.SerializeToString())[0] != "OK"
    assert call(channel, PREDICT, base64.b64decode(CALLS["predict"]["request_bytes_b64"]))[0] == "OK"


# The monitoring page.


def get(server: ModelServer, path: str) -> tuple[int, Any, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.rest_port}{path}") as response:
            return response.status, response.headers, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


METRICS = "/monitoring/prometheus/metrics"


def buckets(page: str, metric: str, labels: str) -> list[str]:
    return re.findall(re.escape(f"{metric}_bucket{{{labels},le=") + r'"([^"]+)"', page)


def test_the_page_has_the_names_types_labels_and_buckets_of_the_recorded_one(
    model_server: ModelServer, channel: grpc.Channel
) -> None:
    call(channel, PREDICT, base64.b64decode(CALLS["predict"]["request_bytes_b64"]))
    call(channel, PREDICT, base64.b64decode(CALLS["err_model_nf"]["request_bytes_b64"]))
    status, headers, page = get(model_server, METRICS)
    assert (status, headers["Content-Type"]) == (200, "text/plain")

    recorded = (DATA / "metrics_after_rest.txt").read_text()
    recorded_types = set((DATA / "metric_types.txt").read_text().splitlines())
    assert set(re.findall(r"^# TYPE (.*)", page, re.MULTILINE)) <= recorded_types
    for metric in ("request_count", "request_latency", "runtime_latency", "model_warmup_latency"):
        assert f"# TYPE :tensorflow:serving:{metric} " in page
    load = f'model_path="{DATA}/models/multi/7"'
    assert f':tensorflow:cc:saved_model:load_attempt_count{{{load},status="success"}} 1\n' in page
    assert f":tensorflow:cc:saved_model:load_latency{{{load}}} " in page
    assert re.search(r':tensorflow:serving:request_count\{model_name="half_plus_two",status="OK"\} \d+\n', page)
    assert re.search(r':tensorflow:serving:request_count\{model_name="nope",status="NOT_FOUND"\} \d+\n', page)

    runtime = ":tensorflow:serving:runtime_latency", 'model_name="half_plus_two",API="Predict",runtime="TF1"'
    assert buckets(page, *runtime) == buckets(recorded, *runtime)
    ours = ":tensorflow:serving:request_latency", 'model_name="half_plus_two",API="Predict",entrypoint="GRPC"'
    theirs = ours[0], 'model_name="half_plus_two",API="predict",entrypoint="REST"'
    assert buckets(page, *ours) == buckets(recorded, *theirs)


def test_histograms_are_cumulative_and_add_up(model_server: ModelServer, channel: grpc.Channel) -> None:
    call(channel, PREDICT, base64.b64decode(CALLS["predict"]["request_bytes_b64"]))
    page = get(model_server, METRICS)[2]
    name = r':tensorflow:serving:runtime_latency_{}\{{model_name="half_plus_two",API="Predict",runtime="TF1"{}\}} (\d+)'
    counts = [int(count) for count in re.findall(name.format("bucket", r',le="[^"]+"'), page)]
    assert counts == sorted(counts)
    assert [counts[-1]] == [int(count) for count in re.findall(name.format("count", ""), page)]


@pytest.mark.parametrize("path", ["/", "/v1/models/half_plus_two", "/v1/models/half_plus_two:predict", METRICS + "x"])
def test_every_other_path_gets_libevents_404_page(model_server: ModelServer, path: str) -> None:
    recorded = EXPERIMENTS["C_cors"]["root"]
    status, headers, body = get(model_server, path)
    expected = [(name, value) for name, value in recorded["headers"] if name != "Date"]
    assert (status, body) == (recorded["status"], recorded["body"])
    assert sorted((name, value) for name, value in headers.items() if name != "Date") == sorted(expected)


def test_a_query_on_the_page_is_an_unexpected_path(model_server: ModelServer) -> None:
    recorded = next(
        case
        for case in json.loads((DATA / "rest_cases.json").read_text())
        if case["request"]["path"] == f"{METRICS}?x=1"
    )
    assert get(model_server, f"{METRICS}?x=1")[::2] == (400, recorded["response"]["body"])


# Start-up, as logged and as failed.


def serving_lines(lines: list[str]) -> list[str]:
    """What TensorFlow Serving's own sources log, without time, thread and numbers that differ from run to run."""
    theirs = re.compile(
        r"(?:: |^)([IWE])(?:\d{4} [\d:.]+ +\d+)? (\S*tensorflow_serving/\S+|loader_harness.cc:\d+)\] (.*)"
    )
    found = [match.groups() for line in lines if (match := theirs.search(line))]
    return [
        f"{severity} {source}] {message}".replace("127.0.0.1", "localhost")
        for severity, source, message in found
        if source != "tensorflow_serving/model_servers/server.cc:1" and "MallocExtension" not in message
    ]


def test_a_start_is_logged_line_by_line_as_recorded() -> None:
    port, rest_port = free_port(), free_port()
    recorded = (DATA / "logs" / "B_default_single_model.err").read_text()
    recorded = relocated(recorded).replace("18510", str(port)).replace("18511", str(rest_port))
    flags = [
        f"--port={port}",
        f"--rest_api_port={rest_port}",
        "--model_name=one",
        f"--model_base_path={DATA}/models/one",
    ]
    with ModelServer(*flags, ready="Exporting HTTP/REST API") as server:
        assert serving_lines(server.lines) == serving_lines(recorded.splitlines())
        assert "[evhttp_server.cc : 261] NET_LOG: Entering the event loop ..." in server.lines


# The files that the recorded failures were started with.
FILES = {
    "bad.config": 'model_config_list { config { nope: "a" } }',
    "noplat.config": 'model_config_list { config { name: "a" base_path: "/a" } }',
    "empty.config": "",
    "batch.txt": "max_batch_size { value: 4 }",
}
FAILURES = {
    name: failure
    for name, failure in EXPERIMENTS["E_failures"].items()
    if failure["rc"] == 255 and failure["stdout"].startswith("Failed to start server")
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_start_that_failed_fails_with_the_recorded_words(name: str) -> None:
    server = ModelServer(ready="")

    def moved(text: str) -> str:
        return relocated(text.replace("/srv/tfs/run", str(server.directory)))

    for file, text in FILES.items():
        (server.directory / file).write_text(text)
    (server.directory / "models.config").write_text(relocated((DATA / "models.config").read_text()))
    server.flags = ["--port=8500", *map(moved, FAILURES[name]["flags"])]
    with server:
        assert (server.wait(), server.stdout()) == (255, moved(FAILURES[name]["stdout"]))
        recorded = moved(FAILURES[name]["stderr_tail"]).splitlines()
        expected = [line for line in serving_lines(recorded) if "Unload all remaining" not in line]
        assert serving_lines(server.lines)[-len(expected) :] == expected or not expected
