"""Provenance: taken from git and SOURCE_DATE_EPOCH, never from the clock, and never against the author's word."""

import subprocess
from pathlib import Path

import pytest

from adapter.bundle.manifest import BundleError, Provenance, parse
from deploy.bundle.pack import pack
from deploy.bundle.provenance import manifest_with_provenance
from tests.unit.packing.archives import source_at


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    return source_at(tmp_path / "source")


@pytest.fixture
def commit(source: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The source as a repository with one commit of the year 2020."""
    for name in ("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"):
        monkeypatch.setenv(name, "2020-01-02T03:04:05Z")
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    for arguments in (["init"], ["add", "."], [*identity, "commit", "-m", "first"]):
        subprocess.run(["git", "-C", source, *arguments], capture_output=True, check=True)
    head = ["git", "-C", source, "rev-parse", "HEAD"]
    return subprocess.run(head, capture_output=True, text=True, check=True).stdout.strip()


def provenance(source: Path) -> Provenance:
    packed = source.parent / "filled.toml"
    packed.write_bytes(manifest_with_provenance(source))
    return parse(packed).provenance


def test_commit_and_time_come_from_git(source: Path, commit: str) -> None:
    found = provenance(source)
    assert (found.git_commit, found.built_at) == (commit, "2020-01-02T03:04:05Z")
    assert found.built_by.startswith("tandem ")


def test_a_source_that_differs_from_its_commit_says_so(source: Path, commit: str) -> None:
    (source / "handler.py").touch()
    assert provenance(source).git_commit == f"{commit}-dirty"


def test_source_date_epoch_goes_before_the_commits_time(
    source: Path, commit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    assert provenance(source).built_at == "1970-01-01T00:00:00Z"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(BundleError, match="SOURCE_DATE_EPOCH='yesterday'"):
        provenance(source)


@pytest.mark.parametrize(
    "written",
    [
        "[provenance]\ngit_commit = 'mine'\nauthor = 'A. Author'\n",
        "[ provenance ] # ours\nauthor = 'A. Author'\ngit_commit = 'mine'\n",
        "provenance.git_commit = 'mine'\nprovenance.author = 'A. Author'\n",
        "provenance = { git_commit = 'mine', author = 'A. Author' }\n",
    ],
)
def test_what_the_author_says_stays(source: Path, commit: str, written: str) -> None:
    manifest = (source / "bundle.toml").read_text()
    before, after = ("", written) if written.lstrip().startswith("[") else (written, "")
    (source / "bundle.toml").write_text(before + manifest + after)
    found = provenance(source)
    assert (found.git_commit, found.author) == ("mine", "A. Author")


def test_outside_of_git_nothing_is_made_up(source: Path) -> None:
    found = provenance(source)
    assert (found.git_commit, found.built_at) == ("", "")


def test_two_packs_of_one_commit_are_the_same_file(source: Path, commit: str, tmp_path: Path) -> None:
    assert pack(source, tmp_path / "a.tar.zst") == pack(source, tmp_path / "b.tar.zst")
