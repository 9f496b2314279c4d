"""Nomad agents: one server, and clients with the docker driver and bridge networks, all on this machine."""

import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deploy.cluster.http import HttpApi
from deploy.cluster.process import Background, ClusterError
from deploy.cluster.say import say
from deploy.cluster.tools import binary

PORTS = ("http", "rpc", "serf")
CNI = "/usr/lib/cni"
# Each client hands out ports of its own, so that two on one machine never give out the same.
DYNAMIC_PORTS = 200


class Agent:
    """One agent: the server, which is a client too, or with `server_rpc` a further client of that server."""

    def __init__(self, name: str, directory: Path, ports: dict[str, int]) -> None:
        self.name = name
        self.address = f"127.0.0.1:{ports['http']}"
        self.ports = ports
        self.api = HttpApi(f"http://{self.address}/v1", "X-Nomad-Index")
        self._process = Background(f"nomad-{name}", directory)
        self._directory = directory / name
        self.environment = {
            # AWS_CA_BUNDLE makes the artifact fetcher fail where the file is not what it expects.
            **{
                key: value
                for key, value in os.environ.items()
                if key != "AWS_CA_BUNDLE" and not key.startswith("NOMAD_")
            },
            "NOMAD_ADDR": f"http://{self.address}",
        }

    def start(
        self, consul: str, docker: Path, infra_image: str, first_port: int, server_rpc: str | None = None
    ) -> None:
        """Start the agent and wait until its node is ready, with a healthy docker driver."""
        self._directory.mkdir(parents=True, exist_ok=True)
        config = self._directory / "agent.json"
        config.write_text(json.dumps(self._config(consul, docker, infra_image, first_port, server_rpc), indent=2))
        self._process.start([str(binary("nomad")), "agent", f"-config={config}"], self.environment)
        self._process.until(self._leads, seconds=30)
        self.api.until("/nodes", self._ready, 60, f"node {self.name} ready with docker", resources="true")

    def stop(self) -> None:
        """Stop the agent; what it runs goes on, so stop the jobs before."""
        self._process.stop(signal.SIGINT, seconds=20)

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.pid is not None

    def _config(
        self, consul: str, docker: Path, infra_image: str, first_port: int, server_rpc: str | None
    ) -> dict[str, object]:
        here = {"http": "127.0.0.1", "rpc": "127.0.0.1", "serf": "127.0.0.1"}
        plugin = {
            "endpoint": f"unix://{docker}",
            "infra_image": infra_image,
            "gc": [{"image": False}],  # an image that Nomad deletes could not be pulled again
            # Docker 20.10 says lines twice when it rotates its own file, by default after 2 MB (docs/decisions/068).
            "logging": [{"type": "json-file", "config": [{"max-file": "2", "max-size": "500m"}]}],
        }
        client: dict[str, object] = {
            "enabled": True,
            "cni_path": CNI,
            "network_interface": "lo",  # services are advertised on 127.0.0.1
            "min_dynamic_port": first_port,
            "max_dynamic_port": first_port + DYNAMIC_PORTS - 1,
            "options": [{"fingerprint.denylist": "env_aws,env_gce,env_azure,env_digitalocean"}],
        }
        if server_rpc is not None:
            client["servers"] = [server_rpc]
        return {
            "name": self.name,
            "data_dir": str(self._directory),
            "bind_addr": "127.0.0.1",
            "advertise": here,
            "ports": self.ports,
            "disable_update_check": True,
            "server": {"enabled": server_rpc is None, "bootstrap_expect": 1 if server_rpc is None else 0},
            "client": client,
            "consul": {"address": consul, "server_auto_join": False, "client_auto_join": False},
            "plugin": [{"docker": [{"config": [plugin]}]}],
        }

    def _leads(self) -> bool:
        try:
            return bool(self.api.get("/status/leader"))
        except OSError:
            return False

    def _ready(self, nodes: list[dict[str, Any]]) -> bool | None:
        for node in nodes:
            driver = node["Drivers"].get("docker") or {}
            if node["Name"] == self.name and node["Status"] == "ready" and driver.get("Healthy"):
                return True
        return None


