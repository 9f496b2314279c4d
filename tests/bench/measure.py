"""A run: the backend and the peers started and checked, then measured one at a time."""

import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from adapter.inference.wire import predict_response
from tests.bench.peers import SERVERS, Backend, Peer
from tests.bench.processes import Cores, Processes, Usage, usage
from tests.bench.tools import go_programs
from tests.bench.workloads import Workload
from tests.servers import free_port

PATIENCE = 60.0
POLL = 0.005


@dataclass(frozen=True)
class Sample:
    """One round of one peer: seconds, but for `rate` (requests a second) and `rss` (bytes); CPU is that of one request."""

    peer: str
    workload: str
    concurrency: int
    round: int
    requests: int
    rate: float
    p50: float
    p99: float
    longest: float
    cpu: float
    backend_cpu: float
    rss: int
    failure: str = ""


class Wrong(Exception):
    """A peer that does not answer, or not what it should."""


@dataclass
class Running:
    """A peer that answers; `port` is its own, `process` None for what was not started here."""

    peer: Peer
    port: int = 0
    process: "subprocess.Popen[bytes] | None" = None

    def usage(self) -> Usage:
        return usage(self.process.pid) if self.process else Usage()


class Bench:
    """Everything of one run, its files in the processes' directory."""

    def __init__(self, processes: Processes, cores: Cores) -> None:
        self.processes = processes
        self.cores = cores
        self.programs = go_programs()
        self.socket = processes.directory / "backend.sock"

    @property
    def directory(self) -> Path:
        return self.processes.directory

    def backend(self) -> Backend:
        """The TensorFlow Serving that the environment names, or else the stub, started."""
        rest = os.environ.get("BENCH_TFS_REST", "")
        given = os.environ.get("BENCH_TFS_GRPC")
        return Backend(given, None, rest) if given else replace(self.stub(), rest=rest)

    def stub(self) -> Backend:
        """The stub, started and listening."""
        process = self.processes.start("stub", (self.programs / "stub", "-socket", self.socket), self.cores.rest)
        wait(lambda: b"listening" in (self.directory / "stub.log").read_bytes(), process, "the stub")
        return Backend(f"unix://{self.socket}", process.pid, "")

    def start(self, peer: Peer, backend: Backend) -> Running:
        """Start a peer; it may not answer yet."""
        if peer.format is None:
            return Running(peer)
        if peer.command is None:
            return Running(peer, int(peer.address.rpartition(":")[2]))
        port = free_port()
        env = peer.variables(port, backend)
        process = self.processes.start(peer.name, peer.command(port, backend), self.cores.peer, env)
        return Running(peer, port, process)

    def check(self, running: Running, workload: Workload, backend: Backend) -> None:
        """Ask once and check the values; what the load needs is written to files. Raises Wrong."""
        request, answer = self._files(running.peer, workload)
        if running.peer.format is None:
            request.write_bytes(workload.grpc())
            self._floor(running, workload, backend, 1, 0.01)
            outputs, _ = predict_response(answer.read_bytes())
            y = outputs["y"].data
        else:
            _, body = running.peer.format.request(workload)
            request.write_bytes(body)
            headers, answered = self._ask(running, workload)
            y = running.peer.format.y(headers, answered)
            answer.write_bytes(answered)
        if y.shape != workload.y.shape or not np.allclose(y, workload.y, rtol=1e-6, atol=1e-6):
            raise Wrong(f"{workload.name}: wrong values, shape {y.shape}")

    def wait_until_right(self, running: Running, workloads: Iterable[Workload], backend: Backend) -> None:
        """Check every workload, with patience for a peer that still starts. Raises Wrong."""
        end = time.monotonic() + PATIENCE
        for workload in workloads:
            while True:
                try:
                    self.check(running, workload, backend)
                    break
                except OSError as error:
                    dead = running.process is not None and running.process.poll() is not None
                    if dead or time.monotonic() > end:
                        words = self.processes.last_words(running.peer.name) if running.process else ""
                        raise Wrong(f"{'it ended' if dead else error}: {words}") from None
                    time.sleep(0.1)

    def sample(
        self, running: Running, workload: Workload, backend: Backend, concurrency: int, seconds: float, number: int
    ) -> Sample:
        """Measure one round."""
        backend_before = usage(backend.pid).cpu if backend.pid else 0.0
        before = running.usage()
        if running.peer.format is None:
            result = self._floor(running, workload, backend, concurrency, seconds)
        else:
            result = self.load(running, workload, concurrency, seconds=seconds)
        after = running.usage()
        backend_cpu = usage(backend.pid).cpu - backend_before if backend.pid else 0.0
        requests = max(result["requests"], 1)
        return Sample(
            running.peer.name,
            workload.name,
            concurrency,
            number,
            result["requests"],
            result["requests"] / result["seconds"],
            result["p50"],
            result["p99"],
            result["max"],
            result.get("cpu", after.cpu - before.cpu) / requests,
            backend_cpu / requests,
            after.rss,
            result["first_failure"] or ("other answers than expected" if result["failures"] else ""),
        )

    def load(self, running: Running, workload: Workload, concurrency: int, **limits: float) -> dict[str, Any]:
        """What the load program says of `seconds=` or `requests=` of this workload."""
        return self.result(self.begin_load(running, workload, concurrency, **limits))

    def begin_load(
        self, running: Running, workload: Workload, concurrency: int, **limits: float
    ) -> "subprocess.Popen[str]":
        """The same, not waited for; give it to `result`."""
        assert running.peer.format is not None
        headers, _ = running.peer.format.request(workload)
        request, answer = self._files(running.peer, workload)
        url = f"http://127.0.0.1:{running.port}{running.peer.format.path.format(model=workload.model)}"
        files = ("-url", url, "-body", request, "-answer", answer, "-headers", headers)
        limit = [word for name, value in limits.items() for word in (f"-{name}", value)]
        return self.processes.begin((self.programs / "load", *files, "-c", concurrency, *limit), self.cores.rest)

    def result(self, process: "subprocess.Popen[str]") -> dict[str, Any]:
        """Wait for a program's one line of JSON. Raises Wrong."""
        output, _ = process.communicate(timeout=600)
        if process.returncode != 0:
            raise Wrong(f"{process.args!r:.200} ended with {process.returncode}")
        result: dict[str, Any] = json.loads(output)
        return result

    def _floor(
        self, running: Running, workload: Workload, backend: Backend, concurrency: int, seconds: float
    ) -> dict[str, Any]:
        request, answer = self._files(running.peer, workload)
        floor = (sys.executable, SERVERS / "floor.py", backend.grpc, request, answer, concurrency, seconds)
        return self.result(self.processes.begin(floor, self.cores.peer))

    def _files(self, peer: Peer, workload: Workload) -> tuple[Path, Path]:
        stem = f"{peer.name}-{workload.name}"
        return self.directory / f"{stem}.request", self.directory / f"{stem}.answer"

    def _ask(self, running: Running, workload: Workload) -> tuple[dict[str, str], bytes]:
        assert running.peer.format is not None
        lines, body = running.peer.format.request(workload)
        headers = dict(line.split(": ", 1) for line in lines.splitlines())
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)
        try:
            connection.request("POST", running.peer.format.path.format(model=workload.model), body, headers)
            response = connection.getresponse()
            answer = response.read()
        except http.client.HTTPException as error:
            raise Wrong(repr(error)) from None
        finally:
            connection.close()
        if response.status in (502, 503):
            raise ConnectionError(f"status {response.status}")  # still starting
        if response.status != 200:
            raise Wrong(f"{workload.name}: status {response.status}, {answer[:100]!r}")
        return dict(response.headers), answer


