"""Both tasks in one log: the real adapter beside a real model server whose output is rotated as Nomad rotates it."""

import gzip
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from deploy.local.task import RotatedLog
from tests.adapters import Adapter, Record, event, state
from tests.servers import ModelServer

PREDICT = "/v1/models/half_plus_two:predict"


@pytest.fixture
def allocation(tmp_path: Path) -> Path:
    """The directories `logs`, `data` and `tmp` of an allocation."""
    top = tmp_path / "alloc"
    for part in ("logs", "data", "tmp"):
        (top / part).mkdir(parents=True)
    return top


@pytest.fixture
def start(allocation: Path, bundle: Path) -> Iterator["Start"]:
    started = Start(allocation, bundle)
    yield started
    started.kill()


class Start:
    """Model servers with these flags, one after the other, whose output goes to the allocation's log files."""

    def __init__(self, allocation: Path, bundle: Path) -> None:
        self.target = f"unix://{allocation}/tmp/tfs.sock"
        self._logs = allocation / "logs"
        self._flags = [f"--grpc_socket_path={allocation}/tmp/tfs.sock", "--port=0", "--model_name=half_plus_two"]
        self._flags.append(f"--model_base_path={bundle / 'models' / 'half_plus_two'}")
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self, *flags: str) -> None:
        with (self._logs / "tfs.stdout.0").open("ab") as out, (self._logs / "tfs.stderr.0").open("ab") as err:
            command = [sys.executable, "-m", "deploy.local.model_server", *self._flags, *flags]
            self._process = subprocess.Popen(command, stdout=out, stderr=err)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def of_tfs(words: str) -> Callable[[Record], bool]:
    """A record of the task `tfs` that holds these words."""
    return lambda record: record["attributes"].get("tandem.task") == "tfs" and words in record["body"]


def test_tensorflow_servings_start_is_in_the_adapters_log(start: Start, allocation: Path, bundle: Path) -> None:
    start()
    with Adapter(tfs_grpc=start.target, tfs_logs=allocation / "logs", bundle=bundle) as adapter:
        loading = adapter.wait_for(of_tfs("Loading servable version {name: half_plus_two version: 1}"))
        running = adapter.wait_for(of_tfs("Running gRPC ModelServer at"))
        adapter.ready()
        page = adapter.request("GET", "/metrics").body.decode()
    assert loading["severity_text"] == "INFO"
    assert loading["attributes"]["code.file.path"] == "loader_harness.cc"
    assert loading["attributes"]["thread.id"] > 0
    assert running["attributes"]["code.file.path"] == "tensorflow_serving/model_servers/server.cc"
    assert running["attributes"]["log.iostream"] == "stderr"
    own = adapter.wait_for(event("tandem.start"))
    assert running["resource"] == own["resource"]
    assert abs(_second(running) - _second(own)) < 60
    (lines,) = [line for line in page.splitlines() if line.startswith("tandem_tfs_log_lines_total")]
    assert float(lines.split()[-1]) >= 10


def test_a_model_that_cannot_be_loaded_is_named_in_health_until_it_can(
    start: Start, allocation: Path, bundle: Path
) -> None:
    model = bundle / "models" / "half_plus_two" / "1"
    good = model.readlink()
    model.unlink()
    model.mkdir()
    (model / "saved_model.pb").write_bytes(b"not a proto")
    start("--load_retry_interval_micros=100000", "--max_num_load_retries=2")
    with Adapter(tfs_grpc=start.target, tfs_logs=allocation / "logs", bundle=bundle) as adapter:
        said = adapter.wait_for(of_tfs("Failed to start server. Error: "))
        assert said["severity_text"] == "ERROR"
        reason = _reason(adapter, "tfs", "Failed to start")
        assert reason.startswith("TensorFlow Serving cannot be reached")
        assert "{name: half_plus_two version: 1}" in reason
        assert "Failed to start server. Error: " in reason
        start.kill()
        (model / "saved_model.pb").unlink()
        model.rmdir()
        model.symlink_to(good)
        start()
        adapter.ready()
        health = adapter.request("GET", "/health")
        assert "its log says" not in health.body.decode().partition('"history"')[0]


