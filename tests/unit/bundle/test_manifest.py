"""The manifest: what a bundle holds, every mistake named with its file and field."""

from pathlib import Path

import pytest

from adapter.app import load_bundle
from adapter.bundle.manifest import BundleError, Model, parse, read
from adapter.settings import Settings

GOOD = 'name = "halves"\nversion = "1.0.0"\n[[models]]\nname = "half_plus_two"\nversion = 1\n'


def bundle(directory: Path, manifest: str = GOOD) -> Path:
    (directory / "bundle.toml").write_text(manifest)
    saved = directory / "models" / "half_plus_two" / "1"
    saved.mkdir(parents=True)
    (saved / "saved_model.pb").touch()
    return directory


def test_it_is_read_with_its_defaults(tmp_path: Path) -> None:
    manifest = read(bundle(tmp_path))
    assert (manifest.name, manifest.version) == ("halves", "1.0.0")
    assert manifest.models == (Model("half_plus_two", 1, coalesce=False),)


@pytest.mark.parametrize(
    ("manifest", "named"),
    [
        (GOOD.replace("halves", "No Spaces"), "name"),
        (GOOD.replace('"1.0.0"', '""'), "version"),
        (GOOD.replace("version = 1\n", 'version = "one"\n'), "models[0].version"),
        (GOOD.replace("version = 1\n", "version = -1\n"), "models[0].version"),
        (GOOD + 'colour = "red"\n', "colour"),
        (GOOD + '[[models]]\nname = "half_plus_two"\nversion = 2\n', "every name only once"),
        ('name = "x"\nversion = "1"\nmodels = []\n', "models"),
        ('name = "x"\n', "version"),
        ("= nothing", "line 1"),
        ("\udcff", "bundle.toml"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, manifest: str, named: str) -> None:
    (tmp_path / "bundle.toml").write_bytes(manifest.encode("utf-8", "surrogateescape"))
    with pytest.raises(BundleError) as caught:
        parse(tmp_path / "bundle.toml")
    assert str(tmp_path / "bundle.toml") in str(caught.value)
    assert named in str(caught.value)


def test_a_missing_manifest_says_what_a_bundle_is(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such file; a bundle has a"):
        read(tmp_path)


def test_every_model_that_is_listed_must_be_there(tmp_path: Path) -> None:
    bundle(tmp_path, GOOD + '[[models]]\nname = "other"\nversion = 3\n')
    with pytest.raises(BundleError, match=r"models/other/3/saved_model\.pb missing"):
        read(tmp_path)


def test_the_job_must_run_the_version_that_the_bundle_holds(tmp_path: Path) -> None:
    directory = str(bundle(tmp_path))
    assert load_bundle(Settings(bundle=directory, model_version=1)) is not None
    with pytest.raises(BundleError, match="the job says model version 2, the bundle holds half_plus_two 1"):
        load_bundle(Settings(bundle=directory, model_version=2))
    assert load_bundle(Settings()) is None