class Nomad:
    """The cluster as its users see it: the `nomad` command, and the API of the server's agent."""

    def __init__(self, server: Agent) -> None:
        self.api = server.api
        self.address = server.address
        self.program = binary("nomad")
        self._environment = server.environment

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`nomad ARGUMENTS…`, whatever it exits with."""
        command = [str(self.program), *arguments]
        return subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False)

    def run(self, job_file: Path, variables: Mapping[str, object], var_files: Sequence[Path] = ()) -> None:
        """`nomad job run`: submit the job and return once the server has it."""
        done = self.command("job", "run", "-detach", *options(variables, var_files), str(job_file))
        if done.returncode != 0:
            raise ClusterError(f"nomad job run: {done.stdout}{done.stderr}")

    def deployed(self, job: str, seconds: float) -> None:
        """Wait until the deployment of the job's newest version succeeded."""
        version = self.api.get(f"/job/{job}")["Version"]

        def over(newest: dict[str, Any] | None) -> str | None:
            ended = newest is not None and newest["Status"] in ("successful", "failed", "cancelled")
            return newest["Status"] if newest is not None and ended and newest["JobVersion"] == version else None

        try:
            status = self.api.until(f"/job/{job}/deployment", over, seconds, f"deployment of {job}")
        except ClusterError as error:
            raise ClusterError(f"{error}\n{self.report(job)}") from None
        if status != "successful":
            raise ClusterError(f"deployment of {job}: {status}\n{self.report(job)}")

    def failed(self, job: str, seconds: float) -> str:
        """Wait until an allocation of the job has failed for good; its id."""

        def first(allocations: list[dict[str, Any]]) -> str | None:
            return next((one["ID"] for one in allocations if one["ClientStatus"] == "failed"), None)

        return self.api.until(f"/job/{job}/allocations", first, seconds, f"a failed allocation of {job}")

    def restarted(self, allocation: str, task: str, times: int, seconds: float) -> None:
        """Wait until a task runs after so many restarts."""

        def runs(found: dict[str, Any]) -> bool | None:
            state = found["TaskStates"][task]
            return True if state["State"] == "running" and state["Restarts"] == times else None

        self.api.until(f"/allocation/{allocation}", runs, seconds, f"{task} running after {times} restarts")

    def running(self, job: str) -> list[dict[str, Any]]:
        """The job's allocations that run now, newest first."""
        found = [one for one in self.api.get(f"/job/{job}/allocations") if one["ClientStatus"] == "running"]
        return sorted(found, key=lambda one: -one["CreateIndex"])

    def stop(self, job: str, seconds: float = 90) -> None:
        """Stop a job, wait until nothing of it runs, and forget it."""
        self.api.call("DELETE", f"/job/{job}")
        self.ended(job, seconds)
        self.api.call("DELETE", f"/job/{job}", purge="true")

    def ended(self, job: str, seconds: float) -> None:
        """Wait until no allocation of the job is pending or running."""

        def over(allocations: list[dict[str, Any]]) -> bool | None:
            left = [one for one in allocations if one["ClientStatus"] in ("pending", "running")]
            return None if left else True

        self.api.until(f"/job/{job}/allocations", over, seconds, f"allocations of {job} ended")

    def ended_one(self, allocation: str, seconds: float) -> None:
        """Wait until this allocation runs no more."""

        def over(found: dict[str, Any]) -> bool | None:
            return None if found["ClientStatus"] in ("pending", "running") else True

        self.api.until(f"/allocation/{allocation}", over, seconds, f"allocation {allocation} ended")

    def logs(self, allocation: str, task: str, stream: str) -> str:
        """What a task has written to `stdout` or `stderr`, by `nomad alloc logs`."""
        flag = ["-stderr"] if stream == "stderr" else []
        return self.command("alloc", "logs", *flag, allocation, task).stdout

    def report(self, job: str) -> str:
        """What happened to the job's tasks, for an error message."""
        lines: list[str] = []
        for allocation in self.api.get(f"/job/{job}/allocations"):
            lines.append(f"allocation {allocation['ID'][:8]}: {allocation['ClientStatus']}")
            for task, state in (allocation["TaskStates"] or {}).items():
                lines += [f"  {task}: {event['DisplayMessage']}" for event in state["Events"]]
                for stream in ("stdout", "stderr"):
                    lines += [f"  {task} {stream}: {line}" for line in self._tail(allocation["ID"], task, stream)]
        return "\n".join(lines)

    def stop_all(self) -> None:
        """Stop every job; what does not end in time is said, not raised."""
        for job in self.api.get("/jobs"):
            try:
                self.stop(job["ID"])
            except (ClusterError, OSError) as error:
                say(f"stopping {job['ID']}: {error}")

    def _tail(self, allocation: str, task: str, stream: str) -> list[str]:
        return self.logs(allocation, task, stream).splitlines()[-15:]


def options(variables: Mapping[str, object], var_files: Sequence[Path] = ()) -> list[str]:
    """Variables and var-files as `nomad job` takes them."""
    named = [f"-var={key}={value}" for key, value in variables.items()]
    return [f"-var-file={path}" for path in var_files] + named
