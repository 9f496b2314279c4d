"""Signatures: ours are minisign's, and theirs are ours; whatever else stands in their place is refused."""

import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from adapter.bundle.manifest import BundleError
from deploy.bundle import minisign
from deploy.bundle.verify import sums


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    secret, public = tmp_path / "release.key", tmp_path / "release.pub"
    minisign.generate(secret, public)
    return secret, public


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "b.tar.zst"
    path.write_bytes(b"any file at all")
    return path


def signed(bundle: Path, secret: Path) -> Path:
    path = bundle.with_name(f"{bundle.name}.minisig")
    path.write_text(minisign.sign(sums(bundle).blake2b, minisign.secret_key(secret), "b@1"))
    return path


def test_a_signature_checks_and_tells_its_comment(keys: tuple[Path, Path], bundle: Path) -> None:
    path = signed(bundle, keys[0])
    assert minisign.check(sums(bundle).blake2b, path, minisign.public_key(str(keys[1]))) == "b@1"
    in_base64 = keys[1].read_text().splitlines()[1]
    assert minisign.check(sums(bundle).blake2b, path, minisign.public_key(in_base64)) == "b@1"


def test_minisign_checks_what_we_sign_and_we_what_minisign_signs(keys: tuple[Path, Path], bundle: Path) -> None:
    assert shutil.which("minisign"), "Debian's package minisign is needed"
    signed(bundle, keys[0])
    done = subprocess.run(["minisign", "-Vm", bundle, "-p", keys[1]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Trusted comment: b@1" in done.stdout
    bundle.with_name("b.tar.zst.minisig").unlink()
    command = ["minisign", "-Sm", bundle, "-s", keys[0], "-t", "theirs"]
    subprocess.run(command, capture_output=True, text=True, check=True)
    theirs = bundle.with_name("b.tar.zst.minisig")
    assert minisign.check(sums(bundle).blake2b, theirs, minisign.public_key(str(keys[1]))) == "theirs"


def test_a_secret_key_is_for_its_owner_alone_and_never_overwritten(keys: tuple[Path, Path]) -> None:
    assert stat.S_IMODE(keys[0].stat().st_mode) == 0o600
    with pytest.raises(BundleError, match="never overwritten"):
        minisign.generate(*keys)


def test_a_missing_signature_is_refused(keys: tuple[Path, Path], bundle: Path) -> None:
    with pytest.raises(BundleError, match="is missing: the bundle is not signed"):
        minisign.check(bytes(64), bundle.with_name("none.minisig"), minisign.public_key(str(keys[1])))


def test_a_signature_by_another_key_is_refused_and_both_are_named(
    keys: tuple[Path, Path], bundle: Path, tmp_path: Path
) -> None:
    path = signed(bundle, keys[0])
    other = minisign.generate(tmp_path / "o.key", tmp_path / "o.pub")
    with pytest.raises(BundleError, match=f"not by {other.name}"):
        minisign.check(sums(bundle).blake2b, path, other)


def test_a_signature_over_another_file_is_refused(keys: tuple[Path, Path], bundle: Path) -> None:
    path = signed(bundle, keys[0])
    bundle.write_bytes(b"another file")
    with pytest.raises(BundleError, match="not over this file"):
        minisign.check(sums(bundle).blake2b, path, minisign.public_key(str(keys[1])))


@pytest.mark.parametrize("text", ["", "untrusted comment: x\n", "untrusted comment: x\n!!!\n", "x\ny\n", "\0\udcff"])
def test_what_is_no_key_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(BundleError, match="k: "):
        minisign.secret_key(tmp_path / "k")
    with pytest.raises(BundleError, match="k: "):
        minisign.public_key(str(tmp_path / "k"))


def test_an_encrypted_key_is_refused_with_a_way_out(tmp_path: Path) -> None:
    command = ["minisign", "-G", "-p", tmp_path / "e.pub", "-s", tmp_path / "e.key"]
    subprocess.run(command, input="secret\nsecret\n", capture_output=True, text=True, check=True)
    with pytest.raises(BundleError, match="encrypted; sign with minisign itself"):
        minisign.secret_key(tmp_path / "e.key")
