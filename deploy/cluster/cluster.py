"""The whole cluster: Docker, Consul, Nomad, a bundle store and the images, started and stopped as one.

All of it lives in one directory, so that a later process can find it (`Cluster.found`) and stop it, and so that
stopping ends with removing that directory. A machine has one cluster at a time, for Nomad's bridge, its firewall
chains and the image store are the machine's: `machine()` is held while one is started, used by tests, or stopped.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from deploy.cluster import consul, nomad
from deploy.cluster.bundles import BundleStore
from deploy.cluster.docker import Docker
from deploy.cluster.process import ClusterError, free_ports, need
from deploy.cluster.residue import Residue, remove_since, unmount_below
from deploy.cluster.say import say
from deploy.images.build import Images, build_all

CLIENTS = ("node-1", "node-2")
PROGRAMS = ("docker", "go", "iptables", "ip", "dig")
DIRECTORY = Path("/tmp/tandem-cluster")  # short: unix sockets lie below it, and their paths have at most 107 bytes
LOCK = Path("/run/tandem-cluster.lock")


def missing() -> str | None:
    """Why no cluster can run on this machine; None when one can."""
    if os.geteuid() != 0:
        return "root is needed (containers, bridge networks)"
    try:
        need(*PROGRAMS)
    except ClusterError as error:
        return str(error)
    if not (Path(nomad.CNI) / "bridge").exists():
        return f"not installed: the CNI plugins ({nomad.CNI}/bridge)"
    return None


@contextmanager
def machine() -> Iterator[None]:
    """Be the only one that starts, tests or stops a cluster on this machine; waits for its turn."""
    with LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for the cluster that others use on this machine")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Cluster:
    """The running cluster in `directory`."""

    def __init__(self, directory: Path = DIRECTORY) -> None:
        self.directory = directory
        self._state_file = directory / "cluster.json"
        state = json.loads(self._state_file.read_text())
        self.kept: bool = state["kept"]
        self._before = Residue(**state["before"])
        self._agents = [nomad.Agent(name, directory, ports) for name, ports in state["nomad"].items()]
        self._dynamic_ports: int = state["dynamic_ports"]
        self.docker = Docker()
        self._consuls = [consul.Consul(name, directory, ports) for name, ports in state["consul"].items()]
        self.consul = self._consuls[0]
        self.nomad = nomad.Nomad(self._agents[0])
        self.bundles = BundleStore(directory, state["bundles"])
        # In the order of their start: each is of use to those after it.
        self._parts: list[consul.Consul | BundleStore | nomad.Agent] = [*self._consuls, self.bundles, *self._agents]
        self.images: Images = Images(**state["images"]) if "images" in state else Images("", "", "")

    @classmethod
    def start(cls, clients: int = 1, kept: bool = False) -> "Cluster":
        """Start a cluster with `clients` Nomad clients, each with a Consul agent; nothing is left of it if that fails.

        One that is `kept` outlives the process that started it, on purpose.
        """
        directory = DIRECTORY
        directory.mkdir(parents=True, mode=0o755)
        ports = iter(free_ports(clients * (len(consul.PORTS) + len(nomad.PORTS)) + 1))
        state: dict[str, object] = {
            "consul": {client: {name: next(ports) for name in consul.PORTS} for client in CLIENTS[:clients]},
            "nomad": {client: {name: next(ports) for name in nomad.PORTS} for client in CLIENTS[:clients]},
            "bundles": next(ports),
            "dynamic_ports": 20_000 + os.getpid() % 20 * 400,
            "kept": kept,
            "before": Residue.now().saved(),
        }
        (directory / "cluster.json").write_text(json.dumps(state))
        cluster = cls(directory)
        with ExitStack() as undo:
            undo.callback(cluster.stop)
            cluster._start(state)
            undo.pop_all()
        return cluster

    @classmethod
    def found(cls) -> "Cluster | None":
        """The cluster that somebody keeps here; what a killed one has left is cleared away. Only within `machine()`."""
        if not (DIRECTORY / "cluster.json").exists():
            shutil.rmtree(DIRECTORY, ignore_errors=True)
            return None
        cluster = cls()
        if cluster.kept and cluster.alive:
            return cluster
        say("clearing away what an earlier cluster left")
        cluster.stop()
        return None

    @property
    def alive(self) -> bool:
        """Whether all its agents run."""
        return all(part.alive for part in self._parts)

    def _start(self, state: dict[str, object]) -> None:
        self.docker.start()
        self.images = build_all(self.docker)
        self._state_file.write_text(json.dumps({**state, "images": vars(self.images)}))
        say("starting Consul and Nomad")
        self.consul.start()
        for client in self._consuls[1:]:
            client.start(self.consul)
        self.bundles.start()
        for number, (agent, its_consul) in enumerate(zip(self._agents, self._consuls, strict=True)):
            server = None if number == 0 else f"127.0.0.1:{self._agents[0].ports['rpc']}"
            first_port = self._dynamic_ports + number * nomad.DYNAMIC_PORTS
            agent.start(its_consul.address, self.docker.socket, self.images.pause, first_port, server)

    def stop(self) -> None:
        """Stop everything, in the order that leaves least behind, whatever state it is in; then remove the rest."""
        say("stopping")
        with ExitStack() as steps:  # each step runs, even when one before it failed; last entered, first run
            steps.callback(shutil.rmtree, self.directory, ignore_errors=True)
            steps.callback(remove_since, self._before)
            steps.callback(unmount_below, self.directory)
            steps.callback(self.docker.stop)
            for part in self._parts:
                steps.callback(part.stop)
            if self._agents[0].alive:
                steps.callback(self.nomad.stop_all)
