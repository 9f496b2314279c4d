"""Audit files: written so that a change shows, and checked so that it does."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapter.access import ledger as written
from adapter.access.ledger import Ledger, segments
from adapter.access.ledger_check import Report, verify


def filled(directory: Path, count: int = 20, *, size: int = 600, files: int = 100, about: str = "halves") -> Ledger:
    """A ledger of `count` events in small segments."""
    ledger = Ledger(directory, "audit", size, files, {"service": about})
    for number in range(count):
        ledger.append([(f"t{number}", {"number": number})])
    ledger.close()
    return ledger


def events(directory: Path) -> list[Any]:
    lines = [line for path in segments(directory, "audit").values() for line in path.read_text().splitlines()]
    return [event for line in lines if "number" in (event := json.loads(line)["event"])]


def test_what_was_written_is_there_and_whole(tmp_path: Path) -> None:
    ledger = filled(tmp_path)
    report = verify(tmp_path)
    assert report.problems == []
    assert report.notes == []
    assert report.segments > 3
    assert (report.first, report.last, report.hash) == (1, ledger.seq, ledger.hash)
    assert [event["number"] for event in events(tmp_path)] == list(range(20))


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    filled(tmp_path / "audit", 1)
    assert (tmp_path / "audit").stat().st_mode & 0o777 == 0o700
    assert next(iter(segments(tmp_path / "audit", "audit").values())).stat().st_mode & 0o777 == 0o600


def test_a_new_process_goes_on_in_a_segment_of_its_own(tmp_path: Path) -> None:
    first = filled(tmp_path, 3, size=10**6)
    second = filled(tmp_path, 3, size=10**6)
    assert second.seq == first.seq + 4
    assert verify(tmp_path).problems == []
    assert list(segments(tmp_path, "audit")) == [1, 2]


def test_a_line_that_a_crash_cut_off_is_told_and_is_no_fault(tmp_path: Path) -> None:
    filled(tmp_path, 3, size=10**6)
    with segments(tmp_path, "audit")[1].open("ab") as file:
        file.write(b'{"seq":5,"prev":"')
    assert verify(tmp_path).problems == ["audit.00000001.jsonl:5: the last line is not whole"]
    filled(tmp_path, 1, size=10**6)
    report = verify(tmp_path)
    assert report.problems == []
    assert report.notes == ["audit.00000001.jsonl:5: cut off in the middle of a line, as by a crash"]


def test_old_segments_leave_and_that_is_no_fault(tmp_path: Path) -> None:
    filled(tmp_path, 30, files=3)
    assert len(segments(tmp_path, "audit")) == 3
    report = verify(tmp_path)
    assert report.problems == []
    assert "rotation has removed what was before" in report.notes[0]


def last_lines(path: Path, dropped: int) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-dropped]))


def changed(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"number":', b'"nvmber":', 1))


def swapped(path: Path) -> None:
    first, second, third, *rest = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([first, third, second, *rest]))


def one_less(path: Path) -> None:
    first, _, *rest = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([first, *rest]))


def forged(path: Path) -> None:
    """Changed with its own hash made right again: only the line after it can tell."""
    lines = path.read_bytes().splitlines(keepends=True)
    entry = json.loads(lines[1])
    lines[1] = written.sealed(entry["seq"], entry["prev"], entry["at"], {"number": 999})[0]
    path.write_bytes(b"".join(lines))


@pytest.mark.parametrize(
    ("tamper", "number", "told"),
    [
        (changed, 2, "changed after it was written"),
        (swapped, 2, "lines are missing or in another order"),
        (one_less, 2, "lines are missing or in another order"),
        (forged, 2, "does not follow from the line before it"),
        (lambda path: path.unlink(), 1, "segments 1 to 1 are missing"),
        (lambda path: path.unlink(), 2, "segment 2 is missing"),
        (lambda path: path.unlink(), -1, "the end is cut off"),
        (lambda path: last_lines(path, 1), -1, "the end is cut off"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), -1, "the last line is not whole"),
        (lambda path: path.write_bytes(b"[]\n" + path.read_bytes()), 2, "no line of a ledger"),
        (lambda path: (path.parent / "audit.head.json").unlink(), 1, "audit.head.json is missing"),
    ],
    ids=[
        "edited",
        "reordered",
        "line removed",
        "forged",
        "first segment",
        "middle segment",
        "newest segment",
        "truncated",
        "torn",
        "inserted",
        "head",
    ],
)
def test_what_somebody_has_done_to_it_shows(
    tmp_path: Path, tamper: Callable[[Path], object], number: int, told: str
) -> None:
    filled(tmp_path, 12, size=900)
    found = segments(tmp_path, "audit")
    tamper(found[max(found) if number < 0 else number])
    assert told in "\n".join(verify(tmp_path).problems)


def test_a_segment_in_the_place_of_another_shows(tmp_path: Path) -> None:
    filled(tmp_path)
    found = segments(tmp_path, "audit")
    shutil.copy(found[2], found[3])
    assert verify(tmp_path).problems


def test_a_whole_new_chain_shows_by_what_the_log_stream_was_told(tmp_path: Path) -> None:
    told = filled(tmp_path / "real", 5)
    filled(tmp_path / "forged", 6, about="wholes")
    assert verify(tmp_path / "real", head=(told.seq, told.hash)).problems == []
    assert verify(tmp_path / "forged").problems == []
    problems = verify(tmp_path / "forged", head=(told.seq, told.hash)).problems
    assert [problem for problem in problems if "which the log stream was told" in problem]


@given(st.integers(0, 10**6), st.integers(1, 255))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_changed_byte_goes_unseen(tmp_path: Path, place: int, mask: int) -> None:
    directory = tmp_path / "one"
    if not directory.exists():
        filled(directory, 6, size=10**6)
    (path,) = segments(directory, "audit").values()
    whole = path.read_bytes()
    place %= len(whole)
    try:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ mask]) + whole[place + 1 :])
        assert verify(directory).problems
    finally:
        path.write_bytes(whole)


def test_a_full_disk_leaves_the_chain_whole_and_counts_what_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = filled(tmp_path, 3, size=10**6)
    ledger.append([("t", {"number": 3})])
    write = os.write
    room = 40

    def full(file: int, data: bytes) -> int:
        """As write(2) does: what fits, then ENOSPC."""
        nonlocal room
        if room == 0:
            raise OSError(28, "No space left on device")
        done = write(file, bytes(data)[:room])
        room -= done
        return done

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        ledger.append([("t", {"number": 4})])
    monkeypatch.undo()
    ledger.append([("t", {"number": 5})], lost=1)
    report: Report = verify(tmp_path)
    assert report.problems == []
    assert report.lost == 1
    assert [event["number"] for event in events(tmp_path)] == [0, 1, 2, 3, 5]
