"""TensorFlow Serving's log on a real Nomad, through its log rotation and the adapter's restarts: each line is said once."""

import asyncio
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

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
    assert [record for record in story if record["attributes"].get("event.name") == "tandem.tfs_log.lost"] == []
    (healed,) = cluster.nomad.running(service.name)
    assert healed["ID"] == allocation["ID"], "the adapter was to be restarted, not the group"


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
