"""The local model server as a process: when its ports open, what it follows on disk and by call, how it dies."""

import shutil
import signal
import socket
import stat
import subprocess
import sys
import urllib.request
from pathlib import Path

import grpc
import pytest
from google.protobuf import text_format

from adapter.pb import serving_pb2 as pb
from adapter.pb import tensorflow_pb2 as tf
from tests.servers import READY, ModelServer, free_port

MODELS = Path(__file__).parents[2] / "golden" / "data" / "models"
PREDICT = "/tensorflow.serving.PredictionService/Predict"


class Client:
    def __init__(self, server: ModelServer) -> None:
        self._channel = server.channel()

    def predict(self, model: str, label: str = "", version: int = 0) -> tuple[list[float], int]:
        """The outputs for x = 1 and the version that computed them."""
        spec = pb.ModelSpec(name=model)
        if label:
            spec.version_label = label
        if version:
            spec.version.value = version
        request = pb.PredictRequest(model_spec=spec)
        request.inputs["x"].CopyFrom(tf.TensorProto(dtype=tf.DT_FLOAT, float_val=[1]))
        request.inputs["x"].tensor_shape.dim.add(size=1)
        data = self._channel.unary_unary(PREDICT)(request.SerializeToString(), timeout=30, wait_for_ready=True)
        response = pb.PredictResponse.FromString(data)
        return list(response.outputs["y"].float_val), response.model_spec.version.value

    def states(self, model: str) -> list[tuple[int, str]]:
        request = pb.GetModelStatusRequest(model_spec=pb.ModelSpec(name=model))
        call = self._channel.unary_unary("/tensorflow.serving.ModelService/GetModelStatus")
        response = pb.GetModelStatusResponse.FromString(call(request.SerializeToString(), timeout=30))
        return [(item.version, type(item).State.Name(item.state)) for item in response.model_version_status]

    def reload(self, config: str, *metrics: str) -> pb.ReloadConfigResponse:
        request = pb.ReloadConfigRequest(config=text_format.Parse(config, pb.ModelServerConfig()), metric_names=metrics)
        call = self._channel.unary_unary("/tensorflow.serving.ModelService/HandleReloadConfigRequest")
        return pb.ReloadConfigResponse.FromString(call(request.SerializeToString(), timeout=30))


def refused(call: object, *arguments: str, **more: str) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as failure:
        call(*arguments, **more)  # type: ignore[operator]
    return failure.value.code().name, failure.value.details()


def config_of(*models: str) -> str:
    return "model_config_list { " + " ".join(f"config {{ {model} }}" for model in models) + " }"


def half_plus_two(more: str = "", name: str = "m") -> str:
    return f'name: "{name}" base_path: "{MODELS}/half_plus_two" model_platform: "tensorflow" {more}'


def add_version(base: Path, version: int, source: str = "half_plus_two/1") -> None:
    """As a deployment would: the directory appears complete."""
    staged = base.parent / f"staged-{version}"
    shutil.copytree(MODELS / source, staged)
    base.mkdir(exist_ok=True)
    staged.rename(base / str(version))


def test_ports_open_after_the_first_load_and_versions_on_disk_are_followed(tmp_path: Path) -> None:
    base = tmp_path / "m"
    flags = ["--model_name=m", f"--model_base_path={base}", "--max_num_load_retries=0"]
    with ModelServer(*flags, ready=f"Could not find base path {base} for servable m") as server:
        assert not server.socket.exists()
        base.mkdir()
        server.wait_for(f"No versions of servable m found under base path {base}. Did you forget")
        assert not server.socket.exists()
        add_version(base, 1)
        server.wait_for(READY)
        client = Client(server)
        assert client.predict("m") == ([2.5], 1)

        add_version(base, 2, "half_plus_two/2")
        server.wait_for("Done unloading servable version {name: m version: 1}".replace("{", r"\{"))
        assert client.predict("m") == ([3.0], 2)
        assert client.states("m") == [(2, "AVAILABLE"), (1, "END")]
        assert refused(client.predict, "m", version=1) == (
            "NOT_FOUND",
            "Servable not found for request: Specific(m, 1)",
        )
        order = [
            "Approving load",
            "Loading",
            "Successfully loaded",
            "Quiescing",
            "Done quiescing",
            "Unloading",
            "Done un",
        ]
        log = "\n".join(server.lines)
        places = [
            log.index(f"{words}", log.index("Approving load for servable version {name: m version: 2}"))
            for words in order
        ]
        assert places == sorted(places)

        add_version(base, 3, "broken/1")
        server.wait_for(
            r"Servable \{name: m version: 3\} cannot be loaded: OUT_OF_RANGE: Read less bytes than requested"
        )
        assert client.predict("m") == ([3.0], 2)
        assert client.states("m")[0] == (3, "END")

        shutil.rmtree(base / "3")
        shutil.rmtree(base / "2")
        server.wait_for(r"Done unloading servable version \{name: m version: 2\}")
        assert client.predict("m") == ([2.5], 1)
        assert client.states("m") == [(3, "END"), (2, "END"), (1, "AVAILABLE")]


