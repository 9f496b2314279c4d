"""What being observed takes: TensorFlow Serving's log followed, and a `/metrics` page with all that it and we count."""

import http.client
import itertools
import os
import statistics
import time
from dataclasses import dataclass, replace

from tests.bench.measure import Bench, Wrong, wait
from tests.bench.peers import Peer
from tests.bench.processes import usage
from tests.golden.conftest import DATA
from tests.pages import Pages

LINES = 200_000
PAGES = 200
_LINE = (
    "2026-11-22 13:57:24.{:06d}: I tensorflow_serving/core/loader_harness.cc:95] line {} of the log that is followed\n"
)
_TAIL = 1 << 16


@dataclass(frozen=True)
class Observed:
    """`lines` of the log in a second of the whole adapter's CPU, `added` bytes of memory that following them took; `page` is
    the median of seconds that a `/metrics` takes, which has so many `series`.
    """

    lines: float
    added: int
    page: float
    series: int


def observed(bench: Bench, peer: Peer) -> Observed:
    """Measure the adapter while it is watched, with no requests beside. Raises Wrong where lines are missed or doubled."""
    logs, data = bench.directory / "logs", bench.directory / "data"
    logs.mkdir()
    data.mkdir()
    (logs / "tfs.stderr.0").touch()
    # As TensorFlow Serving had it after requests of all kinds.
    with Pages(body=(DATA / "metrics_after_rest.txt").read_bytes()).served() as url:
        settings = {"ADAPTER_TFS_LOGS": str(logs), "ADAPTER_ALLOC_DATA": str(data), "ADAPTER_TFS_METRICS_URL": url}
        watched = replace(peer, environment={**peer.environment, **settings})
        running = bench.start(watched, bench.stub())
        assert running.process is not None
        wait(lambda: _said(bench, peer, b"ready: "), running.process, peer.name)
        lines, added = _followed(bench, peer, running.process.pid)
        times, page = _pages(running.port)
        bench.processes.stop_all()
    series = sum(1 for line in page.splitlines() if line and not line.startswith(b"#"))
    return Observed(lines, added, statistics.median(times), series)


def _followed(bench: Bench, peer: Peer, pid: int) -> tuple[float, int]:
    """Lines a second of CPU, and bytes of memory that came on top, for a file that is there all at once."""
    text = "".join(itertools.starmap(_LINE.format, ((n % 1_000_000, n) for n in range(LINES))))
    written = bench.directory / "written"
    written.write_text(text)
    before = usage(pid)
    written.replace(bench.directory / "logs" / "tfs.stderr.1")
    last = b"line %d of the log" % (LINES - 1)
    most = before.rss
    while not _said(bench, peer, last):
        most = max(most, usage(pid).rss)
        time.sleep(0.05)
    cpu = usage(pid).cpu - before.cpu
    found = (bench.directory / f"{peer.name}.log").read_bytes().count(b" of the log that is followed")
    if found != LINES:
        raise Wrong(f"{found} of {LINES} lines were said")
    return LINES / cpu, most - before.rss


def _pages(port: int) -> tuple[list[float], bytes]:
    times, page = [], b""
    for _ in range(PAGES):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        began = time.perf_counter()
        connection.request("GET", "/metrics")
        page = connection.getresponse().read()
        times.append(time.perf_counter() - began)
        connection.close()
    return times, page


def _said(bench: Bench, peer: Peer, words: bytes) -> bool:
    """Whether they are near the end of what it has printed."""
    with (bench.directory / f"{peer.name}.log").open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
        return words in file.read()
