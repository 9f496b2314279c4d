"""The adapter's settings: read from the environment, wrong ones all named at once, nothing started."""

import os
import subprocess
import sys

import pytest

from adapter.settings import Settings, SettingsError, load


def test_an_empty_environment_gives_the_defaults() -> None:
    assert load({}) == Settings()


def test_every_setting_is_read_from_the_variable_of_its_name() -> None:
    settings = load(
        {
            "ADAPTER_HOST": "127.0.0.1",
            "ADAPTER_PORT": "9000",
            "ADAPTER_TFS_GRPC": "unix:///alloc/tmp/tfs.sock",
            "ADAPTER_TFS_MAX_CALLS": "16",
            "ADAPTER_SHUTDOWN_GRACE": "2.5",
            "ADAPTER_ACCESS_LOG": "false",
            "ADAPTER_MODEL_VERSION": "7",
        }
    )
    assert (settings.host, settings.port, settings.tfs_grpc) == ("127.0.0.1", 9000, "unix:///alloc/tmp/tfs.sock")
    assert (settings.tfs_max_calls, settings.shutdown_grace, settings.access_log) == (16, 2.5, False)
    assert settings.model_version == 7


def test_under_nomad_defaults_come_from_the_allocation() -> None:
    settings = load({"NOMAD_ALLOC_DIR": "/alloc", "NOMAD_PORT_http": "23456"})
    assert settings.tfs_grpc == "unix:///alloc/tmp/tfs.sock"
    assert settings.tfs_logs == "/alloc/logs"
    assert settings.port == 23456


def test_an_explicit_variable_wins_over_nomads_default() -> None:
    settings = load({"NOMAD_ALLOC_DIR": "/alloc", "ADAPTER_TFS_GRPC": "127.0.0.1:8500"})
    assert settings.tfs_grpc == "127.0.0.1:8500"


def test_all_mistakes_are_reported_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        load(
            {
                "ADAPTER_PORT": "99999",
                "ADAPTER_LOG_LEVEL": "LOUD",
                "ADAPTER_PROT": "1",
                "ADAPTER_TFS_GRPC": "unix:relative",
                "ADAPTER_TFS_METRICS_URL": "localhost",
                "ADAPTER_CORS": "perhaps",
            }
        )
    text = str(caught.value)
    assert len(caught.value.problems) == 6
    assert "ADAPTER_PORT='99999': expected `int` <= 65535" in text
    assert "ADAPTER_PROT: no such setting; did you mean ADAPTER_PORT?" in text
    assert "ADAPTER_TFS_GRPC='unix:relative': expected unix:///path or host:port" in text
    assert "ADAPTER_LOG_LEVEL" in text
    assert "ADAPTER_TFS_METRICS_URL" in text
    assert "ADAPTER_CORS" in text


def test_a_socket_path_beyond_what_the_kernel_takes_is_refused() -> None:
    with pytest.raises(SettingsError, match="at most 107 bytes"):
        load({"ADAPTER_TFS_GRPC": "unix:///" + "x" * 107})


def test_bad_settings_end_the_process_with_status_2_and_every_mistake_on_stderr() -> None:
    environment = {**os.environ, "ADAPTER_PORT": "many", "ADAPTER_BUNLDE": "/b"}
    done = subprocess.run(
        [sys.executable, "-m", "adapter"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("adapter: ADAPTER_") for line in lines)
