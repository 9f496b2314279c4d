"""Which directories are versions, and which of them a model's policy wants."""

from pathlib import Path
from queue import Queue

import pytest

from deploy.local.model_server.source import Model, Source, versions_of
from deploy.local.model_server.status import StatusError


@pytest.fixture
def base(tmp_path: Path) -> Path:
    for name in ("1", "2", "00010", "x3", "-4", "5a", "99999999999999999999"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_only_names_that_are_whole_numbers_of_64_bits_are_versions(base: Path) -> None:
    assert versions_of(Model("m", str(base), every=True)) == {1: base / "1", 2: base / "2", 10: base / "00010"}


def test_the_newest_version_is_wanted_by_default_and_more_of_them_by_policy(base: Path) -> None:
    assert versions_of(Model("m", str(base))).keys() == {10}
    assert versions_of(Model("m", str(base), latest=2)).keys() == {2, 10}


def test_a_specific_version_that_is_missing_is_warned_of(base: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert versions_of(Model("m", str(base), specific=frozenset({1, 7}))).keys() == {1}
    assert "Version 7 of servable m, which was requested to be served as a 'specific' version" in capfd.readouterr().err


def test_no_version_at_all_is_warned_of_and_unloads_the_model(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert versions_of(Model("m", str(tmp_path))) == {}
    assert f"No versions of servable m found under base path {tmp_path}. Did you forget" in capfd.readouterr().err


def test_a_missing_base_path_is_an_error() -> None:
    with pytest.raises(StatusError, match="Could not find base path /nowhere for servable m with error NOT_FOUND"):
        versions_of(Model("m", "/nowhere"))


def test_one_missing_base_path_keeps_every_model_as_it_is(base: Path, capfd: pytest.CaptureFixture[str]) -> None:
    aspired: Queue[tuple[str, dict[int, Path]]] = Queue()
    source = Source(lambda name, versions: aspired.put((name, versions)), poll_seconds=-1)
    source.watch((Model("m", str(base)), Model("n", "/nowhere")))
    source.poll()
    assert aspired.empty()
    assert "FileSystemStoragePathSource encountered a filesystem access error: Could not find" in capfd.readouterr().err


def test_a_model_no_longer_watched_is_unaspired_at_once_and_new_ones_are_named(base: Path) -> None:
    aspired: Queue[tuple[str, dict[int, Path]]] = Queue()
    source = Source(lambda name, versions: aspired.put((name, versions)), poll_seconds=-1)
    assert source.watch((Model("m", str(base)),)) == {"m"}
    assert source.watch((Model("n", str(base)),)) == {"n"}
    assert aspired.get_nowait() == ("m", {})


def test_a_poll_interval_of_zero_looks_exactly_once(base: Path) -> None:
    aspired: Queue[tuple[str, dict[int, Path]]] = Queue()
    source = Source(lambda name, versions: aspired.put((name, versions)), poll_seconds=0)
    source.watch((Model("m", str(base)),))
    assert aspired.get(timeout=10) == ("m", {10: base / "00010"})
    assert aspired.empty()
