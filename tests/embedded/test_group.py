"""`tandem run`: the embedded group starts, heals and stops both tasks as Nomad does, and leaves nothing behind."""

import http.client
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from tests.servers import free_port


class Run:
    """`tandem run BUNDLE` as a person starts it; `lines` is what it shows."""

    def __init__(self, bundle: Path, directory: Path, *options: str) -> None:
        self.port = free_port()
        self.directory = directory
        self.lines: list[str] = []
        self._more = threading.Condition()
        self._ended = False
        command = [sys.executable, "-m", "deploy.cli", "run", str(bundle), *options, "--port", str(self.port)]
        self.process = subprocess.Popen(
            [*command, "--dir", str(directory)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.wait()

    def wait_for(self, pattern: str, after: int = 0) -> str:
        """The first line, from number `after` on, in which this is found."""
        expression = re.compile(pattern)

        def found() -> str | None:
            return next((line for line in self.lines[after:] if expression.search(line)), None)

        with self._more:
            self._more.wait_for(lambda: self._ended or found() is not None, 60)
            line = found()
        assert line is not None, "\n".join(self.lines[-40:])
        return line

    def wait(self) -> int:
        status = self.process.wait(60)
        self._reader.join(60)
        return status

    def interrupt(self) -> int:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        return self.wait()

    @property
    def allocation(self) -> Path:
        (allocation,) = self.directory.iterdir()
        return allocation

    def pid_of(self, module: str) -> int:
        """The child that runs this module."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        (pid,) = [int(c) for c in children if module in Path(f"/proc/{c}/cmdline").read_text().split("\0")]
        return pid

    def get(self, path: str, body: str | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("POST" if body else "GET", path, body)
        response = connection.getresponse()
        try:
            return response.status, response.read()
        finally:
            connection.close()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as output:
            for line in output:
                with self._more:
                    self.lines.append(line.rstrip("\n"))
                    self._more.notify_all()
        with self._more:
            self._ended = True
            self._more.notify_all()


@pytest.fixture
def run(source: Path, tmp_path: Path) -> Iterator[Run]:
    with Run(source, tmp_path / "tandem") as running:
        running.wait_for(r"REST +http")
        yield running


PREDICT = ("/v1/models/half_plus_two:predict", '{"instances": [1.0, 2.0, 5.0]}')


def test_it_says_where_it_is_and_a_request_that_works(run: Run) -> None:
    run.wait_for(rf"Swagger +http://127\.0\.0\.1:{run.port}/docs")
    curl = run.wait_for(r"try +curl").partition("try")[2].split()
    done = subprocess.run(curl, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"predictions": [2.5]}


def test_each_line_of_tfs_is_shown_once_as_the_adapter_tells_it(run: Run) -> None:
    run.wait_for(r"tfs .*INFO +Running gRPC ModelServer at")
    run.interrupt()
    assert len([line for line in run.lines if "Successfully loaded servable version" in line]) == 1
    assert "server.cc" not in "\n".join(run.lines)


def test_the_allocation_looks_as_nomad_lays_it_out(run: Run) -> None:
    for path in ("alloc/data", "alloc/logs", "alloc/tmp", "alloc/bundle/bundle.toml"):
        assert (run.allocation / path).exists(), path
    for task in ("tfs", "adapter"):
        for part in ("local", "secrets", "tmp"):
            assert (run.allocation / task / part).is_dir()
        assert (run.allocation / "alloc" / "logs" / f"{task}.stdout.0").exists()
    assert "Running gRPC ModelServer" in (run.allocation / "alloc" / "logs" / "tfs.stderr.0").read_text()
    first = (run.allocation / "alloc" / "logs" / "adapter.stdout.0").read_text().splitlines()[0]
    assert json.loads(first)["resource"]["nomad.alloc.id"] == run.allocation.name


def test_a_dead_sidecar_is_restarted_and_the_group_heals(run: Run) -> None:
    seen = len(run.lines)
    os.kill(run.pid_of("deploy.local.model_server"), signal.SIGKILL)
    run.wait_for("degraded: .*cannot be reached", after=seen)
    run.wait_for("tfs ended .signal SIGKILL.; restarting", after=seen)
    run.wait_for("tfs .*Killed by SIGKILL: tensorflow_model_server$", after=seen)
    run.wait_for("ready: every check passes", after=seen)
    status, body = run.get(*PREDICT)
    assert (status, json.loads(body)) == (200, {"predictions": [2.5, 3.0, 4.5]})


def test_ctrl_c_drains_the_adapter_before_tfs_ends_and_leaves_nothing_behind(run: Run) -> None:
    tfs, adapter = run.pid_of("deploy.local.model_server"), run.pid_of("adapter")
    logs = run.allocation / "alloc" / "logs"
    assert logs.is_dir()
    assert run.interrupt() == 0
    run.wait_for("draining: signal SIGTERM")
    run.wait_for("stopped: every request is answered")
    assert not list(run.directory.iterdir())
    assert not Path(f"/proc/{tfs}").exists()
    assert not Path(f"/proc/{adapter}").exists()


def test_post_shutdown_ends_both_tasks(run: Run) -> None:
    tfs = run.pid_of("deploy.local.model_server")
    assert run.get("/shutdown", "{}")[0] == 202
    assert run.wait() == 0
    assert not Path(f"/proc/{tfs}").exists()


def test_a_second_ctrl_c_forces(run: Run) -> None:
    with socket.create_connection(("127.0.0.1", run.port)) as unfinished:
        unfinished.sendall(b"POST /v1/models/half_plus_two:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        while b"\nhttp_server_active_requests 2.0\n" not in run.get("/metrics")[1]:
            pass
        run.process.send_signal(signal.SIGINT)
        run.wait_for("draining: signal SIGTERM")
        assert run.interrupt() == 1
    run.wait_for("cut off: a second signal forces")


def test_even_a_killed_group_leaves_no_process(run: Run) -> None:
    tasks = [os.pidfd_open(run.pid_of(module)) for module in ("deploy.local.model_server", "adapter")]
    run.process.kill()
    run.wait()
    for task in tasks:  # a pidfd is readable once its process has ended (pidfd_open(2))
        assert ended(task)
        os.close(task)


def test_a_sidecar_that_fails_for_good_fails_the_group_as_one(source: Path, tmp_path: Path) -> None:
    (source / "models" / "half_plus_two" / "1").unlink()
    (source / "models" / "half_plus_two" / "1").mkdir()
    (source / "models" / "half_plus_two" / "1" / "saved_model.pb").write_bytes(b"not a proto")
    with Run(source, tmp_path / "tandem") as run:
        run.wait_for("failed: |Loading servable")
        for _ in range(6):
            seen = len(run.lines)
            os.kill(run.pid_of("deploy.local.model_server"), signal.SIGKILL)
            if "for good" in run.wait_for("restarting in|for good", after=seen):
                break
            run.wait_for(r"Adding/updating models", after=seen)
        assert run.wait() == 1
        run.wait_for("draining: signal SIGTERM")


def test_a_packed_bundle_runs_like_its_source(source: Path, tmp_path: Path) -> None:
    packed = tmp_path / "halves.tar.zst"
    command = [sys.executable, "-m", "deploy.cli", "pack", "--no-run", str(source), "-o", str(packed)]
    first = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    again = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert first == again
    assert re.search(r"halves@1\.2\.3  sha256:[0-9a-f]{64}", first)
    with Run(packed, tmp_path / "tandem") as run:
        run.wait_for(r"REST +http")
        assert run.get(*PREDICT)[0] == 200
        assert run.interrupt() == 0


def test_a_model_answers_by_the_labels_that_its_bundle_gives(source: Path, tmp_path: Path) -> None:
    with (source / "bundle.toml").open("a") as manifest:
        manifest.write("labels = { stable = 1 }\n")
    with Run(source, tmp_path / "tandem") as run:
        run.wait_for(r"REST +http")
        body = '{"instances": [1.0]}'
        assert run.get("/v1/models/half_plus_two/labels/stable:predict", body) == (200, b'{"predictions":[2.5]}')
        assert run.get("/v1/models/half_plus_two/labels/canary:predict", body)[0] == 400
        assert run.interrupt() == 0


@pytest.mark.parametrize(
    ("manifest", "named"),
    [
        ('name = "x"\nversion = "1"\n', "models"),
        ('name = "UPPER"\nversion = "1"\n[[models]]\nname = "m"\nversion = 1\n', "name"),
        ('name = "x"\nversion = "1"\n[[models]]\nname = "m"\nversion = 3\n', "models/m/3/saved_model.pb"),
        ('name = "x"\nversion = "1"\ncolour = "red"\n[[models]]\nname = "m"\nversion = 1\n', "colour"),
        ("name = [", "bundle.toml"),
    ],
)
def test_a_bundle_that_cannot_be_used_is_refused_with_status_2_and_the_reason(
    manifest: str, named: str, tmp_path: Path
) -> None:
    (tmp_path / "bundle.toml").write_text(manifest)
    with Run(tmp_path, tmp_path / "tandem") as run:
        assert run.wait() == 2
        assert named in "\n".join(run.lines)


def ended(pidfd: int) -> bool:
    return bool(select.select([pidfd], [], [], 10)[0])


def test_the_group_keeps_the_contract(run: Run) -> None:
    command = [sys.executable, "-m", "deploy.cli", "check", f"http://127.0.0.1:{run.port}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
