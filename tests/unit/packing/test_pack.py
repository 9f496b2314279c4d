"""Packing: same input, same bytes; nothing of the packing machine; what is missing is built."""

import hashlib
import io
import os
import subprocess
from pathlib import Path

import pytest

from adapter.bundle.manifest import BundleError, parse
from deploy.bundle import archive
from deploy.bundle.pack import pack
from deploy.bundle.source import build
from deploy.bundle.tfs import batching_config, models_config
from tests.unit.packing.archives import MANIFEST, source_at


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return source_at(tmp_path / "source")


def test_the_same_input_gives_the_same_bytes_whatever_times_and_modes_say(source: Path, tmp_path: Path) -> None:
    first = pack(source, tmp_path / "1.tar.zst")
    os.utime(source / "bundle.toml", (1, 1))
    (source / "models" / "a" / "1" / "saved_model.pb").chmod(0o600)
    assert pack(source, tmp_path / "2.tar.zst") == first
    assert (tmp_path / "1.tar.zst").read_bytes() == (tmp_path / "2.tar.zst").read_bytes()


def test_the_checksum_is_the_files_and_lies_beside_it_for_sha256sum(source: Path, tmp_path: Path) -> None:
    checksum = pack(source, tmp_path / "p.tar.zst")
    assert checksum == hashlib.sha256((tmp_path / "p.tar.zst").read_bytes()).hexdigest()
    subprocess.run(["sha256sum", "--check", "--strict", "p.tar.zst.sha256"], cwd=tmp_path, check=True)


def test_it_holds_the_manifest_the_models_and_their_config_and_nothing_else(source: Path, tmp_path: Path) -> None:
    (source / "notes.txt").write_text("not for shipping")
    pack(source, tmp_path / "p.tar.zst")
    with (tmp_path / "p.tar.zst").open("rb") as file:
        names = [entry.name for entry in archive.entries(file)]
    assert names == [
        "bundle.toml",
        *(f"models/{m}/{f}" for m in ("a/1", "b/20") for f in ("saved_model.pb", "variables/x")),
        *(f"tfs/{name}.config" for name in ("batching", "models", "monitoring")),
    ]


def test_it_holds_the_handler_its_packages_assets_and_the_examples(source: Path, tmp_path: Path) -> None:
    (source / "handler" / "__pycache__").mkdir(parents=True)
    for name in ("__init__.py", "words.txt", ".swp", "__pycache__/x.pyc"):
        (source / "handler" / name).touch()
    for name in ("assets/vocabulary.txt", "examples/one.json", "examples/spare.json"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text("{}")
    example = '[[examples]]\nname = "one"\nrequest = "examples/one.json"\n'
    (source / "bundle.toml").write_text(f'handler = "handler"\n{MANIFEST}{example}')
    (source / "requirements.txt").write_text("# nothing that the image lacks\nnumpy\n")
    pack(source, tmp_path / "p.tar.zst")
    with (tmp_path / "p.tar.zst").open("rb") as file:
        names = [entry.name for entry in archive.entries(file) if not entry.name.startswith(("models/", "tfs/"))]
    assert names == [
        "bundle.toml",
        "assets/vocabulary.txt",
        "examples/one.json",
        "handler/__init__.py",
        "handler/words.txt",
        "vendor.lock",
    ]


def test_tar_and_zstd_of_the_system_unpack_it(source: Path, tmp_path: Path) -> None:
    pack(source, tmp_path / "p.tar.zst")
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "--zstd", "-xf", tmp_path / "p.tar.zst", "-C", tmp_path / "out"], check=True)
    assert (tmp_path / "out" / "models" / "b" / "20" / "variables" / "x").read_bytes() == b"x" * 1000


def test_a_pack_that_fails_leaves_no_file(source: Path, tmp_path: Path) -> None:
    (source / "models" / "a" / "1" / "back\\slash").touch()
    with pytest.raises(BundleError, match="characters"):
        pack(source, tmp_path / "p.tar.zst")
    assert {path.name for path in tmp_path.iterdir()} == {"source"}


def test_a_file_name_that_promises_another_format_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"named …\.tar\.zst"):
        pack(source, tmp_path / "p.tar.gz")


def test_the_config_serves_exactly_the_listed_versions(source: Path) -> None:
    config = models_config(parse(source / "bundle.toml"), "/alloc/bundle")
    assert 'base_path: "/alloc/bundle/models/b"' in config
    assert "specific { versions: 20 }" in config


def test_labels_and_the_largest_batch_go_into_the_config(source: Path) -> None:
    labelled = MANIFEST.replace("version = 20\n", "version = 20\nlabels = { stable = 20, next = 20 }\n")
    (source / "bundle.toml").write_text(labelled + "[limits]\nmax_batch = 7\n")
    manifest = parse(source / "bundle.toml")
    assert 'version_labels { key: "stable" value: 20 }' in models_config(manifest, "/alloc/bundle")
    assert "max_batch_size { value: 7 }" in batching_config(manifest)


def test_what_is_missing_is_built_and_a_build_that_fails_says_why(source: Path) -> None:
    (source / "build.py").write_text("raise SystemExit('nothing is missing, so nobody calls this')")
    build(source, io.StringIO())
    (source / "models" / "a" / "1" / "saved_model.pb").unlink()
    with pytest.raises(BundleError, match="nothing is missing"):
        build(source, io.StringIO())
    (source / "build.py").write_text(
        "import pathlib, sys\npathlib.Path(sys.argv[1], 'a/1/saved_model.pb').touch()\nprint('made')\n"
    )
    said = io.StringIO()
    assert build(source, said).name == "m"
    assert "made" in said.getvalue()
