"""Consul agents on ports of their own: a server in memory, and clients of it.

A Nomad client removes from its Consul agent every task's service that it does not run itself, so two of them never
share one: as on real nodes, each Nomad client has an agent of its own.
"""

import os
import signal
import subprocess
from pathlib import Path

from deploy.cluster.http import HttpApi
from deploy.cluster.process import Background
from deploy.cluster.tools import binary

PORTS = ("http", "dns", "server", "serf_lan")


class Consul:
    """The agent `name`; `ports` has a port for each of `PORTS`."""

    def __init__(self, name: str, directory: Path, ports: dict[str, int]) -> None:
        self._name = name
        self._process = Background(f"consul-{name}", directory)
        self._data = directory / f"consul-{name}"
        self._ports = ports
        self.address = f"127.0.0.1:{ports['http']}"
        self.dns_port = ports["dns"]
        self.api = HttpApi(f"http://{self.address}/v1", "X-Consul-Index")

    def start(self, server: "Consul | None" = None) -> None:
        """Start the agent, a server or a client of `server`, and wait until a leader has its node in the catalog."""
        command = [str(binary("consul")), "agent", f"-node={self._name}", "-log-level=info"]
        command += ["-bind=127.0.0.1", "-client=127.0.0.1"]
        command += [f"-{name.replace('_', '-')}-port={port}" for name, port in self._ports.items()]
        # No gossip over the WAN and no gRPC: nobody to talk to.
        command += [
            "-serf-wan-port=-1",
            "-grpc-port=-1",
            "-hcl=ports { grpc_tls = -1 }",
            "-hcl=disable_update_check = true",
            "-hcl=leave_on_terminate = false",  # what ends here ends with its whole cluster
        ]
        if server is None:
            command += ["-dev"]
        else:
            command += [f"-data-dir={self._data}", f"-retry-join=127.0.0.1:{server._ports['serf_lan']}"]
        self._process.start(command, {key: value for key, value in os.environ.items() if not key.startswith("CONSUL_")})
        self._process.until(self._known, seconds=30)

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.pid is not None

    def stop(self) -> None:
        """Stop the agent."""
        self._process.stop(signal.SIGTERM, seconds=10)

    def passing(self, service: str, count: int, seconds: float) -> list[str]:
        """Wait until exactly `count` instances of `service` pass all their checks; their addresses."""
        return self.api.until(
            f"/health/service/{service}",
            lambda found: _addresses(found) if len(found) == count else None,
            seconds,
            f"{count} passing instances of {service} in Consul",
            passing="true",
        )

    def gone(self, service: str, address: str, seconds: float) -> None:
        """Wait until `address` is registered for `service` no more, healthy or not."""
        self.api.until(
            f"/health/service/{service}",
            lambda found: True if address not in _addresses(found) else None,
            seconds,
            f"{address} deregistered from {service}",
        )

    def dig(self, *query: str) -> list[str]:
        """What `dig` says over Consul's DNS port, one answer a line."""
        command = ["dig", "@127.0.0.1", "-p", str(self.dns_port), "+short", "+tries=1", "+time=2", *query]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()

    def _known(self) -> bool:
        try:
            return any(node["Node"] == self._name for node in self.api.get("/catalog/nodes"))
        except OSError:
            return False


def _addresses(found: list[dict[str, dict[str, object]]]) -> list[str]:
    return sorted(f"{entry['Service']['Address']}:{entry['Service']['Port']}" for entry in found)
