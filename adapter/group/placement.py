"""What Nomad's API knows of this allocation and its environment does not say: the job's version, the deployment, the node."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import msgspec

ANSWER_SECONDS = 2.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Placement:
    """What Nomad says; None where it does not. `submitted` is when this version of the job was, in nanoseconds."""

    job_version: int | None = None
    submitted: int | None = None
    deployment: str | None = None
    node: str | None = None
    canary: bool | None = None


class _Job(msgspec.Struct, rename="pascal"):
    version: int
    submit_time: int = 0


class _DeploymentStatus(msgspec.Struct, rename="pascal"):
    canary: bool = False


class _Allocation(msgspec.Struct, rename="pascal"):
    job: _Job
    node_name: str = ""
    deployment_id: str = msgspec.field(default="", name="DeploymentID")
    deployment_status: _DeploymentStatus | None = None


async def read(socket: Path, allocation: str) -> Placement:
    """Ask the task API at `socket`, as this workload; what it does not tell stays None.

    With ACLs on, reading an allocation needs the capability `read-job`, which a workload has only by a policy of its own.
    """
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket)), timeout=timeout) as session,
            session.get(
                f"http://task-api/v1/allocation/{allocation}", headers={"X-Nomad-Token": _token(socket)}
            ) as answer,
        ):
            if answer.status == 404:  # the embedded group's, which has no jobs to tell of
                return Placement()
            if answer.status != 200:
                raise aiohttp.ClientError(f"{answer.status} {(await answer.text())[:200]}")
            found = msgspec.json.decode(await answer.read(), type=_Allocation)
    except (aiohttp.ClientError, msgspec.MsgspecError, OSError, TimeoutError) as error:
        log.warning("Nomad does not say which version of the job this is: %s", error or type(error).__name__)
        return Placement()
    return Placement(
        job_version=found.job.version,
        submitted=found.job.submit_time,
        deployment=found.deployment_id or None,
        node=found.node_name or None,
        canary=found.deployment_status.canary if found.deployment_status else False,
    )


def _token(socket: Path) -> str:
    """The workload's identity; the file is renewed, the environment is not."""
    try:
        return (socket.parent / "nomad_token").read_text(encoding="ascii").strip()
    except OSError:
        return os.environ.get("NOMAD_TOKEN", "")
