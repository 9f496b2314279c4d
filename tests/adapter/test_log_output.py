"""Whatever becomes of the adapter's stdout costs log records, never requests: a reader that stands still, none, a full disk."""

import http.client
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.local.task import RotatedLog
from tests.adapters import Adapter, Record, event
from tests.metrics import read_text, value
from tests.servers import ModelServer, free_port

QUESTION = b'{"instances": [1.0]}'
PREDICT = "/v1/models/half_plus_two:predict"
DROPPED = "tandem_log_records_dropped_total"
# The adapter as it is, but for a log of which little may wait.
SMALL = "from adapter.telemetry import logs; logs.MAX_BUFFER = 60_000; from adapter.__main__ import main; main()"
# More than the pipe holds, and the reader's own buffer, and 60,000 bytes.
ENOUGH = 600


class Platform:
    """Reads the adapter's stdout while it is told to; keeps every line."""

    def __init__(self, log: RotatedLog | None = None) -> None:
        self.reading = threading.Event()
        self.reading.set()
        self._log = log

    def __call__(self, line: bytes) -> None:
        self.reading.wait(60)
        if self._log is not None:
            self._log.write(line)


def predictions(port: int, number: int) -> list[int]:
    """The statuses of so many predictions, one after the other."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    statuses = []
    for _ in range(number):
        connection.request("POST", PREDICT, QUESTION)
        answer = connection.getresponse()
        answer.read()
        statuses.append(answer.status)
    connection.close()
    return statuses


def dropped(port: int) -> float:
    """As the metrics page has it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/metrics")
    found = value(read_text(connection.getresponse().read()), DROPPED)
    connection.close()
    assert found is not None
    return found


def test_a_reader_that_stands_still_costs_records_alone_which_are_counted_and_announced(
    server: ModelServer, bundle: Path
) -> None:
    platform = Platform()
    with Adapter(keep=platform, program=("-c", SMALL), tfs_grpc=server.target, bundle=bundle) as adapter:
        adapter.ready()
        platform.reading.clear()
        assert set(predictions(adapter.port, ENOUGH)) == {200}
        assert adapter.request("GET", "/health/live").status == 200
        assert dropped(adapter.port) > 0
        platform.reading.set()
        _until(lambda: _announced(adapter) == dropped(adapter.port))
        count = dropped(adapter.port)
        assert set(predictions(adapter.port, 1)) == {200}
        assert adapter.stop() == 0
    told = next(record for record in adapter.records if event("tandem.log.lost")(record))
    assert told["severity_text"] == "WARN"
    missing = ENOUGH + 1 - sum(1 for record in adapter.records if _is_prediction(record))
    assert 0 < missing <= count


def test_while_its_reader_stands_still_it_drains_in_time(server: ModelServer, bundle: Path) -> None:
    platform = Platform()
    with Adapter(keep=platform, program=("-c", SMALL), tfs_grpc=server.target, bundle=bundle) as adapter:
        adapter.ready()
        platform.reading.clear()
        assert set(predictions(adapter.port, ENOUGH)) == {200}
        adapter.process.send_signal(signal.SIGTERM)
        assert adapter.process.wait(10) == 0
        platform.reading.set()


def test_tensorflow_servings_lines_wait_in_their_files_while_the_reader_stands_still(tmp_path: Path) -> None:
    """And a kill meanwhile takes none with it, and none comes twice: the note waits for the pipe, too."""
    logs = tmp_path / "alloc" / "logs"
    for part in (logs, logs.parent / "data"):
        part.mkdir(parents=True)
    own = RotatedLog(logs / "adapter.stdout")
    platform = Platform(own)
    numbers = range(20_000)
    with Adapter(keep=platform, tfs_grpc="127.0.0.1:1", tfs_logs=logs) as adapter:
        platform.reading.clear()
        with (logs / "tfs.stderr.0").open("a") as log:
            log.writelines(f"2026-11-22 13:57:24.343859: I a.cc:1] number {number}\n" for number in numbers)
        _until_it_is_full(adapter)
        assert dropped(adapter.port) == 0
        os.kill(adapter.pid, signal.SIGKILL)
        platform.reading.set()
        adapter.wait()
    with Adapter(keep=platform, tfs_grpc="127.0.0.1:1", tfs_logs=logs) as following:
        following.wait_for(lambda record: record["body"] == f"number {numbers[-1]}")
    said = [record["body"] for record in (*adapter.records, *following.records) if record["body"].startswith("number")]
    assert said == [f"number {number}" for number in numbers]


@contextmanager
def into(stdout: int, server: ModelServer, bundle: Path) -> Iterator[tuple[int, "subprocess.Popen[bytes]"]]:
    """An adapter's port and process, ready, whose stdout is this descriptor."""
    port = free_port()
    named = {"HOST": "127.0.0.1", "PORT": str(port), "TFS_GRPC": server.target, "BUNDLE": str(bundle)}
    process = subprocess.Popen(
        [sys.executable, "-m", "adapter"],
        stdout=stdout,
        env={**os.environ, **{f"ADAPTER_{name}": text for name, text in named.items()}},
        cwd=Path(__file__).parents[2],
    )
    try:
        _until_ready(port, process)
        yield port, process
    finally:
        process.kill()
        process.wait()


def test_a_reader_that_goes_away_costs_records_alone(server: ModelServer, bundle: Path) -> None:
    reader, writer = os.pipe()
    with into(writer, server, bundle) as (port, process):
        os.close(writer)
        os.close(reader)
        assert set(predictions(port, 20)) == {200}
        server.kill()
        assert set(predictions(port, 1)) == {503}  # said at once, which is written at once
        server.start()
        _until(lambda: dropped(port) > 20)
        _until_ready(port, process)
        process.terminate()
        assert process.wait(20) == 0


def test_with_a_full_disk_it_starts_serves_and_drains(server: ModelServer, bundle: Path) -> None:
    with Path("/dev/full").open("wb") as full, into(full.fileno(), server, bundle) as (port, process):
        assert set(predictions(port, 20)) == {200}
        _until(lambda: dropped(port) > 20)
        process.terminate()
        assert process.wait(20) == 0


def _until(condition: Callable[[], bool]) -> None:
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("it did not come about within half a minute")


def _until_ready(port: int, process: "subprocess.Popen[bytes]") -> None:
    def ready() -> bool:
        assert process.poll() is None, "the adapter has ended"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready") as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    _until(ready)


def _until_it_is_full(adapter: Adapter) -> None:
    """Its reading of the files has come to a halt: as many bytes stand written, and lines read, as a moment before."""
    before, steady = -1.0, 0

    def halted() -> bool:
        nonlocal before, steady
        now = value(read_text(adapter.request("GET", "/metrics").body), "tandem_tfs_log_lines_total") or 0.0
        steady = steady + 1 if now == before > 0 else 0
        before = now
        return steady > 50

    _until(halted)


def _announced(adapter: Adapter) -> int:
    told = filter(event("tandem.log.lost"), adapter.records)
    return sum(record["attributes"]["tandem.log.records_dropped"] for record in told)


def _is_prediction(record: Record) -> bool:
    return record["body"] == "POST /v1/models/{model}:predict"
