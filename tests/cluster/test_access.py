"""Who gets in, on a real cluster: secrets that Nomad renders and replaces under load, and Nomad as an issuer of tokens."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import jwt

from deploy.cluster.cluster import Cluster
from tests.cluster.client import ANSWER, MODEL, QUESTION
from tests.cluster.conftest import Service
from tests.tokens import claims

Deploy = Callable[..., Service]
OLD, NEW = "old-" * 16, "new-" * 16

CALLER = """
job "caller" {
  group "caller" {
    task "caller" {
      driver = "docker"
      identity {
        name = "digits"
        aud  = ["digits.example.com"]
        file = true
        ttl  = "1h"
      }
      config {
        image      = "%s"
        entrypoint = ["sleep"]
        args       = ["3600"]
      }
      resources {
        memory = 32
      }
    }
  }
}
"""


def signed(secret: str, **changes: str) -> str:
    return jwt.encode(claims(**changes), secret, "HS256")


async def status(client: aiohttp.ClientSession, address: str, token: str = "", path: str = MODEL) -> int:
    """The status of a prediction (or a GET of another path) with this token; of a prediction, only if it is right."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if path != MODEL:
        async with client.get(f"http://{address}{path}", headers=headers) as answer:
            return answer.status
    async with client.post(f"http://{address}{MODEL}", json=QUESTION, headers=headers) as answer:
        assert answer.status != 200 or await answer.json() == ANSWER
        return answer.status


async def until(wanted: int, ask: Callable[[], Awaitable[int]], seconds: float = 60) -> None:
    """Ask until the answer has this status."""
    async with asyncio.timeout(seconds):
        while await ask() != wanted:
            await asyncio.sleep(0.05)


@asynccontextmanager
async def load(client: aiohttp.ClientSession, address: str, tokens: list[str]) -> AsyncIterator[list[int]]:
    """Predictions one after the other with the last of `tokens`; gives their statuses."""
    statuses: list[int] = []
    stop = asyncio.Event()

    async def run() -> None:
        while not stop.is_set():
            statuses.append(await status(client, address, tokens[-1]))

    task = asyncio.create_task(run())
    try:
        yield statuses
    finally:
        stop.set()
        await task


def put(cluster: Cluster, path: str, **items: str) -> None:
    done = cluster.nomad.command("var", "put", "-force", "-out=none", path, *(f"{key}={v}" for key, v in items.items()))
    assert done.returncode == 0, done.stderr


async def test_a_secret_is_replaced_under_load_without_a_lost_request(cluster: Cluster, deploy: Deploy) -> None:
    path = "nomad/jobs/secretive"
    put(cluster, path, jwt_secret=OLD, allow="172.16.0.0/12")
    service = deploy("secretive", secret_files='["jwt_secret", "allow"]', production="true", jwt_audience="digits")
    (address,) = cluster.consul.passing(service.name, 1, seconds=10)
    (allocation,) = cluster.nomad.running(service.name)

    async with aiohttp.ClientSession() as client:
        tokens = [signed(OLD)]
        assert await status(client, address) == 401
        assert await status(client, address, signed(NEW)) == 401
        async with load(client, address, tokens) as statuses:
            put(cluster, path, jwt_secret=NEW, jwt_secret_previous=OLD, allow="172.16.0.0/12")
            await until(200, lambda: status(client, address, signed(NEW)))
            tokens.append(signed(NEW))
            put(cluster, path, jwt_secret=NEW, allow="172.16.0.0/12")
            await until(401, lambda: status(client, address, signed(OLD)))
        assert len(statuses) > 20
        assert set(statuses) == {200}

        # The list of addresses, too; the checker, which comes from the same one, stays in on /health.
        put(cluster, path, jwt_secret=NEW, allow="192.0.2.0/24")
        await until(403, lambda: status(client, address, signed(NEW)))
        assert await status(client, address, path="/health/ready") == 200
        assert await status(client, address, path="/metrics") == 403
    assert cluster.consul.passing(service.name, 1, seconds=10) == [address]
    (still,) = cluster.nomad.running(service.name)
    assert still["ID"] == allocation["ID"]
    assert still["TaskStates"]["adapter"]["Restarts"] == 0
    log = cluster.nomad.logs(allocation["ID"], "adapter", "stdout") + cluster.nomad.logs(
        allocation["ID"], "adapter", "stderr"
    )
    assert "Taken anew" in log
    assert not [secret for secret in (OLD, NEW, signed(NEW).rpartition(".")[0]) if secret in log]


async def test_a_tasks_identity_is_a_token(
    cluster: Cluster, deploy: Deploy, stopped_afterwards: list[str], tmp_path: Path
) -> None:
    service = deploy(
        "identified",
        network_mode="host",  # the agent of these tests listens on the host's loopback alone
        jwt_jwks=f"http://{cluster.nomad.address}/.well-known/jwks.json",
        jwt_audience="digits.example.com",
        env=json.dumps({"ADAPTER_JWT_SCOPES": "predict", "ADAPTER_JWT_TENANT_CLAIM": "nomad_job_id"}),
    )
    (address,) = cluster.consul.passing(service.name, 1, seconds=10)
    job = tmp_path / "caller.nomad.hcl"
    job.write_text(CALLER % cluster.images.adapter)
    stopped_afterwards.append("caller")
    cluster.nomad.run(job, {})
    cluster.nomad.deployed("caller", seconds=60)
    (caller,) = cluster.nomad.running("caller")

    def file(name: str) -> str:
        done = cluster.nomad.command("alloc", "exec", "-i=false", "-t=false", caller["ID"], "cat", f"/secrets/{name}")
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    identity = file("nomad_digits.jwt")
    async with aiohttp.ClientSession() as client:
        assert await status(client, address, identity) == 200
        assert await status(client, address, identity, "/metrics") == 403
        assert await status(client, address) == 401
        assert await status(client, address, identity[:-4] + "AAAA") == 401
        assert (
            await status(client, address, jwt.encode(jwt.decode(identity, options={"verify_signature": False}), NEW))
            == 401
        )
