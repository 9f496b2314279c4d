"""The life of the two tasks as one on a real Nomad: what dies, hangs, ends or is moved, and what callers notice of it."""

import asyncio
from collections.abc import Callable

import pytest

from deploy.cluster.cluster import Cluster
from tests.cluster.allocation import address, ended, events, records
from tests.cluster.client import Directory, Load, session
from tests.cluster.conftest import Service

Deploy = Callable[..., Service]
RESTARTS = 3  # as the job says


@pytest.fixture
def directory(cluster: Cluster) -> Directory:
    return Directory(cluster.consul.dns_port)


async def test_shutdown_stops_the_allocation_both_tasks_and_another_takes_its_place(
    cluster: Cluster, deploy: Deploy, directory: Directory
) -> None:
    service = deploy("ended")
    (first,) = cluster.nomad.running(service.name)

    async with Load(directory, service.name, rate=20) as load, session() as client:
        await load.done(20)
        where = address(cluster, first["ID"])
        async with client.post(f"http://{where}/shutdown", json={"reason": "moving house"}) as answer:
            assert answer.status == 202
        found = await ended(cluster, first["ID"], 60)
        await asyncio.to_thread(cluster.consul.passing, service.name, 1, 60)
        await load.done(20)

    assert found["ClientStatus"] == "complete"
    assert not any(state["Failed"] or state["Restarts"] for state in found["TaskStates"].values())
    assert "Nomad stops this allocation" in [record["body"] for record in records(cluster, first["ID"])]
    assert not [call for call in load.calls if call.lost]
    (second,) = cluster.nomad.running(service.name)
    assert second["ID"] != first["ID"]


async def test_where_it_may_not_stop_its_allocation_shutdown_fails_it_as_one_and_it_is_replaced(
    cluster: Cluster, deploy: Deploy
) -> None:
    service = deploy("ended-by-failing", env='{ADAPTER_TASK_API = ""}')
    (first,) = cluster.nomad.running(service.name)

    async with session() as client:
        where = address(cluster, first["ID"])
        async with client.post(f"http://{where}/shutdown", json={"reason": "moving house"}) as answer:
            assert answer.status == 202
    found = await ended(cluster, first["ID"], 60)

    assert found["ClientStatus"] == "failed"
    assert found["TaskStates"]["adapter"]["Restarts"] == RESTARTS
    assert "Sibling Task Failed" in events(found, "tfs")
    said = cluster.nomad.logs(first["ID"], "adapter", "stderr").splitlines()
    assert said == ["adapter: this allocation was ended for good: moving house"] * RESTARTS
    cluster.consul.passing(service.name, 1, seconds=60)
    (second,) = cluster.nomad.running(service.name)
    assert second["ID"] != first["ID"]
