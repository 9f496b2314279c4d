"""A bundle's model behind the real adapter: half_plus_two as recorded, and a model that takes its time."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.golden.conftest import DATA
from tests.servers import ModelServer, free_port

HALF_PLUS_TWO = DATA / "models" / "half_plus_two"
MULTI = DATA / "models" / "multi"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """An unpacked bundle of half_plus_two, version 1."""
    top = tmp_path / "bundle"
    (top / "models" / "half_plus_two").mkdir(parents=True)
    (top / "models" / "half_plus_two" / "1").symlink_to(HALF_PLUS_TWO / "1")
    (top / "bundle.toml").write_text(
        'name = "halves"\nversion = "1.2.3"\n[[models]]\nname = "half_plus_two"\nversion = 1\n'
    )
    return top


@pytest.fixture
def server(bundle: Path) -> Iterator[ModelServer]:
    """A model server that serves the bundle's model; tests may kill it."""
    flags = ["--model_name=half_plus_two", f"--model_base_path={bundle / 'models' / 'half_plus_two'}"]
    with ModelServer(*flags, "--grpc_max_threads=8") as running:
        yield running


@pytest.fixture
def monitored(bundle: Path) -> Iterator[ModelServer]:
    """A model server that serves the bundle's model and has a monitoring page; tests may kill it."""
    port = free_port()
    flags = ["--model_name=half_plus_two", f"--model_base_path={bundle / 'models' / 'half_plus_two'}"]
    flags += [f"--rest_api_port={port}", f"--monitoring_config_file={DATA / 'monitoring.config'}"]
    with ModelServer(*flags, ready="Exporting HTTP/REST API") as running:
        running.rest_port = port
        yield running


@pytest.fixture(scope="session")
def slow_server() -> Iterator[ModelServer]:
    """A model server with `multi`, whose signature `slow` computes as long as it is told."""
    with ModelServer("--model_name=multi", f"--model_base_path={MULTI}", "--grpc_max_threads=4") as running:
        yield running
