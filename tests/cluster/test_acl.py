"""Ending its own allocation on a Nomad with ACLs: refused without the policy of deploy/nomad/, allowed with it."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from deploy.cluster.process import Background, free_ports
from deploy.cluster.residue import Residue, remove_since, unmount_below
from tests.cluster.jobfile import ROOT

POLICY = ROOT / "deploy" / "nomad" / "stop-self.policy.hcl"
Found = TypeVar("Found")

if os.geteuid() != 0 and os.environ.get("REQUIRE_CLUSTER") != "1":
    pytest.skip("root is needed for a Nomad client", allow_module_level=True)


class Acl:
    """One agent with ACLs and without containers, and the command line that talks to it as its administrator."""

    def __init__(self, nomad: Path, directory: Path) -> None:
        self._nomad = nomad
        self._directory = directory
        self._process = Background("nomad", directory)
        self._ports = dict(zip(("http", "rpc", "serf"), free_ports(3), strict=True))
        known = {key: value for key, value in os.environ.items() if not key.startswith(("NOMAD_", "ADAPTER_"))}
        self._environment = {**known, "NOMAD_ADDR": f"http://127.0.0.1:{self._ports['http']}"}

    def start(self) -> None:
        """Start it and become its administrator."""
        here = dict.fromkeys(self._ports, "127.0.0.1")
        config = {
            "name": "acl",
            "data_dir": str(self._directory / "d"),
            "bind_addr": "127.0.0.1",
            "advertise": here,
            "ports": self._ports,
            "disable_update_check": True,
            "acl": {"enabled": True},
            "server": {"enabled": True, "bootstrap_expect": 1},
            "client": {
                "enabled": True,
                "network_interface": "lo",
                "options": [
                    {
                        "driver.allowlist": "raw_exec",
                        "fingerprint.denylist": "env_aws,env_gce,env_azure,env_digitalocean",
                    }
                ],
            },
            "plugin": [{"raw_exec": [{"config": [{"enabled": True}]}]}],
        }
        file = self._directory / "agent.json"
        file.write_text(json.dumps(config))
        self._process.start([str(self._nomad), "agent", f"-config={file}"], self._environment)
        token = until(lambda: self._try("acl", "bootstrap", "-json"))
        self._environment["NOMAD_TOKEN"] = json.loads(token)["SecretID"]
        until(lambda: [node for node in self.json("node", "status", "-json") if node["Status"] == "ready"])

    def stop(self) -> None:
        """Stop what runs, then the agent, and the executors that it had no time to end: they outlive it on purpose."""
        self._try("job", "stop", "-purge", "ender")
        self._process.stop(signal.SIGINT, seconds=20)
        for executor in self.executors():
            with contextlib.suppress(ProcessLookupError):
                os.kill(executor, signal.SIGKILL)
        unmount_below(self._directory)

    def executors(self) -> Iterator[int]:
        """Processes of this agent that hold its tasks."""
        own = str(self._directory).encode()
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                program, *arguments = (process / "cmdline").read_bytes().split(b"\0")
                if program == bytes(self._nomad) and arguments[0] == b"executor" and any(own in a for a in arguments):
                    yield int(process.name)

    def command(self, *arguments: str) -> str:
        """`nomad ARGUMENTS…`: its output."""
        done = subprocess.run(
            [self._nomad, *arguments], env=self._environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def json(self, *arguments: str) -> Any:
        """The same, as JSON."""
        return json.loads(self.command(*arguments))

    def _try(self, *arguments: str) -> str | None:
        try:
            return self.command(*arguments)
        except AssertionError:
            return None


@pytest.fixture
def acl(nomad: Path) -> Iterator[Acl]:
    directory = Path(tempfile.mkdtemp(prefix="ta-", dir="/tmp"))  # short: a unix socket lies deep below
    directory.chmod(0o755)
    agent = Acl(nomad, directory)
    before = Residue.now()
    try:
        agent.start()
        yield agent
    finally:
        agent.stop()
        until(lambda: not list(agent.executors()), seconds=10)
        remove_since(before)
        shutil.rmtree(directory, ignore_errors=True)


def test_the_policy_lets_an_instance_end_itself_and_without_it_nomad_refuses(acl: Acl, tmp_path: Path) -> None:
    status, said = run_and_shut_down(acl, tmp_path)
    assert status == "failed"
    assert "Nomad's task API answers 403: Permission denied" in said

    acl.command("acl", "policy", "apply", "-namespace", "default", "-job", "ender", "ender-stop-self", str(POLICY))
    status, said = run_and_shut_down(acl, tmp_path)
    assert status == "complete"
    assert "Nomad stops this allocation" in said


def run_and_shut_down(acl: Acl, directory: Path) -> tuple[str, str]:
    """Run the adapter alone and POST /shutdown: the status that its allocation ends with, and its log."""
    (port,) = free_ports(1)
    job = directory / "ender.nomad.hcl"
    job.write_text(JOB.format(python=sys.executable, port=port))
    before = {each["ID"] for each in allocations(acl)}
    acl.command("job", "run", "-detach", str(job))
    url = f"http://127.0.0.1:{port}"
    until(lambda: answers(f"{url}/health/live"))
    (mine,) = {each["ID"] for each in allocations(acl)} - before
    urllib.request.urlopen(urllib.request.Request(f"{url}/shutdown", b"{}", method="POST"), timeout=10).close()

    def ended() -> dict[str, Any] | None:
        return next(
            (a for a in allocations(acl) if a["ID"] == mine and a["ClientStatus"] in ("complete", "failed")), None
        )

    status = until(ended)["ClientStatus"]
    said = acl.command("alloc", "logs", mine, "adapter")
    acl.command("job", "stop", "-purge", "ender")
    return status, said


def allocations(acl: Acl) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = acl.json("operator", "api", "/v1/allocations")
    return found


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=2).close()
    except OSError:
        return False
    return True


def until(condition: Callable[[], Found | None], seconds: float = 60) -> Found:
    """What `condition` returns once that is something."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.2)
    return found


JOB = """
job "ender" {{
  group "ender" {{
    reschedule {{
      attempts  = 0
      unlimited = false
    }}
    restart {{
      attempts = 1
      interval = "5m"
      delay    = "1s"
      mode     = "fail"
    }}
    task "adapter" {{
      driver = "raw_exec"
      identity {{
        env  = true
        file = true
      }}
      config {{
        command = "{python}"
        args    = ["-m", "adapter"]
      }}
      env {{
        ADAPTER_HOST     = "127.0.0.1"
        ADAPTER_PORT     = "{port}"
        ADAPTER_TFS_GRPC = "unix:///tmp/nobody.sock"
      }}
      resources {{
        cpu    = 100
        memory = 256
      }}
    }}
  }}
}}
"""
