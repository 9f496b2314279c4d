"""One real cluster for all tests of this directory, and the service that they look at.

Skipped as a whole, with the reason, where a cluster cannot run; with REQUIRE_CLUSTER=1 that is a failure instead.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deploy.bundle.pack import pack
from deploy.cluster.cluster import Cluster, machine, missing
from deploy.cluster.residue import Residue
from deploy.cluster.tools import binary
from tests.cluster.jobfile import JOB, REQUIRED, ROOT

# The first test may have to build Nomad, Consul and the images: a quarter of an hour on two cores.
COLD_START = 2400


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.timeout(COLD_START))


@dataclass(frozen=True)
class Service:
    """A job that runs, and what was given for it."""

    name: str
    variables: dict[str, object]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A running cluster of two nodes, gone without a trace afterwards."""
    if reason := missing():
        _give_up(reason)
    with machine():
        if Cluster.found() is not None:
            _give_up("`make cluster` runs one already, which `make cluster-down` stops")
        before = Residue.now()
        running = Cluster.start(clients=2)
        try:
            yield running
        finally:
            running.stop()
        assert Residue.now() == before, "the cluster left something behind"


@pytest.fixture(scope="session")
def sample(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The job's variables for the packed sample `half_plus_two` and the images built here."""
    archive = tmp_path_factory.mktemp("bundle") / "half_plus_two.tar.zst"
    pack(ROOT / "samples" / "half_plus_two", archive)
    bundle = cluster.bundles.publish(archive)
    return {
        "bundle_url": bundle.url,
        "bundle_checksum": bundle.checksum,
        "model_version": 1,
        "tfs_image": cluster.images.model_server,
        "adapter_image": cluster.images.adapter,
        "min_healthy_time": 1,
        "shutdown_delay": 1,
    }


@pytest.fixture
def stopped_afterwards(cluster: Cluster) -> Iterator[list[str]]:
    """Names of jobs to stop when the test is over."""
    names: list[str] = []
    yield names
    for name in names:
        cluster.nomad.stop(name)


@pytest.fixture
def deploy(cluster: Cluster, sample: dict[str, object], stopped_afterwards: list[str]) -> Callable[..., Service]:
    """Runs the production job under a name, with further variables, until healthy; stopped after the test."""

    def run(name: str, **variables: object) -> Service:
        service = Service(name, {**sample, "name": name, **variables})
        stopped_afterwards.append(name)
        cluster.nomad.run(JOB, service.variables)
        cluster.nomad.deployed(name, seconds=120)
        return service

    return run


@pytest.fixture(scope="session")
def nomad() -> Path:
    """The `nomad` command, for what needs no agent."""
    if shutil.which("go") is None:
        _give_up("not installed: go")
    return binary("nomad")


@pytest.fixture(scope="session")
def parsed(nomad: Path) -> Callable[..., dict[str, Any]]:
    """The production job as Nomad understands it, with these variables beside the required ones."""

    def parse(**variables: object) -> dict[str, Any]:
        given = {**REQUIRED, **variables}
        options = [f"-var={key}={value}" for key, value in given.items()]
        command = [str(nomad), "job", "run", "-output", *options, str(JOB)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        job: dict[str, Any] = json.loads(done.stdout)["Job"]
        return job

    return parse


def _give_up(reason: str) -> None:
    if os.environ.get("REQUIRE_CLUSTER") == "1":
        pytest.fail(f"REQUIRE_CLUSTER=1, but no cluster can run here: {reason}")
    pytest.skip(f"no cluster can run here: {reason}")
