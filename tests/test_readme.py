"""The README's commands work as they stand, and answer what it shows."""

import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import free_port

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
# (command, what it shows): a block of sh, and the block of json right after it if there is one.
BLOCKS = re.findall(r"```sh\n(.*?)```(?:\n\n(?:[^\n`]+\n\n)?```json\n(.*?)```)?", README, re.DOTALL)
CURLS = [(line, shown) for block, shown in BLOCKS for line in block.splitlines() if line.startswith("curl")]
# Run elsewhere: the suite itself, and the cluster (tests/cluster runs the same job and the same verbs).
ELSEWHERE = ("make test", "make cluster", "nomad job run", "  -var")


def test_every_command_of_the_readme_is_known_to_this_test() -> None:
    lines = [line for block, _ in BLOCKS for line in block.splitlines()]
    known = ("make run", "curl ", ".venv/bin/tandem pack", *ELSEWHERE)
    assert len(lines) >= 8
    assert not [line for line in lines if not line.startswith(known)]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """`make run`, on a free port instead of 8080."""
    port = free_port()
    process = subprocess.Popen(
        ["make", "run", f"PORT={port}"], cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    ready = threading.Event()
    lines: list[str] = []

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)
            if re.search("REST +http", line):
                ready.set()
        ready.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    assert ready.wait(240)
    assert process.poll() is None, "".join(lines)
    yield port
    os.killpg(process.pid, signal.SIGINT)
    process.wait(30)
    reader.join(30)


@pytest.mark.parametrize(("command", "shown"), CURLS, ids=[command.split()[-1] for command, _ in CURLS])
def test_a_first_request_gets_the_answer_that_is_shown(command: str, shown: str, port: int) -> None:
    command = command.replace("127.0.0.1:8080", f"127.0.0.1:{port}").replace("curl ", "curl --fail ", 1)
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout
    if not command.endswith("/metrics"):
        json.loads(done.stdout)
        pattern = re.escape(shown.strip()).replace("…", ".*").replace(r"\ .*", ".*")
        assert re.fullmatch(pattern, done.stdout.strip()), done.stdout


def test_the_pack_command_writes_a_bundle_and_names_its_checksum(tmp_path: Path) -> None:
    (line,) = [line for block, _ in BLOCKS for line in block.splitlines() if "tandem pack" in line]
    target = tmp_path / "bundle.tar.zst"
    command = re.sub(r"-o \S+", f"-o {target}", line)
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.search("sha256:[0-9a-f]{64}", done.stdout)
    assert target.stat().st_size > 1000


def test_the_makefile_has_the_verbs_that_the_readme_names() -> None:
    helped = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for verb in re.findall(r"make ([a-z-]+)", README):
        assert f"make {verb} " in helped
