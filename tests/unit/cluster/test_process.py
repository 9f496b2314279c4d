"""Background processes of the cluster: found again, stopped with all they started, and clear about why they died."""

import os
import signal
import sys
from pathlib import Path

import pytest

from deploy.cluster.process import Background, ClusterError, free_ports, need

SLEEPER = [sys.executable, "-c", "import signal; print('up', flush=True); signal.pause()"]
DEAF = [
    sys.executable,
    "-c",
    "import signal; signal.signal(15, signal.SIG_IGN); print('up', flush=True); signal.pause()",
]
PARENT = [
    sys.executable,
    "-c",
    "import signal, subprocess, sys; c = subprocess.Popen(['sleep', '60']); print('child', c.pid, flush=True); signal.pause()",
]


def started(directory: Path, command: list[str]) -> Background:
    process = Background("part", directory)
    process.start(command)
    process.until(lambda: process.tail() != "", seconds=10)
    return process


def alive(pid: int) -> bool:
    """Whether the process runs; one that ended and was not collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_later_process_finds_and_stops_it(tmp_path: Path) -> None:
    first = started(tmp_path, SLEEPER)
    second = Background("part", tmp_path)
    assert second.pid == first.pid is not None
    second.stop(signal.SIGTERM, seconds=5)
    assert first.pid is None
    first.stop(signal.SIGTERM, seconds=5)


def test_one_that_does_not_listen_to_the_signal_is_killed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    process = started(tmp_path, DEAF)
    pid = process.pid
    process.stop(signal.SIGTERM, seconds=0.2)
    assert pid is not None
    assert not alive(pid)
    assert "part did not end within 0 s of SIGTERM: killed" in capsys.readouterr().err


def test_stopping_ends_what_it_started_too(tmp_path: Path) -> None:
    process = started(tmp_path, PARENT)
    child = int(process.tail().split()[1])
    process.stop(signal.SIGTERM, seconds=5)
    assert not alive(child)


def test_stopping_ends_the_children_of_one_that_was_killed_before(tmp_path: Path) -> None:
    process = started(tmp_path, PARENT)
    child, pid = int(process.tail().split()[1]), process.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert alive(child)
    process.stop(signal.SIGTERM, seconds=5)
    assert not alive(child)


def test_one_that_dies_at_start_says_why(tmp_path: Path) -> None:
    process = Background("part", tmp_path)
    process.start([sys.executable, "-c", "raise SystemExit('no such flag')"])
    with pytest.raises(ClusterError, match="part died at start:\nno such flag"):
        process.until(lambda: False, seconds=10)
    process.stop(signal.SIGTERM, seconds=1)


def test_one_that_never_gets_ready_is_reported_with_its_log(tmp_path: Path) -> None:
    process = started(tmp_path, SLEEPER)
    with pytest.raises(ClusterError, match="part is not ready after 0 s:\nup"):
        process.until(lambda: False, seconds=0.1)
    process.stop(signal.SIGTERM, seconds=5)


def test_a_process_id_that_went_to_another_process_is_not_ours(tmp_path: Path) -> None:
    process = Background("part", tmp_path)
    (tmp_path / "part.pid").write_text(f"{os.getpid()} 1")
    assert process.pid is None
    process.stop(signal.SIGKILL, seconds=1)  # or this test would end here


def test_free_ports_are_all_different() -> None:
    ports = free_ports(50)
    assert len(set(ports)) == 50


def test_every_missing_program_is_named() -> None:
    with pytest.raises(ClusterError, match="not installed: no-such-a, no-such-b"):
        need("sh", "no-such-a", "no-such-b")
