"""What no throughput shows: how soon the adapter is ready, what it takes when idle, how long small requests wait behind large."""

import contextlib
import http.client
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tests.bench.measure import Bench, Running, Wrong, wait
from tests.bench.peers import Backend, Peer
from tests.bench.processes import usage
from tests.bench.workloads import Workload

LARGE_IN_FLIGHT = 8
# Bytes: near the limit, which is 64 MiB.
LARGEST = 60_000_000


@dataclass(frozen=True)
class Idle:
    """`ready` is from the backend's first listening to the adapter's readiness; `start` from its start, the backend being there;
    `cpu` is a share of one core."""

    start: float
    ready: float
    rss: int
    cpu: float


def idle(bench: Bench, peer: Peer, seconds: float) -> Idle:
    """Measure the adapter with nothing to do."""
    waiting = bench.start(peer, Backend(f"unix://{bench.socket}", None, ""))
    assert waiting.process is not None
    wait(lambda: _status(waiting.port, "/health/live") == 200, waiting.process, peer.name)
    backend = bench.stub()
    begun = time.perf_counter()
    wait(lambda: _status(waiting.port, "/health/ready") == 200, waiting.process, peer.name)
    ready = time.perf_counter() - begun
    bench.processes.stop(waiting.process)

    begun = time.perf_counter()
    running = bench.start(peer, backend)
    assert running.process is not None
    wait(lambda: _status(running.port, "/health/ready") == 200, running.process, peer.name)
    start = time.perf_counter() - begun
    time.sleep(1)  # what starting leaves behind is not idling
    before, begun = usage(running.process.pid), time.perf_counter()
    time.sleep(seconds)
    after, wall = usage(running.process.pid), time.perf_counter() - begun
    bench.processes.stop(running.process)
    bench.processes.stop_all()
    return Idle(start, ready, after.rss, (after.cpu - before.cpu) / wall)


@dataclass(frozen=True)
class Beside:
    """Latencies in seconds of a small request after another, `alone` and `beside` large ones in flight."""

    peer: str
    alone: tuple[float, float, float]
    beside: tuple[float, float, float]
    large_rate: float


def small_beside_large(bench: Bench, running: Running, small: Workload, large: Workload, seconds: float) -> Beside:
    """One connection of small requests, then the same while large ones keep coming on others."""
    alone = bench.load(running, small, 1, seconds=seconds)
    loading = bench.begin_load(running, large, LARGE_IN_FLIGHT, seconds=seconds + 1)
    time.sleep(0.5)  # until all of them are in flight
    beside = bench.load(running, small, 1, seconds=seconds)
    result = bench.result(loading)
    times = [(found["p50"], found["p99"], found["max"]) for found in (alone, beside)]
    return Beside(running.peer.name, times[0], times[1], result["requests"] / result["seconds"])


@dataclass(frozen=True)
class Largest:
    """`waited` is the longest that anybody waited for `/health/live`, in seconds, while a body of `size` bytes was answered."""

    size: int
    waited: float


def beside_the_largest(running: Running) -> Largest:
    """Ask for little, without a pause, while a body near the limit is read, sent on and answered, twice."""
    rng = random.Random(1)
    row = b"[%b]" % b",".join([b"%.5g" % rng.uniform(-10, 10) for _ in range(100)])
    body = b'{"instances":[%b]}' % b",".join([row] * (LARGEST // len(row)))
    waited = 0.0
    small = http.client.HTTPConnection("127.0.0.1", running.port, timeout=60)
    with ThreadPoolExecutor(1) as pool, contextlib.closing(small):
        for _ in range(2):
            large = pool.submit(_predict, running.port, body)
            while not large.done():
                began = time.perf_counter()
                small.request("GET", "/health/live")
                small.getresponse().read()
                waited = max(waited, time.perf_counter() - began)
            if large.result() != 200:
                raise Wrong(f"a body of {len(body)} bytes was answered with {large.result()}")
    return Largest(len(body), waited)


def _predict(port: int, body: bytes) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        connection.request("POST", "/v1/models/half_plus_two:predict", body)
        answer = connection.getresponse()
        while answer.read(1 << 20):
            pass
        return answer.status


def _status(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()