def test_a_reload_adds_removes_and_labels_models_or_refuses_the_whole_configuration() -> None:
    with ModelServer("--model_name=m", f"--model_base_path={MODELS}/half_plus_two") as server:
        client = Client(server)
        both = config_of(half_plus_two("model_version_policy { all {} }"), half_plus_two(name="n"))
        response = client.reload(both, "/tensorflow/serving/request_count")
        assert [(metric.name, metric.int64_value_increase) for metric in response.metric] == [
            ("/tensorflow/serving/request_count", 0)
        ]
        assert client.predict("n") == ([3.0], 2)
        server.wait_for(r"Successfully loaded servable version \{name: m version: 1\}")

        label = 'version_labels { key: "stable" value: %d }'
        everything = "model_version_policy { all {} }"
        assert refused(client.reload, config_of(half_plus_two(everything + label % 55))) == (
            "FAILED_PRECONDITION",
            "Request to assign label to version 55 of model m, which is not currently available for inference",
        )
        assert client.predict("n") == ([3.0], 2)
        unknown = "INVALID_ARGUMENT", "Unrecognized servable version label: stable"
        assert refused(client.predict, "m", label="stable") == unknown

        client.reload(config_of(half_plus_two(everything + label % 1)))
        assert client.predict("m", label="stable") == ([2.5], 1)
        server.wait_for(r"Done unloading servable version \{name: n version: 2\}")
        assert refused(client.predict, "n") == ("NOT_FOUND", "Servable not found for request: Latest(n)")
        assert client.states("n") == [(2, "END")]

        twice = config_of(half_plus_two(), half_plus_two())
        assert refused(client.reload, twice)[1] == "Illegal to list model m multiple times in config list"
        server.wait_for("ReloadConfig failed: Illegal to list model m multiple times in config list")

        client.reload("model_config_list {}")
        server.wait_for(r"Done unloading servable version \{name: m version: 1\}")


def test_the_configuration_file_is_polled_and_a_bad_one_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "models.config"
    file.write_text(config_of(half_plus_two('version_labels { key: "next" value: 1 }')))
    flags = [
        f"--model_config_file={file}",
        "--model_config_file_poll_wait_seconds=1",
        "--allow_version_labels_for_unavailable_models",
    ]
    with ModelServer(*flags) as server:
        client = Client(server)
        not_loaded = "NOT_FOUND", "Servable not found for request: Specific(m, 1)"
        assert refused(client.predict, "m", label="next") == not_loaded

        file.write_text("garbage {}")
        server.wait_for(f"Failed to read ModelServerConfig file: Invalid protobuf file: '{file}'")
        server.wait_for(r'Error parsing text-format tensorflow.serving.ModelServerConfig: 1:1: .*"garbage"')
        assert client.predict("m") == ([3.0], 2)

        file.write_text(config_of(half_plus_two('version_labels { key: "next" value: 55 }')))
        server.wait_for("PollFilesystemAndReloadConfig failed to ReloadConfig: Request to assign label to version 55")
        assert refused(client.predict, "m", label="next") == not_loaded

        file.write_text(config_of(half_plus_two(), half_plus_two(name="n")))
        server.wait_for(r"Successfully loaded servable version \{name: n version: 2\}")
        assert client.predict("n") == ([3.0], 2)


