"""`tandem verify` and `tandem inspect`: the checksum first, the signature next, then what the file holds."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from adapter.bundle.manifest import BundleError
from deploy import cli
from deploy.bundle import minisign
from deploy.bundle.pack import pack
from deploy.bundle.verify import look, verify
from tests.golden.conftest import DATA
from tests.unit.packing.archives import compressed, entry, tar, written

MODEL = DATA / "models" / "half_plus_two" / "1"
MANIFEST = """name = "halves"
version = "1.2.3"
[limits]
max_body = 4096
[[models]]
name = "half_plus_two"
version = 1
coalesce = true
signatures = ["serving_default"]
memory = 16
labels = { stable = 1 }
[provenance]
author = "A. [Author]"
[[examples]]
name = "one"
request = "examples/one.json"
response = "examples/one.answer.json"
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    top = tmp_path / "source"
    shutil.copytree(MODEL, top / "models" / "half_plus_two" / "1")
    (top / "examples").mkdir()
    for name in ("one.json", "one.answer.json"):
        (top / "examples" / name).write_text("{}")
    (top / "bundle.toml").write_text(MANIFEST)
    return top


@pytest.fixture
def bundle(source: Path, tmp_path: Path) -> Path:
    path = tmp_path / "halves.tar.zst"
    pack(source, path)
    return path


def sum_of(path: Path) -> str:
    return subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout[:64]


def test_a_packed_bundle_is_what_its_checksum_says(bundle: Path) -> None:
    found = verify(bundle)
    assert found.contents.manifest.name == "halves"
    assert found.contents.models["half_plus_two"].signatures["serving_default"].inputs["x"].dtype == "float"
    assert verify(bundle, f"sha256:{sum_of(bundle)}").sums == found.sums


def test_a_wrong_checksum_is_refused_before_anything_is_read(bundle: Path) -> None:
    bundle.write_bytes(b"not even an archive")
    with pytest.raises(BundleError, match=r"has the checksum sha256:[0-9a-f]{64}, not sha256:") as refused:
        verify(bundle)
    assert "zstd" not in str(refused.value)


@pytest.mark.parametrize("checksum", ["md5:d41d8cd98f00b204e9800998ecf8427e", "", "SHA256:" + "0" * 64, "0" * 63])
def test_what_is_no_checksum_is_refused(bundle: Path, checksum: str) -> None:
    with pytest.raises(BundleError, match="is no checksum"):
        verify(bundle, checksum)


def test_without_any_checksum_there_is_nothing_to_compare_with(bundle: Path) -> None:
    bundle.with_name("halves.tar.zst.sha256").unlink()
    with pytest.raises(BundleError, match="can be compared with nothing"):
        verify(bundle)


def test_where_a_key_is_given_a_missing_signature_is_refused(bundle: Path, tmp_path: Path) -> None:
    key = minisign.generate(tmp_path / "k.key", tmp_path / "k.pub")
    with pytest.raises(BundleError, match=r"halves\.tar\.zst\.minisig is missing: the bundle is not signed"):
        verify(bundle, key=key)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (compressed(tar(entry("bundle.toml/../../x"))), "leads out of the bundle"),
        (compressed(tar(entry("bundle.toml", type=b"2", linkname="/etc/shadow"))), "a symbolic link"),
        (written([("README", b"")]), "bundle.toml: no such file"),
        (written([("bundle.toml", b"name = 7")]), "bundle.toml:1: name"),
        (
            written([("bundle.toml", MANIFEST.encode())]),
            "lacks models/half_plus_two/1/saved_model.pb, examples/one.json",
        ),
    ],
)
def test_what_no_service_could_run_is_refused_though_its_checksum_is_right(
    content: bytes, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "b.tar.zst"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=said) as refused:
        verify(path, sum_of(path))
    assert str(path) in str(refused.value)


def test_a_signature_that_the_model_lacks_is_refused_with_those_it_has(source: Path) -> None:
    (source / "bundle.toml").write_text(MANIFEST.replace('["serving_default"]', '["classify"]'))
    with pytest.raises(BundleError, match="half_plus_two has no signature classify; it has serving_default"):
        look(source)


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = cli.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return status, out, err


def test_the_way_from_a_key_to_a_verified_bundle(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, "keygen", tmp_path / "release")[0] == 0
    packed = tmp_path / "b.tar.zst"
    status, out, _ = run(capsys, "pack", "--no-run", source, "-o", packed, "--sign", tmp_path / "release.key", "--json")
    assert status == 0
    result = json.loads(out)
    assert result["bundle"] == "halves@1.2.3"
    status, out, _ = run(capsys, "verify", packed, "--checksum", result["checksum"], "--key", tmp_path / "release.pub")
    assert status == 0
    assert "signed by" in out
    packed.with_name("b.tar.zst.minisig").unlink()
    assert run(capsys, "verify", packed, "--key", tmp_path / "release.pub")[0] == 2
    assert run(capsys, "sign", packed, "--key", tmp_path / "release.key")[0] == 0
    status, out, _ = run(capsys, "verify", packed, "--key", tmp_path / "release.pub", "--json")
    assert (status, json.loads(out)["checksum"]) == (0, result["checksum"])


def test_a_refusal_is_one_line_and_status_2_and_with_json_an_object(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("verify", bundle, "--checksum", "0" * 64)
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("tandem: ")
    assert err.count("\n") == 1
    status, out, _ = run(capsys, *arguments, "--json")
    assert (status, json.loads(out)["error"]) == (2, err.removeprefix("tandem: ").rstrip("\n"))


def test_inspect_tells_a_person_what_it_is(bundle: Path, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "inspect", bundle)
    assert status == 0
    for told in (
        "halves@1.2.3",
        f"sha256:{sum_of(bundle)}",
        "float[?]",
        "A. [Author]",
        "max_body 4096",
        "16 MiB",
        "golden",
    ):
        assert told in out, told
    assert "\x1b" not in out
    assert "sha256:" not in run(capsys, "inspect", source)[1]


def test_inspect_tells_a_machine_the_same(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(run(capsys, "inspect", bundle, "--json")[1])
    assert found["checksum"] == f"sha256:{sum_of(bundle)}"
    (model,) = found["models"]
    assert model["labels"] == {"stable": 1}
    assert model["signatures_found"]["serving_default"]["outputs"]["y"]["shape"] == [None]
    assert found["memory"] == 16
    assert found["examples"] == [
        {"name": "one", "path": "/v1/models/half_plus_two:predict", "golden": True, "warmup": False}
    ]