def wait(done: Any, process: "subprocess.Popen[bytes]", what: str) -> None:
    """Poll until `done()`; the process must live that long."""
    end = time.monotonic() + PATIENCE
    while not done():
        if process.poll() is not None or time.monotonic() > end:
            raise Wrong(f"{what} did not come up")
        time.sleep(POLL)


class Samples:
    """All samples of a run, and what they say by peer, workload and concurrency."""

    def __init__(self, samples: Iterable[Sample] = ()) -> None:
        self.all = list(samples)

    def of(self, peer: str, workload: str, concurrency: int) -> list[Sample]:
        """The rounds of one peer, or none if one of them failed."""
        found = [s for s in self.all if (s.peer, s.workload, s.concurrency) == (peer, workload, concurrency)]
        return [] if any(s.failure for s in found) else found

    def failure(self, peer: str, workload: str, concurrency: int) -> str:
        """Why `of` is empty, or ""."""
        found = [s for s in self.all if (s.peer, s.workload, s.concurrency) == (peer, workload, concurrency)]
        return next((s.failure for s in found if s.failure), "")

    def median(self, value: str, peer: str, workload: str, concurrency: int) -> float | None:
        """The median of the rounds."""
        found = [getattr(sample, value) for sample in self.of(peer, workload, concurrency)]
        return statistics.median(found) if found else None

    def ratio(self, value: str, ours: tuple[str, str], theirs: tuple[str, str], concurrency: int) -> float | None:
        """The median, over the rounds, of our (peer, workload) by theirs within the same round."""
        mine = {sample.round: getattr(sample, value) for sample in self.of(*ours, concurrency)}
        others = {sample.round: getattr(sample, value) for sample in self.of(*theirs, concurrency)}
        found = [mine[number] / others[number] for number in mine if others.get(number)]
        return statistics.median(found) if found else None


def machine() -> str:
    """What it ran on, without saying whose it is."""
    info = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.*)", info)
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    go = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, check=True).stdout.strip()
    parts = [
        f"{len(os.sched_getaffinity(0))} cores ({model[1] if model else os.uname().machine})",
        f"{round(int(memory[1]) / 2**20)} GiB" if memory else "",
        f"Linux {os.uname().release.split('-')[0]}",
        f"Python {sys.version.split()[0]}",
        f"Go {go.removeprefix('go')}",
        f"load average {os.getloadavg()[0]:.1f} at the end",
    ]
    return ", ".join(part for part in parts if part)
