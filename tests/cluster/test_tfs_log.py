"""TensorFlow Serving's log on a real Nomad, through its log rotation and the adapter's restarts: each line is said once."""

import asyncio
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deploy.cluster.cluster import Cluster
from tests.cluster.allocation import address, processes, records, until_ready
from tests.cluster.client import session
from tests.cluster.conftest import Service

Deploy = Callable[..., Service]
RESTARTS = 3  # as the job says
ROTATIONS = 20
PREFIX = "2026-01-01 00:00:00.000000: I sequence.cc:1] "
FILE = 1 << 20  # the least that Nomad takes
LINE = 8192  # long ones: the adapter's own log is to keep them all


class Writer:
    """Writes numbered lines to where TensorFlow Serving of an allocation writes its own."""

    def __init__(self, cluster: Cluster, allocation: str) -> None:
        self._stderr = Path(f"/proc/{processes(cluster, 'tfs', allocation)[-1]}/fd/2")
        self.lines: list[str] = []

    def write(self, size: int) -> None:
        """So many bytes, in whole lines."""
        with self._stderr.open("w") as log:
            for _ in range(size // LINE):
                line = f"line {len(self.lines)} ".ljust(LINE - len(PREFIX) - 1, ".")
                self.lines.append(line)
                log.write(f"{PREFIX}{line}\n")


async def test_each_line_is_said_once_over_twenty_rotations_and_three_restarts_of_the_adapter(
    cluster: Cluster, deploy: Deploy
) -> None:
    service = deploy("rotated", tfs_log_size=1)
    (allocation,) = cluster.nomad.running(service.name)
    log = Writer(cluster, allocation["ID"])

    async with session() as client:
        for kill in range(RESTARTS):
            for _ in range(ROTATIONS // RESTARTS - 1):
                log.write(FILE)
                await said(cluster, allocation["ID"], log.lines[-1])
            log.write(FILE // 2)
            os.kill(processes(cluster, "adapter", allocation["ID"])[-1], signal.SIGKILL)
            log.write(FILE * 2)  # the files are what waits for the next adapter, and Nomad keeps five
            await asyncio.to_thread(cluster.nomad.restarted, allocation["ID"], "adapter", kill + 1, 30)
            await until_ready(client, address(cluster, allocation["ID"]))
            await said(cluster, allocation["ID"], log.lines[-1])

    story = records(cluster, allocation["ID"])
    assert rotations(cluster, allocation["ID"]) >= ROTATIONS
    assert [record["body"] for record in story if record["body"].startswith("line ")] == log.lines
    assert [record for record in story if lost(record)] == []
    (healed,) = cluster.nomad.running(service.name)
    assert healed["ID"] == allocation["ID"], "the adapter was to be restarted, not the group"


async def test_what_nomad_removes_before_it_is_read_is_counted_and_said(cluster: Cluster, deploy: Deploy) -> None:
    service = deploy("overrun", tfs_log_size=1)
    (allocation,) = cluster.nomad.running(service.name)
    log = Writer(cluster, allocation["ID"])
    log.write(FILE // 2)
    await said(cluster, allocation["ID"], log.lines[-1])

    adapter = processes(cluster, "adapter", allocation["ID"])[-1]
    os.kill(adapter, signal.SIGSTOP)
    try:
        log.write(FILE * 8)
        async with asyncio.timeout(30):
            while rotations(cluster, allocation["ID"]) < 8:
                await asyncio.sleep(0.1)  # nor do files
    finally:
        os.kill(adapter, signal.SIGCONT)
    await said(cluster, allocation["ID"], log.lines[-1])

    story = records(cluster, allocation["ID"])
    heard = [record["body"] for record in story if record["body"].startswith("line ")]
    missing = len(log.lines) - len(heard)
    gap = next(number for number, line in enumerate(log.lines) if line != heard[number])
    assert heard == log.lines[:gap] + log.lines[gap + missing :]
    announced = [record["attributes"] for record in story if lost(record)]
    files = sum(attributes["tandem.tfs_log.files_lost"] for attributes in announced)
    assert 0 < missing <= files * (FILE // LINE)
    assert [attributes["tandem.tfs_log.lines_dropped"] for attributes in announced] == [0] * len(announced)


def lost(record: dict[str, Any]) -> bool:
    """It says that some of TensorFlow Serving's log is lost."""
    return bool(record["attributes"].get("event.name") == "tandem.tfs_log.lost")


async def said(cluster: Cluster, allocation: str, line: str) -> None:
    """Wait until the adapter has said the line."""
    tail = ("alloc", "logs", "-tail", "-c", str(4 * LINE), allocation, "adapter")
    async with asyncio.timeout(30):
        while line not in (await asyncio.to_thread(cluster.nomad.command, *tail)).stdout:
            await asyncio.sleep(0.1)  # a log tells nobody that it has grown


def rotations(cluster: Cluster, allocation: str) -> int:
    """How many times Nomad has begun another file for what TensorFlow Serving writes to stderr."""
    listing = cluster.nomad.command("alloc", "fs", allocation, "alloc/logs").stdout
    return max(int(number) for number in re.findall(r"\btfs\.stderr\.(\d+)$", listing, re.MULTILINE))
