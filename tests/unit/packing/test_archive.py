"""The file format: what `Writer` writes is read back, everything else is refused with a sentence."""

import gzip
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import zstandard

from adapter.bundle.manifest import BundleError
from deploy.bundle import archive
from tests.unit.packing.archives import compressed, entry, tar, written

LONG = "a" * 120 + "/" + "b" * 200  # beyond ustar's 100 characters: an extended header


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    files = [("bundle.toml", b"x = 1"), ("empty", b""), (LONG, b"long"), ("models/m/1/größe", bytes(100_000))]
    (tmp_path / "p.tar.zst").write_bytes(written(files))
    archive.unpack(tmp_path / "p.tar.zst", tmp_path / "out")
    assert {name: (tmp_path / "out" / name).read_bytes() for name, _ in files} == dict(files)
    assert len([path for path in (tmp_path / "out").rglob("*") if path.is_file()]) == len(files)


REFUSED = [
    ("traversal", tar(entry("models/../../etc/cron.d/x")), "leads out of the bundle"),
    ("absolute path", tar(entry("/etc/passwd")), "an absolute path"),
    ("dot", tar(entry("./bundle.toml")), "not a plain path"),
    ("empty part", tar(entry("a//b")), "not a plain path"),
    ("no name", tar(entry("")), "not a plain path"),
    ("backslash", tar(entry("a\\..\\b")), "characters"),
    ("control character", tar(entry("a\x1b[2J")), "characters"),
    ("long part", tar(entry("x" * 300)), "too long"),
    ("long path", tar(entry("/".join(["x" * 200] * 9))), "too long"),
    ("symbolic link", tar(entry("x", type=tarfile.SYMTYPE, linkname="/etc/passwd")), "a symbolic link, 'x'"),
    ("hard link", tar(entry("x", type=tarfile.LNKTYPE, linkname="bundle.toml")), "a hard link, 'x'"),
    ("device", tar(entry("x", type=tarfile.CHRTYPE)), "a character device, 'x'"),
    ("disk", tar(entry("x", type=tarfile.BLKTYPE)), "a block device, 'x'"),
    ("fifo", tar(entry("x", type=tarfile.FIFOTYPE)), "a fifo, 'x'"),
    ("directory", tar(entry("x", type=tarfile.DIRTYPE)), "a directory entry, 'x'"),
    ("long name as GNU has it", tar(entry("x" * 200), kind=tarfile.GNU_FORMAT), "an extension of tar"),
    ("sparse file", tar(entry("x", type=tarfile.GNUTYPE_SPARSE)), "a sparse file, 'x'"),
    ("setuid", tar(entry("x", mode=0o4755)), "mode 4755 instead of 644"),
    ("twice", tar(entry("x"), entry("x")), "'x' twice"),
    ("two spellings", tar(entry("Model"), entry("model")), "one file on some disks"),
    ("two codings of a letter", tar(entry("\u00e9"), entry("e\u0301")), "one file on some disks"),
    ("file, then directory", tar(entry("a"), entry("a/b")), "'a' as a file and as a directory"),
    ("directory, then file", tar(entry("a/b"), entry("A")), "'A' as a file and as a directory"),
    ("attributes", tar(entry("x", pax_headers={"SCHILY.xattr.user.a": "b"})), "extended header of 'SCHILY"),
    ("huge header", tar(entry("x" * 90_000)), "an extended header of 9"),
    ("size that is no number", tar(entry("x", pax_headers={"size": "9" * 30})), "size that is no number"),
    ("wrong sum of a header", b"x" * 512 + tar(entry("x"))[512:], "not a tar archive inside"),
    ("more after its end", tar(entry("x")) + tar(entry("y")), "more after its end"),
    ("no end", tar(entry("x", 600))[:1536], "is truncated"),
    ("half a header", tar(entry("x"))[:100], "is truncated"),
    ("half a file", tar(entry("x", 5000))[:2048], "is truncated"),
    ("nothing", b"", "is truncated"),
    ("too many files", b"".join(tar(entry(f"{i}"))[:512] for i in range(4097)) + bytes(1024), "more than 4096 files"),
]


@pytest.mark.parametrize(("content", "said"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_does_not_belong_into_a_bundle_is_refused_with_a_sentence(
    content: bytes, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "evil.tar.zst"
    path.write_bytes(compressed(content))
    with pytest.raises(BundleError, match=said) as refused:
        archive.unpack(path, tmp_path / "out" / "inside")
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert {found.name for found in tmp_path.iterdir()} <= {"evil.tar.zst", "out"}
    assert {found.name for found in (tmp_path / "out").iterdir()} == {"inside"}


@pytest.mark.parametrize(
    "content", [b"hello", gzip.compress(b"hello"), written([("x", b"y")]) + b"tail", written([("x", b"y")])[:-1] + b"?"]
)
def test_what_is_no_zstd_file_from_end_to_end_is_refused(content: bytes) -> None:
    with pytest.raises(BundleError, match="zstd"):
        list(archive.entries(io.BytesIO(content)))


def test_a_frame_that_asks_for_much_memory_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27, compression_level=1)
    content = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    greedy = content.compress(os.urandom(1 << 24)) + content.flush()
    with pytest.raises(BundleError, match="memory"):
        list(archive.entries(io.BytesIO(greedy)))


BOMB = r"""
import re, sys
from pathlib import Path
from deploy.bundle import archive
try:
    with open(sys.argv[1], "rb") as file:
        list(archive.entries(file, max_size=1 << 30))
except archive.BundleError as error:
    print(error)
print(int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
"""


def test_a_bomb_is_refused_at_the_limit_and_never_held_in_memory(tmp_path: Path) -> None:
    size = 4 << 30
    compressor = zstandard.ZstdCompressor(level=1).compressobj()
    header = entry("bomb", size).tobuf()
    zeros = bytes(64 << 20)
    path = tmp_path / "bomb.tar.zst"
    with path.open("wb") as file:
        file.write(compressor.compress(header))
        for _ in range(size // len(zeros)):
            file.write(compressor.compress(zeros))
        file.write(compressor.flush())
    assert path.stat().st_size < 1 << 20
    done = subprocess.run([sys.executable, "-c", BOMB, path], capture_output=True, text=True, check=True)
    said, megabytes = done.stdout.splitlines()
    assert said == f"unpacks to more than {1 << 30} bytes"
    assert int(megabytes) < 100