def test_a_new_version_that_cannot_be_loaded_is_named_in_its_models_check(
    start: Start, allocation: Path, bundle: Path
) -> None:
    start("--load_retry_interval_micros=50000", "--max_num_load_retries=1000", "--file_system_poll_wait_seconds=1")
    broken = bundle / "models" / "half_plus_two" / "2"
    with Adapter(tfs_grpc=start.target, tfs_logs=allocation / "logs", bundle=bundle) as adapter:
        adapter.ready()
    broken.mkdir()
    (broken / "saved_model.pb").write_bytes(b"not a proto")
    (bundle / "bundle.toml").write_text((bundle / "bundle.toml").read_text().replace("version = 1\n", "version = 2\n"))
    with Adapter(tfs_grpc=start.target, tfs_logs=allocation / "logs", bundle=bundle) as adapter:
        adapter.wait_for(of_tfs("Loading servable: {name: half_plus_two version: 2} failed: "))
        reason = _reason(adapter, "model:half_plus_two", "its log says")
        assert reason.startswith("expected version 2 AVAILABLE, found version 1 AVAILABLE")
        assert "its log says: Loading servable: {name: half_plus_two version: 2} failed: " in reason


def test_over_twenty_rotations_and_three_kills_each_line_comes_exactly_once(allocation: Path) -> None:
    """Killed while lines pour in, wherever it is just then: what the platform kept of its output holds each once."""
    log = RotatedLog(allocation / "logs" / "tfs.stderr", max_files=400, max_size=20_000)
    own = RotatedLog(allocation / "logs" / "adapter.stdout")
    target = f"unix://{allocation}/tmp/none.sock"
    numbers = itertools.count()
    for said_before_the_kill in (700, 1500, 3100, None):
        with Adapter(tfs_grpc=target, tfs_logs=allocation / "logs", keep=own.write) as adapter:
            batch = [next(numbers) for _ in range(4000)]
            for number in batch:
                log.write(f"2026-11-22 13:57:24.343859: I a.cc:1] number {number:06}\n".encode())
            if said_before_the_kill is None:
                adapter.wait_for(of_tfs(f"number {batch[-1]:06}"))
            else:
                adapter.wait_for(of_tfs(f"number {batch[said_before_the_kill]:06}"))
                os.kill(adapter.pid, signal.SIGKILL)
                adapter.wait()
    log.close()
    own.close()
    assert len(list((allocation / "logs").glob("tfs.stderr.*"))) > 20
    kept = (allocation / "logs" / "adapter.stdout.0").read_bytes().splitlines()
    said = [json.loads(line)["body"] for line in kept if line.endswith(b"}")]
    assert [int(body.split()[1]) for body in said if body.startswith("number ")] == list(range(next(numbers)))


def test_the_last_lines_before_the_end_are_said(allocation: Path, start: Start, bundle: Path) -> None:
    start()
    with Adapter(tfs_grpc=start.target, tfs_logs=allocation / "logs", bundle=bundle) as adapter:
        adapter.ready()
        with (allocation / "logs" / "tfs.stderr.0").open("ab") as log:
            log.write(b"2026-11-22 13:57:24.343859: I a.cc:1] the last word\n")
        assert adapter.stop() == 0
        adapter.wait_for(of_tfs("the last word"))
        adapter.wait_for(state("stopped"))


def test_an_access_record_has_the_sizes_of_both_bodies(server: ModelServer, bundle: Path) -> None:
    question = json.dumps({"instances": [1.0, 2.0]})
    padded = question.encode() + b" " * 1_000_000
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(padded), padded)
    compressed = gzip.compress(padded)
    with Adapter(tfs_grpc=server.target, bundle=bundle) as adapter:
        adapter.ready()
        asked = (
            ("POST", question, {}, len(question)),
            ("POST", chunked, {"Transfer-Encoding": "chunked"}, len(padded)),
            ("POST", compressed, {"Content-Encoding": "gzip"}, len(compressed)),
            ("GET", None, {}, 0),
            ("HEAD", None, {}, 0),
        )
        for number, (method, body, headers, received) in enumerate(asked):
            path = PREDICT if body else "/v1/models/half_plus_two"
            answer = adapter.request(method, path, body, {**headers, "X-Request-Id": f"r{number}"})
            record = adapter.wait_for(lambda r, own=f"r{number}": r["attributes"].get("http.request.id") == own)
            assert record["attributes"]["http.request.body.size"] == received
            assert record["attributes"]["http.response.body.size"] == len(answer.body)
            assert (answer.body == b"") == (method == "HEAD")


def _reason(adapter: Adapter, check: str, words: str) -> str:
    """The check's reason once it holds these words: the watcher looks five times a second."""
    for _ in range(2000):
        reason: str = adapter.request("GET", "/health").json["checks"].get(check, {"reason": ""})["reason"]
        if words in reason:
            break
    return reason


def _second(record: Record) -> float:
    return datetime.fromisoformat(record["timestamp"][:26] + "+00:00").timestamp()
