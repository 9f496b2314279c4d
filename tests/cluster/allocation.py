"""One allocation looked at from its node: where it answers, what its health says, which processes it has."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import aiohttp

from deploy.cluster.cluster import Cluster
from tests.cluster.client import is_ready


def address(cluster: Cluster, allocation: str) -> str:
    """host:port of the adapter, in Consul or not."""
    found = cluster.nomad.api.get(f"/allocation/{allocation}")
    (port,) = [each for each in found["AllocatedResources"]["Shared"]["Ports"] if each["Label"] == "http"]
    return f"{port['HostIP']}:{port['Value']}"


async def health(client: aiohttp.ClientSession, address: str) -> dict[str, Any]:
    """/health, whatever its status; {} while nobody listens."""
    try:
        async with client.get(f"http://{address}/health") as response:
            found: dict[str, Any] = await response.json()
            return found
    except aiohttp.ClientError:
        return {}


async def until_ready(client: aiohttp.ClientSession, where: str) -> None:
    async with asyncio.timeout(60):
        while not await is_ready(client, where):
            await asyncio.sleep(0.05)


async def until_unready(client: aiohttp.ClientSession, where: str) -> float:
    """How many seconds from now on it takes until /health/ready says so."""
    began = time.monotonic()
    async with asyncio.timeout(30):
        while await is_ready(client, where):
            pass
    return time.monotonic() - began


def records(cluster: Cluster, allocation: str) -> list[dict[str, Any]]:
    """What `nomad alloc logs ALLOC adapter` shows."""
    return [json.loads(line) for line in cluster.nomad.logs(allocation, "adapter", "stdout").splitlines()]


async def ended(cluster: Cluster, allocation: str, seconds: float) -> dict[str, Any]:
    """The allocation, once it runs no more."""
    await asyncio.to_thread(cluster.nomad.ended_one, allocation, seconds)
    found: dict[str, Any] = cluster.nomad.api.get(f"/allocation/{allocation}")
    return found


def events(found: dict[str, Any], task: str) -> list[str]:
    """What has happened to a task of this allocation, in order."""
    return [event["Type"] for event in found["TaskStates"][task]["Events"]]


def processes(cluster: Cluster, task: str, allocation: str) -> list[int]:
    """The process ids of a task's container, its init first."""
    state = cluster.docker.client("inspect", "--format", "{{.State.Pid}}", f"{task}-{allocation}")
    init = int(state)
    found = [init]
    for pid in found:
        found += [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return found
