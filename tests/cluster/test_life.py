"""The life of the two tasks as one on a real Nomad: what dies, hangs, ends or is moved, and what callers notice of it."""

import asyncio
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy.bundle import pack
from deploy.bundle.source import build
from deploy.cluster.cluster import Cluster
from deploy.cluster.process import ClusterError
from tests.cluster.allocation import address, ended, events, health, processes, records, until_ready, until_unready
from tests.cluster.client import MODEL, Directory, Load, ask, refused_for_now, session
from tests.cluster.conftest import Service
from tests.cluster.jobfile import JOB, ROOT

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


async def test_a_model_server_killed_five_times_under_load_is_noticed_at_once_and_never_answers_wrongly(
    cluster: Cluster, deploy: Deploy, directory: Directory
) -> None:
    service = deploy("killed")
    (allocation,) = cluster.nomad.running(service.name)
    first = allocation["ID"]
    noticed = []

    async with Load(directory, service.name, rate=30, seconds=300) as load, session() as client:
        await load.done(30)
        for kill in range(1 + RESTARTS):
            where = address(cluster, first)
            await until_ready(client, where)
            os.kill(processes(cluster, "tfs", first)[-1], signal.SIGKILL)
            noticed.append(await until_unready(client, where))
            if kill < RESTARTS:  # healed by a restart of the task alone
                await asyncio.to_thread(cluster.nomad.restarted, first, "tfs", kill + 1, 30)
        # Once too often: the allocation fails as one, and another takes its place.
        assert await asyncio.to_thread(cluster.nomad.failed, service.name, 60) == first
        found = await ended(cluster, first, 60)
        second = await asyncio.to_thread(replacement, cluster, service.name, first)
        where = address(cluster, second)
        await until_ready(client, where)
        os.kill(processes(cluster, "tfs", second)[-1], signal.SIGKILL)
        noticed.append(await until_unready(client, where))
        await until_ready(client, where)
        await asyncio.to_thread(cluster.consul.passing, service.name, 1, 30)
        await load.done(30)

    assert len(noticed) == 5
    assert max(noticed) < 1.0
    assert found["TaskStates"]["tfs"]["Failed"]
    assert "Sibling Task Failed" in events(found, "adapter")
    assert not [call for call in load.calls if call.lost and not refused_for_now(call)]
    assert [call for call in load.calls if refused_for_now(call)], "the model server was away, and nobody was told"
    assert load.calls[-1].correct


async def test_a_hanging_model_server_is_unready_by_deadline_and_in_the_end_both_tasks_are_restarted(
    cluster: Cluster, deploy: Deploy
) -> None:
    service = deploy("hanging", env='{ADAPTER_TFS_HANG_LIMIT = "3"}')
    (allocation,) = cluster.nomad.running(service.name)
    where = address(cluster, allocation["ID"])

    os.kill(processes(cluster, "tfs", allocation["ID"])[-1], signal.SIGSTOP)
    async with session() as client:
        assert await until_unready(client, where) < 2.0
        said = await health(client, where)
        assert said["state"] == "degraded"
        assert said["checks"]["tfs"]["reason"] == "TensorFlow Serving does not answer within 0.4 s"
        for task in ("adapter", "tfs"):  # by the liveness check
            await asyncio.to_thread(cluster.nomad.restarted, allocation["ID"], task, 1, 120)
        await until_ready(client, where)
        assert (await ask(client, where)).correct
    cluster.consul.passing(service.name, 1, seconds=30)
    (same,) = cluster.nomad.running(service.name)
    assert same["ID"] == allocation["ID"]


def test_a_model_that_cannot_be_loaded_fails_the_deployment_and_the_allocation_in_tensorflow_servings_own_words(
    cluster: Cluster, sample: dict[str, object], stopped_afterwards: list[str], tmp_path: Path
) -> None:
    source = tmp_path / "source"
    shutil.copytree(ROOT / "samples" / "half_plus_two", source)
    parts = [
        replace(part, content=b"not a model") if part.name.endswith("saved_model.pb") else part
        for part in pack.parts(source, build(source))
    ]
    pack.write(parts, tmp_path / "corrupt.tar.zst", lambda _: None)
    bundle = cluster.bundles.publish(tmp_path / "corrupt.tar.zst")
    given = {**sample, "name": "corrupt", "bundle_url": bundle.url, "bundle_checksum": bundle.checksum}
    stopped_afterwards.append("corrupt")
    cluster.nomad.run(JOB, {**given, "healthy_deadline": 10})

    first = replacement(cluster, "corrupt", "")
    reason = asyncio.run(reason_of(address(cluster, first), "Read less bytes than requested"))
    with pytest.raises(ClusterError, match="deployment of corrupt: failed"):
        cluster.nomad.deployed("corrupt", seconds=150)
    assert cluster.nomad.failed("corrupt", seconds=150) == first
    found = cluster.nomad.api.get(f"/allocation/{first}")
    assert found["TaskStates"]["tfs"]["Failed"]
    assert "Sibling Task Failed" in events(found, "adapter")
    assert [each for each in records(cluster, first) if each["body"] and each["body"] in reason]


async def test_a_model_server_that_is_out_of_memory_is_named_as_such(cluster: Cluster, deploy: Deploy) -> None:
    service = deploy("hungry", tfs_memory=256)
    (allocation,) = cluster.nomad.running(service.name)
    where = address(cluster, allocation["ID"])

    async with session() as client, asyncio.TaskGroup() as group:
        reason = group.create_task(reason_of(where, "out of memory"))
        body = b'{"instances": [' + b"1," * 15_000_000 + b"1]}"  # 60 MB as floats, several times over
        async with client.post(f"http://{where}{MODEL}", data=body) as answer:
            assert answer.status == 503
            assert "Retry-After" in answer.headers
    killed = "Killed by SIGKILL: tensorflow_model_server, out of memory"
    assert reason.result().endswith(killed)
    assert [record["severity_text"] for record in records(cluster, allocation["ID"]) if record["body"] == killed] == [
        "FATAL"
    ]
    await asyncio.to_thread(cluster.nomad.restarted, allocation["ID"], "tfs", 1, 60)


async def reason_of(where: str, words: str) -> str:
    """What /health says of the check `tfs`, once it holds these words."""
    async with asyncio.timeout(60), session() as client:
        while True:
            said = (await health(client, where)).get("checks", {}).get("tfs", {}).get("reason", "")
            if words in said:
                return str(said)
            await asyncio.sleep(0.05)


def replacement(cluster: Cluster, job: str, old: str) -> str:
    """The allocation that runs in the place of `old`, once it does."""

    def found(allocations: list[dict[str, Any]]) -> str | None:
        return next((one["ID"] for one in allocations if one["ID"] != old and one["ClientStatus"] == "running"), None)

    return cluster.nomad.api.until(f"/job/{job}/allocations", found, 60, f"an allocation in the place of {old[:8]}")