def test_the_warm_up_file_is_replayed_and_only_what_ignores_the_log_level_is_logged(tmp_path: Path) -> None:
    monitoring, port = tmp_path / "monitoring.config", free_port()
    monitoring.write_text("prometheus_config { enable: true }")
    flags = [
        "--model_name=warm",
        f"--model_base_path={MODELS}/warm",
        f"--rest_api_port={port}",
        f"--monitoring_config_file={monitoring}",
        "--enable_serialization_as_tensor_content=true",
        "--enable_batching",
    ]
    with ModelServer(*flags, ready="Finished reading warmup data .* Number of warmup records read: 1") as server:
        server.wait_for("Flags without effect on Tandem's local model server: --enable_batching")
        server.wait_for("Exporting HTTP/REST API at:localhost")
        with urllib.request.urlopen(f"http://localhost:{port}/monitoring/prometheus/metrics") as response:
            page = response.read().decode()
        warmed = f':tensorflow:serving:model_warmup_latency_count{{model_path="{MODELS}/warm/123",status="OK"}} 1\n'
        assert warmed in page
        server.kill()
        server.lines.clear()
        server.env["TF_CPP_MIN_LOG_LEVEL"] = "2"
        server.ready = "Entering the event loop"
        server.start()
        ours = [line for line in server.lines if "serving" in line or "NET_LOG" in line or "loader_harness" in line]
        assert [line.partition("] ")[2].partition(" {")[0] for line in ours] == [
            "Approving load for servable version",
            "Loading servable version",
            "Successfully loaded servable version",
            "NET_LOG: Entering the event loop ...",
        ]


def test_a_warm_up_request_that_fails_fails_the_load(tmp_path: Path) -> None:
    shutil.copytree(MODELS / "warm", tmp_path / "warm")
    file = tmp_path / "warm/123/assets.extra/tf_serving_warmup_requests"
    file.write_bytes(file.read_bytes()[:-5])
    flags = [f"--model_base_path={tmp_path}/warm", "--max_num_load_retries=0"]
    with ModelServer(*flags, ready="") as server:
        assert server.wait() == 255
        assert "DATA_LOSS: truncated record at 0. Please verify your warmup data is in TFRecord" in server.stdout()


def test_a_taken_rest_port_is_no_reason_not_to_serve() -> None:
    with socket.socket(socket.AF_INET6) as taken:
        taken.bind(("::", 0))
        taken.listen()
        port = taken.getsockname()[1]
        flags = ["--model_name=one", f"--model_base_path={MODELS}/one", f"--rest_api_port={port}", "--nope=1"]
        with ModelServer(*flags, ready=f"Failed to start HTTP Server at localhost:{port}") as server:
            assert Client(server).predict("one") == ([2.5], 123)
            server.kill()
            assert server.stdout().startswith(
                "unknown argument: --nope=1\nusage: tandem model-server\nFlags:\n\t--port="
            )


def test_a_rest_port_that_is_the_grpc_port_is_skipped() -> None:
    port = free_port()
    flags = [f"--port={port}", f"--rest_api_port={port}", f"--model_base_path={MODELS}/one"]
    with ModelServer(*flags, ready="server_options.http_port cannot be same as grpc_port") as server:
        channel = grpc.insecure_channel(f"localhost:{port}")
        grpc.channel_ready_future(channel).result(timeout=10)
        server.wait_for(f"Running gRPC ModelServer at 0.0.0.0:{port}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_once_and_cuts_what_is_in_flight(number: signal.Signals) -> None:
    with ModelServer("--model_name=multi", f"--model_base_path={MODELS}/multi") as server:
        request = pb.PredictRequest(model_spec=pb.ModelSpec(name="multi", signature_name="slow"))
        request.inputs["x"].CopyFrom(tf.TensorProto(dtype=tf.DT_FLOAT, float_val=[1e6]))
        request.inputs["x"].tensor_shape.dim.add(size=1)
        channel = server.channel()
        grpc.channel_ready_future(channel).result(timeout=10)
        in_flight = channel.unary_unary(PREDICT).future(request.SerializeToString())
        said = len(server.lines)
        assert server.kill(number) == -number
        assert in_flight.exception().code() is grpc.StatusCode.UNAVAILABLE
        assert server.lines[said:] == []
        assert stat.S_ISSOCK(server.socket.stat().st_mode)
        if number is signal.SIGTERM:  # a new one starts over the stale socket file
            server.start()
            assert channel.unary_unary("/x/y").future(b"", wait_for_ready=True).code() is grpc.StatusCode.UNIMPLEMENTED


def test_version_and_help_are_printed_to_stdout() -> None:
    def run(flag: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "deploy.local.model_server", flag]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    version, usage = run("--version"), run("--help")
    assert version.returncode == 0
    assert version.stdout.splitlines() == [
        "TensorFlow ModelServer: 2.19.1 (tandem model-server)",
        "TensorFlow Library: 2.19.1",
    ]
    assert usage.returncode == 255
    assert usage.stdout.startswith("usage: tandem model-server\nFlags:\n")
