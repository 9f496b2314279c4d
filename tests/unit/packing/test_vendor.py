"""The handler's packages: resolved once, kept by hash, unpacked the same every time, never twice what the image has."""

import io
from pathlib import Path

import pytest

from adapter.bundle.manifest import BundleError
from deploy.bundle.vendor import vendor


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "requirements.txt").write_text("hpack\ntoolz==1.0.0\n")
    return tmp_path


def contents(source: Path) -> dict[str, bytes]:
    top = source / "vendor"
    return {path.relative_to(top).as_posix(): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def test_what_the_image_lacks_is_unpacked_and_locked_by_hash(source: Path) -> None:
    vendor(source, io.StringIO())
    lock = (source / "vendor.lock").read_text()
    assert "toolz==1.0.0 \\\n    --hash=sha256:" in lock
    assert "hpack" not in lock
    assert "toolz/functoolz.py" in contents(source)


def test_the_same_lock_unpacks_to_the_same_bytes_and_an_up_to_date_one_is_left_alone(source: Path) -> None:
    vendor(source, io.StringIO())
    first = contents(source)
    said = io.StringIO()
    vendor(source, said)
    assert said.getvalue() == ""
    (source / "vendor" / "toolz" / "functoolz.py").unlink()
    (source / ".vendor-made-from").unlink()
    vendor(source, io.StringIO())
    assert contents(source) == first
    assert not any(Path(name).name in ("RECORD", "INSTALLER", "REQUESTED") for name in first)


def test_a_wheel_that_is_not_the_locked_one_is_refused(source: Path) -> None:
    vendor(source, io.StringIO())
    lock = source / "vendor.lock"
    lines = [line for line in lock.read_text().splitlines() if "--hash" not in line]
    lock.write_text("\n".join([*lines, "    --hash=sha256:" + "0" * 64, ""]))
    with pytest.raises(BundleError, match=r"(?s)vendor\.lock.*[Hh]ash"):
        vendor(source, io.StringIO())
    assert not (source / ".vendor.part").exists()


def test_a_package_that_nobody_has_is_refused_with_the_resolvers_word(source: Path) -> None:
    (source / "requirements.txt").write_text("toolz==99.0\n")
    with pytest.raises(BundleError, match=r"requirements\.txt: (?s:.*)toolz==99\.0"):
        vendor(source, io.StringIO())
