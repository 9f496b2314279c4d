"""Packing: same input, same bytes; nothing of the packing machine; unpacking refuses what would leave its place."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from adapter.bundle.manifest import BundleError, parse
from deploy.local.group import unpack
from deploy.pack import build, models_config, pack

MANIFEST = 'name = "m"\nversion = "1"\n[[models]]\nname = "a"\nversion = 1\n[[models]]\nname = "b"\nversion = 20\n'


@pytest.fixture
def source(tmp_path: Path) -> Path:
    top = tmp_path / "source"
    for model in ("a/1", "b/20"):
        (top / "models" / model / "variables").mkdir(parents=True)
        (top / "models" / model / "saved_model.pb").write_bytes(model.encode())
        (top / "models" / model / "variables" / "x").write_bytes(b"x" * 1000)
    (top / "bundle.toml").write_text(MANIFEST)
    (top / "build.py").write_text("raise SystemExit('nothing is missing, so nobody calls this')")
    return top


def test_the_same_input_gives_the_same_bytes_whatever_times_and_modes_say(source: Path, tmp_path: Path) -> None:
    first = pack(source, tmp_path / "1.tar.gz")
    os.utime(source / "bundle.toml", (1, 1))
    (source / "models" / "a" / "1" / "saved_model.pb").chmod(0o600)
    assert pack(source, tmp_path / "2.tar.gz") == first
    assert (tmp_path / "1.tar.gz").read_bytes() == (tmp_path / "2.tar.gz").read_bytes()


def test_it_holds_the_manifest_the_models_and_their_config_and_nothing_else(source: Path, tmp_path: Path) -> None:
    pack(source, tmp_path / "p.tar.gz")
    with tarfile.open(tmp_path / "p.tar.gz") as archive:
        entries = {entry.name: entry for entry in archive}
    assert set(entries) == {
        "bundle.toml",
        "tfs/models.config",
        *(f"models/{m}/{f}" for m in ("a/1", "b/20") for f in ("saved_model.pb", "variables/x")),
    }
    assert {(e.uid, e.gid, e.mtime, e.mode, e.uname) for e in entries.values()} == {(0, 0, 0, 0o644, "")}


def test_the_config_serves_exactly_the_listed_versions(source: Path) -> None:
    config = models_config(parse(source / "bundle.toml"), "/alloc/bundle")
    assert 'base_path: "/alloc/bundle/models/b"' in config
    assert "specific { versions: 20 }" in config


def test_what_is_missing_is_built_and_a_build_that_fails_says_why(source: Path) -> None:
    (source / "models" / "a" / "1" / "saved_model.pb").unlink()
    with pytest.raises(BundleError, match="nothing is missing"):
        build(source, io.StringIO())
    (source / "build.py").write_text(
        "import pathlib, sys\npathlib.Path(sys.argv[1], 'a/1/saved_model.pb').touch()\nprint('made')\n"
    )
    said = io.StringIO()
    assert build(source, said).name == "m"
    assert "made" in said.getvalue()


@pytest.mark.parametrize("evil", ["../out", "/etc/out", "link", "device"])
def test_an_archive_that_would_leave_its_place_is_refused(evil: str, tmp_path: Path) -> None:
    entry = tarfile.TarInfo(evil)
    if evil == "link":
        entry.type, entry.linkname = tarfile.SYMTYPE, "../../etc/passwd"
    if evil == "device":
        entry.type = tarfile.CHRTYPE
    with tarfile.open(tmp_path / "evil.tar.gz", "w:gz") as archive:
        archive.addfile(entry)
    if evil == "/etc/out":  # the filter makes it relative, which stays inside
        unpack(tmp_path / "evil.tar.gz", tmp_path / "inside")
        assert (tmp_path / "inside" / "etc" / "out").exists()
        return
    with pytest.raises(BundleError):
        unpack(tmp_path / "evil.tar.gz", tmp_path / "inside")


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tar.gz").write_bytes(b"hello")
    with pytest.raises(BundleError, match=r"x\.tar\.gz"):
        unpack(tmp_path / "x.tar.gz", tmp_path / "inside")
