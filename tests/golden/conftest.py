"""The recorded world, served again: the models of `data/models` by a model server started as the recorded one was."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import ModelServer, free_port

DATA = Path(__file__).parent / "data"
RECORDED_ROOT = "/srv/tfs"  # where the models lay when the recordings were made


def relocated(text: str) -> str:
    """A recorded text with the paths of this checkout."""
    return text.replace(RECORDED_ROOT, str(DATA))


@pytest.fixture(scope="session")
def golden_data() -> Path:
    return DATA


@pytest.fixture(scope="session")
def model_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    """All recorded models, labels and the monitoring page (its port: `model_server.rest_port`)."""
    config = tmp_path_factory.mktemp("tfs") / "models.config"
    config.write_text(relocated((DATA / "models.config").read_text()))
    port = free_port()
    flags = [
        f"--model_config_file={config}",
        f"--monitoring_config_file={DATA / 'monitoring.config'}",
        f"--rest_api_port={port}",
        "--allow_version_labels_for_unavailable_models=true",
        "--enable_grpc_healthcheck_service=true",
        "--grpc_max_threads=8",
    ]
    with ModelServer(*flags, ready="Exporting HTTP/REST API") as server:
        server.rest_port = port
        yield server
