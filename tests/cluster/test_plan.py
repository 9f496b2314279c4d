"""What a real Nomad says before anything runs: which jobs it takes, and where it would place them."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.cluster.cluster import Cluster
from deploy.cluster.nomad import options
from tests.cluster.jobfile import JOB, REQUIRED, VAR_FILES

REASON = re.compile(r"^ +\* (.*)$", re.MULTILINE)


@pytest.fixture(scope="module")
def gpu_pool(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The node pool that the GPU var-files name, without a node in it."""
    specification = tmp_path_factory.mktemp("pool") / "gpu.hcl"
    specification.write_text('node_pool "gpu" {}\n')
    assert cluster.nomad.command("node", "pool", "apply", str(specification)).returncode == 0
    yield
    cluster.nomad.command("node", "pool", "delete", "gpu")


@pytest.mark.usefixtures("gpu_pool")
@pytest.mark.parametrize("path", VAR_FILES, ids=lambda path: path.name)
@pytest.mark.parametrize("network_mode", ["bridge", "host"])
def test_the_server_accepts_the_job_of_every_var_file(cluster: Cluster, path: Path, network_mode: str) -> None:
    done = cluster.nomad.command("job", "validate", *options({"network_mode": network_mode}, [path]), str(JOB))
    assert done.returncode == 0, done.stderr
    assert "Job validation successful" in done.stdout
    assert "Warning" not in done.stdout


@pytest.mark.parametrize("network_mode", ["bridge", "host"])
def test_a_cpu_group_can_be_placed(cluster: Cluster, network_mode: str) -> None:
    status, reasons = plan(cluster, network_mode=network_mode)
    assert status == 1  # "allocations created or destroyed"
    assert reasons == []


@pytest.mark.parametrize("path", [path for path in VAR_FILES if "gpu" in path.name], ids=lambda path: path.name)
def test_a_gpu_group_lacks_nothing_but_the_device(cluster: Cluster, path: Path) -> None:
    status, reasons = plan(cluster, path, node_pool="default")
    assert status == 1
    nodes = len(cluster.nomad.api.get("/nodes"))
    assert reasons == [f'Constraint "missing devices": {nodes} nodes excluded by filter']


def test_a_bad_variable_is_refused_with_its_message(cluster: Cluster) -> None:
    done = cluster.nomad.command("job", "run", *options({**REQUIRED, "device": "tpu"}), str(JOB))
    assert done.returncode == 1
    assert "The device must be cpu or gpu." in done.stderr


def plan(cluster: Cluster, *var_files: Path, **variables: object) -> tuple[int, list[str]]:
    """The exit status of `nomad job plan`, and its reasons not to place."""
    given = variables if var_files else {**REQUIRED, **variables}
    done = cluster.nomad.command("job", "plan", *options(given, var_files), str(JOB))
    return done.returncode, REASON.findall(done.stdout)
