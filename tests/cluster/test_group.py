"""The production job on a real Nomad, Consul and Docker: two tasks that behave as one service."""

import asyncio
import json
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from deploy.cluster.cluster import Cluster
from tests.cluster.allocation import processes
from tests.cluster.client import SECOND_HALF, Directory, Load, ask, half_a_request, is_ready, session
from tests.cluster.conftest import Service
from tests.cluster.jobfile import JOB

Deploy = Callable[..., Service]


@pytest.fixture
def directory(cluster: Cluster) -> Directory:
    return Directory(cluster.consul.dns_port)


async def test_a_healthy_group_answers_where_consul_says(
    cluster: Cluster, deploy: Deploy, directory: Directory
) -> None:
    service = deploy("found")
    (address,) = cluster.consul.passing(service.name, 1, seconds=10)

    assert await directory.addresses(service.name) == [address]
    assert await directory.hosts(service.name) == [address.split(":")[0]]
    assert cluster.consul.dig("found.service.consul", "SRV")[0].split()[2] == address.split(":")[1]
    async with session() as client:
        assert (await ask(client, address)).correct


async def test_one_log_and_one_metrics_page_tell_of_both_tasks(cluster: Cluster, deploy: Deploy) -> None:
    service = deploy("one-story")
    (address,) = cluster.consul.passing(service.name, 1, seconds=10)
    (allocation,) = cluster.nomad.running(service.name)

    async with asyncio.timeout(30):
        told: list[dict[str, Any]] = []
        while not any(record["body"].startswith("Successfully loaded servable version") for record in told):
            text = await asyncio.to_thread(cluster.nomad.logs, allocation["ID"], "adapter", "stdout")
            told = [json.loads(line) for line in text.splitlines()]
    assert {record["attributes"]["tandem.task"] for record in told} == {"tfs", "adapter"}
    assert {record["resource"]["nomad.alloc.id"] for record in told} == {allocation["ID"]}
    assert [record["attributes"]["to"] for record in told if "to" in record["attributes"]][-1] == "ready"

    async with session() as client:
        assert (await ask(client, address)).correct
        async with client.get(f"http://{address}/metrics") as answer:
            page = await answer.text()
    assert "\ntandem_tfs_scrape_up 1.0\n" in page
    # The bundle's warm-up, and ours.
    assert 'tensorflow_serving_request_count_total{model_name="half_plus_two",status="OK"} 2' in page
    assert 'http_server_request_duration_seconds_count{http_request_method="POST"' in page


async def test_in_host_mode_the_only_port_is_the_adapters(cluster: Cluster, deploy: Deploy) -> None:
    service = deploy("on-the-host", network_mode="host")
    (address,) = cluster.consul.passing(service.name, 1, seconds=10)

    async with session() as client:
        assert (await ask(client, address)).correct
    (allocation,) = cluster.nomad.running(service.name)
    ports = {task: listening(processes(cluster, task, allocation["ID"])) for task in ("tfs", "adapter")}
    assert ports == {"tfs": set(), "adapter": {int(address.split(":")[1])}}


async def test_a_release_under_load_loses_no_request(cluster: Cluster, deploy: Deploy, directory: Directory) -> None:
    service = deploy("released")
    (old,) = cluster.nomad.running(service.name)

    async with Load(directory, service.name, rate=50) as load:
        await load.done(50)
        await asyncio.to_thread(cluster.nomad.run, JOB, {**service.variables, "log_level": "DEBUG"})
        await asyncio.to_thread(cluster.nomad.deployed, service.name, 120)
        await asyncio.to_thread(cluster.nomad.ended_one, old["ID"], 60)
        await load.done(50)

    assert [allocation["ID"] for allocation in cluster.nomad.running(service.name)] != [old["ID"]]
    assert not [call for call in load.calls if not call.correct]
    assert len({call.address for call in load.calls}) == 2


async def test_stopping_under_load_loses_no_request(cluster: Cluster, deploy: Deploy, directory: Directory) -> None:
    service = deploy("stopped", shutdown_delay=5)
    (address,) = cluster.consul.passing(service.name, 1, seconds=10)

    async with Load(directory, service.name, rate=50) as load:
        await load.done(50)
        stopping = time.monotonic()
        await asyncio.to_thread(cluster.nomad.command, "job", "stop", "-detach", service.name)
        await asyncio.to_thread(cluster.consul.gone, service.name, address, 30)
        gone = time.monotonic()
        await asyncio.to_thread(cluster.nomad.ended, service.name, 60)
        ended = time.monotonic()

    calls = sorted(load.calls, key=lambda call: call.started)
    assert not [call for call in calls if call.lost]
    assert len([call for call in calls if call.correct]) > 50
    absent = [call.started for call in calls if call.address is None]
    assert absent
    assert absent[0] >= stopping
    assert ended - gone >= 5, "the instance was to serve on after leaving Consul"
    assert max(later - earlier for earlier, later in pairwise(call.started for call in calls)) < 1.0


async def test_a_request_in_flight_is_answered_after_the_stop_signal(cluster: Cluster, deploy: Deploy) -> None:
    service = deploy("in-flight", shutdown_delay=0)
    (address,) = cluster.consul.passing(service.name, 1, seconds=10)

    reader, writer = await half_a_request(address)
    async with session() as client:
        assert await is_ready(client, address)
        await asyncio.to_thread(cluster.nomad.command, "job", "stop", "-detach", service.name)
        async with asyncio.timeout(20):
            while await is_ready(client, address):
                pass
    writer.write(SECOND_HALF)
    await writer.drain()

    async with asyncio.timeout(20):
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
    writer.close()
    await asyncio.to_thread(cluster.nomad.ended, service.name, 60)


def test_a_bundle_that_is_not_what_the_job_says_is_never_served(
    cluster: Cluster, sample: dict[str, object], stopped_afterwards: list[str]
) -> None:
    stopped_afterwards.append("mismatch")
    cluster.nomad.run(JOB, {**sample, "name": "mismatch", "model_version": 2})
    allocation = cluster.nomad.failed("mismatch", seconds=60)
    said = cluster.nomad.logs(allocation, "adapter", "stderr")
    assert "the job says model version 2, the bundle holds half_plus_two 1" in said
    assert cluster.consul.passing("mismatch", 0, seconds=10) == []


def listening(pids: list[int]) -> set[int]:
    """The TCP ports that these processes listen on."""
    own = {str(link.readlink()) for pid in pids for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    ports = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pids[0]}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in own:  # 0A: LISTEN
                ports.add(int(fields[1].split(":")[1], 16))
    return ports
