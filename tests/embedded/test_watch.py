"""`tandem run --watch`: what is saved is served, on the same port, without a connection refused."""

import json
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adapter.conftest import HALF_PLUS_TWO
from tests.embedded.test_group import PREDICT, Run

# Seconds that a save may take to be served, on a machine with nothing else to do; see docs/model-author.md.
RELOAD = 2.0
RELOADED = r"reloaded in ([0-9.]+) s"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A bundle's source directory with a copy of its model."""
    top = tmp_path / "source"
    shutil.copytree(HALF_PLUS_TWO / "1", top / "models" / "half_plus_two" / "1")
    (top / "bundle.toml").write_text(
        'name = "halves"\nversion = "1"\n[[models]]\nname = "half_plus_two"\nversion = 1\n'
    )
    return top


@pytest.fixture
def run(source: Path, tmp_path: Path) -> Iterator[Run]:
    with Run(source, tmp_path / "tandem", "--watch") as running:
        running.wait_for(r"REST +http")
        yield running


def test_a_saved_manifest_is_served_and_no_request_is_lost_meanwhile(run: Run, source: Path) -> None:
    lost: list[object] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            try:
                status, _ = run.get("/health/live")
            except OSError as error:
                lost.append(error)
            else:
                if status != 200:
                    lost.append(status)

    asking = threading.Thread(target=ask)
    asking.start()
    (source / "bundle.toml").write_text((source / "bundle.toml").read_text().replace('"1"', '"2"'))
    run.wait_for(RELOADED)
    over.set()
    asking.join()
    assert lost == []
    run.wait_for("bundle halves@2")
    status, body = run.get(*PREDICT)
    assert (status, json.loads(body)) == (200, {"predictions": [2.5, 3.0, 4.5]})


def test_a_saved_model_is_loaded_anew_by_the_same_tfs(run: Run, source: Path) -> None:
    tfs = run.pid_of("deploy.local.model_server")
    seen = len(run.lines)
    (source / "models" / "half_plus_two" / "1" / "saved_model.pb").touch()
    run.wait_for(RELOADED, after=seen)
    run.wait_for("Successfully unloaded servable version|Done unloading servable version", after=seen)
    run.wait_for("Successfully loaded servable version", after=seen)
    assert run.pid_of("deploy.local.model_server") == tfs
    assert run.get(*PREDICT)[0] == 200


def test_a_save_is_served_in_two_seconds(run: Run, source: Path) -> None:
    for name in ("words.txt", "models/half_plus_two/1/saved_model.pb"):
        taken = [reloaded(run, source / name)]
        while taken[-1] >= RELOAD and len(taken) < 6:  # it may have waited for the machine
            taken.append(reloaded(run, source / name))
        assert taken[-1] < RELOAD, (name, taken)
    assert not [line for line in run.lines if "does not load" in line]


def reloaded(run: Run, path: Path) -> float:
    """Seconds from the save of this file to ready."""
    seen = len(run.lines)
    path.touch()
    found = re.search(RELOADED, run.wait_for(RELOADED, after=seen))
    assert found is not None
    return float(found[1])


def test_a_mistake_is_told_and_the_last_good_one_goes_on_serving(run: Run, source: Path) -> None:
    good = (source / "bundle.toml").read_text()
    (source / "bundle.toml").write_text(good + "colour = 1\n")
    run.wait_for(r"not reloaded: .*bundle\.toml:6: .*colour")
    assert run.get(*PREDICT)[0] == 200
    (source / "bundle.toml").write_text(good)
    run.wait_for(RELOADED)


def test_a_packed_bundle_cannot_be_watched(tmp_path: Path) -> None:
    (tmp_path / "b.tar.zst").touch()
    with Run(tmp_path / "b.tar.zst", tmp_path / "tandem", "--watch") as run:
        assert run.wait() == 2
        assert "only a source directory can be watched" in "\n".join(run.lines)
