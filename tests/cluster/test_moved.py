"""Instances that are restarted, stopped or drained off their node on a real Nomad: whoever calls the service loses nothing."""

import asyncio
from collections.abc import Callable, Iterator

import pytest

from deploy.cluster.cluster import Cluster
from tests.cluster.allocation import address, ended, until_unready
from tests.cluster.client import SECOND_HALF, Directory, Load, half_a_request, session
from tests.cluster.conftest import Service

Deploy = Callable[..., Service]


@pytest.fixture
def nodes(cluster: Cluster) -> Iterator[list[str]]:
    """The ids of the cluster's nodes; each takes allocations again afterwards."""
    ids = [node["ID"] for node in cluster.nomad.api.get("/nodes")]
    yield ids
    for node in ids:
        cluster.nomad.command("node", "drain", "-disable", "-yes", node)
        cluster.nomad.command("node", "eligibility", "-enable", node)
    assert {node["SchedulingEligibility"] for node in cluster.nomad.api.get("/nodes")} == {"eligible"}


async def test_restarting_stopping_and_draining_instances_under_load_loses_no_request(
    cluster: Cluster, nodes: list[str], deploy: Deploy
) -> None:
    service = deploy("moved", count=2)
    one, other = cluster.nomad.running(service.name)
    assert {one["NodeID"], other["NodeID"]} == set(nodes), "the job spreads over the nodes"

    async with Load(Directory(cluster.consul.dns_port), service.name, rate=30, seconds=300) as load:
        await load.done(30)
        await restart(cluster, one["ID"])
        await asyncio.to_thread(cluster.consul.passing, service.name, 2, 60)

        await asyncio.to_thread(cluster.nomad.command, "alloc", "stop", "-detach", one["ID"])
        await ended(cluster, one["ID"], 60)
        await asyncio.to_thread(cluster.consul.passing, service.name, 2, 60)

        await asyncio.to_thread(cluster.nomad.command, "node", "drain", "-enable", "-yes", "-detach", other["NodeID"])
        await ended(cluster, other["ID"], 60)
        await asyncio.to_thread(cluster.consul.passing, service.name, 2, 60)
        assert other["NodeID"] not in {each["NodeID"] for each in cluster.nomad.running(service.name)}
        await load.done(30)

    assert [call for call in load.calls if not call.correct] == []


async def restart(cluster: Cluster, allocation: str) -> None:
    """Restart both tasks, which get their SIGTERM at the same moment, with a request in flight: it is answered."""
    where = address(cluster, allocation)
    reader, writer = await half_a_request(where)
    command = asyncio.create_task(asyncio.to_thread(cluster.nomad.command, "alloc", "restart", allocation))
    async with session() as client:
        await until_unready(client, where)
    writer.write(SECOND_HALF)
    async with asyncio.timeout(20):
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
    writer.close()
    await command
    for task in ("adapter", "tfs"):
        await asyncio.to_thread(cluster.nomad.restarted, allocation, task, 1, 60)
