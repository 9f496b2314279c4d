"""The contract on a real Nomad and Consul: what is recorded of a release, and `tandem check` from outside."""

import json
import socket
import socketserver
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from deploy.cluster.cluster import Cluster
from tests.cluster.conftest import Service
from tests.cluster.jobfile import JOB

Deploy = Callable[..., Service]


@contextmanager
def on_the_bridge(port: int) -> Iterator[str]:
    """Consul's HTTP API at the address of Nomad's bridge, as an agent has it with that among its `client_addr`."""
    interface = json.loads(
        subprocess.run(["ip", "-j", "addr", "show", "nomad"], check=True, capture_output=True).stdout
    )
    gateway = next(one["local"] for one in interface[0]["addr_info"] if one["family"] == "inet")

    class Forward(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(("127.0.0.1", port)) as agent:
                back = threading.Thread(target=pump, args=(agent, self.request))
                back.start()
                pump(self.request, agent)
                back.join()

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    with Server((gateway, 0), Forward) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"{gateway}:{server.server_address[1]}"
        server.shutdown()


def pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def get(address: str, path: str) -> Any:
    with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
        return json.load(answer)


def test_a_release_is_recorded_once_with_the_jobs_version_and_the_service_keeps_the_contract(
    cluster: Cluster, deploy: Deploy
) -> None:
    service = deploy("recorded")
    (alone,) = cluster.consul.passing(service.name, 1, seconds=10)
    assert get(alone, "/changes")["source"] == "instance"

    port = int(cluster.consul.address.split(":")[1])
    with on_the_bridge(port) as consul:
        released = {**service.variables, "count": 2, "consul_addr": consul, "released_by": "ann@example.com"}
        cluster.nomad.run(JOB, released)
        cluster.nomad.deployed(service.name, 180)
        instances = cluster.consul.passing(service.name, 2, seconds=30)
        for address in instances:
            while not get(address, "/changes/current")["recorded"]:
                pass
            page = get(address, "/changes")
            (release,) = page["releases"]
            assert (page["source"], page["stale"]) == ("consul", False)
            assert release["nomad"]["job_version"] == 1
            assert release["nomad"]["deployment"]
            assert release["released_by"] == "ann@example.com"
            assert release["bundle"]["checksum"] == service.variables["bundle_checksum"]
            running = get(address, "/changes/current")
            assert running["id"] == release["id"]
            allocation = cluster.nomad.api.get(f"/allocation/{running['instance']['allocation']}")
            assert running["instance"]["node"] == allocation["NodeName"]
        command = [sys.executable, "-m", "deploy.cli", "check", f"http://{instances[0]}"]
        checked = subprocess.run(command, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout
