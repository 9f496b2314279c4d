"""A real Consul agent for the tests of this directory, each with keys and services of its own.

Skipped, with the reason, where Consul cannot be built; with REQUIRE_CLUSTER=1 that is a failure instead.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.cluster.consul import PORTS, Consul
from deploy.cluster.process import free_ports, need
from tests.adapter.conftest import HALF_PLUS_TWO
from tests.adapters import Adapter
from tests.servers import ModelServer

# The first test may have to build Consul: minutes on two cores.
COLD_START = 1200


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(COLD_START))


@pytest.fixture(scope="module")
def consul(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consul]:
    """A running agent; a test may stop it and start it again."""
    if shutil.which("go") is None:
        reason = "not installed: go, which Consul is built with"
        assert os.environ.get("REQUIRE_CLUSTER") != "1", reason
        pytest.skip(reason)
    need("dig")
    agent = Consul("node-1", tmp_path_factory.mktemp("consul"), dict(zip(PORTS, free_ports(len(PORTS)), strict=True)))
    agent.start()
    try:
        yield agent
    finally:
        agent.stop()


@pytest.fixture(scope="module")
def model_server() -> Iterator[ModelServer]:
    with ModelServer(
        "--model_name=half_plus_two", f"--model_base_path={HALF_PLUS_TWO}", "--file_system_poll_wait_seconds=0"
    ) as server:
        yield server


@pytest.fixture
def bundle(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a bundle of half_plus_two with this version."""

    def make(version: str) -> Path:
        top = tmp_path / f"bundle-{version}"
        model = top / "models" / "half_plus_two"
        model.mkdir(parents=True)
        (model / "2").symlink_to(HALF_PLUS_TWO / "2")
        (top / "bundle.toml").write_text(
            f'name = "halves"\nversion = "{version}"\n[[models]]\nname = "half_plus_two"\nversion = 2\n'
        )
        return top

    return make


@pytest.fixture
def start(
    consul: Consul, model_server: ModelServer, bundle: Callable[[str], Path], request: pytest.FixtureRequest
) -> Callable[..., Adapter]:
    """An adapter that runs version `version` and knows Consul; a service of the test's own."""
    name = request.node.name.replace("_", "-")[:60].strip("-")

    def make(version: str = "1.0.0", **settings: object) -> Adapter:
        given = {"consul_addr": consul.address, "service": name, "tfs_grpc": model_server.target, **settings}
        return Adapter(bundle=bundle(version) if "bundle" not in given else given.pop("bundle"), **given)

    return make
