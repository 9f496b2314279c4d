"""Ten thousand bundles: what is written is read back, what is damaged is refused, and no name leads out of its directory."""

import io
import posixpath
import re
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from adapter.bundle.manifest import BundleError
from deploy.bundle import archive, minisign, verify
from deploy.bundle.names import Names
from tests.unit.packing.archives import compressed, entry, tar, written

FAST = {
    "database": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    "deadline": None,
}

part = st.text("abcXYZ09._-é ", min_size=1, max_size=12).filter(lambda text: text not in (".", ".."))
name = st.lists(part, min_size=1, max_size=4).map("/".join)
files = st.dictionaries(name, st.binary(max_size=700), max_size=6).map(lambda found: list(found.items()))
hostile = st.lists(
    st.sampled_from(
        ["..", ".", "", "/", "a", "A", "etc", "\\", "\0", "\x1b[0m", "c:", "x" * 256, "\udc80", "é", "e\u0301"]
    ),
    min_size=1,
    max_size=6,
).map("/".join)


def taken(content: bytes) -> list[tuple[str, bytes]]:
    found = []
    for one in archive.entries(io.BytesIO(content)):
        pieces = []
        while piece := one.read(1 << 16):
            pieces.append(piece)
        found.append((one.name, b"".join(pieces)))
    return found


@settings(max_examples=2000, **FAST)
@given(files)
def test_what_is_written_is_read_back_and_written_again_as_the_same_bytes(given: list[tuple[str, bytes]]) -> None:
    try:
        content = written(given)
    except BundleError as error:  # two of the names are one file on some disks, or a file and a directory
        assume("on some disks" not in str(error) and "as a file and as a directory" not in str(error))
        raise
    assert taken(content) == given
    assert written(given) == content


@settings(max_examples=3000, **FAST)
@given(st.lists(hostile | name, min_size=1, max_size=4))
def test_no_name_leads_out_of_the_directory(names: list[str]) -> None:
    found = Names()
    accepted: list[str] = []
    for one in names:
        try:
            found.add(one)
        except BundleError as error:
            assert "\n" not in str(error)
            assert "\x1b" not in str(error)
        else:
            accepted.append(one)
    for one in accepted:
        assert posixpath.normpath(posixpath.join("/top", one)) == f"/top/{one}"
        assert not re.search(r"[\0\x1b\\]", one)
    assert len({one.casefold() for one in accepted}) == len(accepted)


@settings(max_examples=2000, **FAST)
@given(st.lists(st.tuples(st.integers(0, 3071), st.integers(0, 255)), min_size=1, max_size=8), st.integers(0, 3072))
def test_a_damaged_tar_is_refused_or_holds_safe_files_only(changes: list[tuple[int, int]], end: int) -> None:
    content = bytearray(tar(entry("models/m/1/saved_model.pb", 600), entry("x" * 150, 10))[:3072])
    for position, value in changes:
        content[position] = value
    header_sum(content)
    try:
        found = taken(compressed(bytes(content[:end]) + bytes(1024)))
    except BundleError as error:
        assert "\n" not in str(error)
    else:
        assert all(not posixpath.isabs(one) and ".." not in one.split("/") for one, _ in found)


def header_sum(content: bytearray) -> None:
    """Make the first header's checksum right again, so that what it says is looked at."""
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A bundle's file and its checksum."""
    path = tmp_path_factory.mktemp("packed") / "p.tar.zst"
    path.write_bytes(written([("bundle.toml", b"x"), ("models/m/1/saved_model.pb", bytes(range(256)) * 4)]))
    return path, verify.sums(path).sha256


@settings(max_examples=2000, **FAST)
@given(st.data())
def test_a_changed_file_never_has_the_checksum(packed: tuple[Path, str], data: st.DataObject) -> None:
    path, checksum = packed
    content = bytearray(path.read_bytes())
    match data.draw(st.sampled_from(["flip", "cut", "grow"])):
        case "flip":
            content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        case "cut":
            del content[data.draw(st.integers(0, len(content) - 1)) :]
        case "grow":
            content += data.draw(st.binary(min_size=1, max_size=20))
    changed = path.with_name("changed.tar.zst")
    changed.write_bytes(content)
    with pytest.raises(BundleError, match="has the checksum sha256:"):
        verify.verify(changed, checksum)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> minisign.SecretKey:
    """A key for signing."""
    top = tmp_path_factory.mktemp("keys")
    minisign.generate(top / "k.key", top / "k.pub")
    return minisign.secret_key(top / "k.key")


@settings(max_examples=1000, **FAST)
@given(st.data())
def test_a_changed_signature_is_never_accepted(tmp_path: Path, key: minisign.SecretKey, data: st.DataObject) -> None:
    digest = data.draw(st.binary(min_size=64, max_size=64))
    signature = minisign.sign(digest, key, "comment").encode()
    lines = signature.split(b"\n")
    line = data.draw(st.sampled_from([1, 2, 3]))
    position = data.draw(st.integers(0, len(lines[line]) - 1))
    other = data.draw(st.sampled_from(b"AbcdEF0123+/ \n\x00"))
    assume(lines[line][position] != other)
    lines[line] = lines[line][:position] + bytes([other]) + lines[line][position + 1 :]
    path = tmp_path / "s.minisig"
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(BundleError) as refused:
        minisign.check(digest, path, key.public)
    assert "\n" not in str(refused.value)


def test_tar_headers_stay_what_this_test_takes_them_for() -> None:
    assert len(tar(entry("models/m/1/saved_model.pb", 600), entry("x" * 150, 10))) > 3072
    assert tarfile.BLOCKSIZE == 512
