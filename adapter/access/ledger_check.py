"""Is a ledger what was written: every line unchanged, in its place, and none missing? `tandem audit verify` asks this."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from adapter.access.ledger import GENESIS, segments

_SUFFIX = len(b',"hash":""}') + 64


@dataclass
class Report:
    """`problems` is empty for a ledger that is whole. `notes` are no faults: what rotation removed, what a crash cut off."""

    segments: int = 0
    lines: int = 0
    first: int = 0
    last: int = 0
    hash: str = GENESIS
    lost: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def verify(directory: Path, name: str = "audit", head: tuple[int, str] | None = None) -> Report:
    """Check every segment in `directory`, and that (sequence, hash) `head`, which the log stream was told, is in it."""
    report = Report()
    found = segments(directory, name)
    if not found:
        report.problems.append(f"{directory}: no segment of {name!r} here")
        return report
    _check_numbers(found, report)
    hashes: dict[int, str] = {}
    for number, path in found.items():
        _check_segment(path, number, report, hashes, last=number == max(found))
    _check_oldest(found, report)
    _check_head(directory / f"{name}.head.json", report, hashes)
    if head is not None and hashes.get(head[0]) != head[1]:
        at = "is another one here" if head[0] in hashes else "is not here"
        report.problems.append(f"line {head[0]}, which the log stream was told, {at}")
    return report


def _check_numbers(found: dict[int, Path], report: Report) -> None:
    numbers = list(found)
    report.segments = len(numbers)
    missing = sorted(set(range(numbers[0], numbers[-1] + 1)) - set(numbers))
    report.problems += [f"segment {number} is missing" for number in missing]


def _check_segment(path: Path, number: int, report: Report, hashes: dict[int, str], *, last: bool) -> None:
    data = path.read_bytes()
    for position, line in enumerate(data.splitlines(keepends=True), 1):
        where = f"{path.name}:{position}"
        if not line.endswith(b"\n"):
            report.notes.append(f"{where}: cut off in the middle of a line, as by a crash")
            if last:  # nothing follows that would show whether it was whole
                report.problems.append(f"{where}: the last line is not whole")
            return
        entry = _entry(line)
        if entry is None:
            report.problems.append(f"{where}: no line of a ledger")
            continue
        report.problems += [f"{where}: {problem}" for problem in _wrong(line, entry, position, number, report)]
        report.lines += 1
        report.first = report.first or entry["seq"]
        report.last, report.hash = entry["seq"], entry["hash"]
        report.lost += entry["event"].get("lost_before", 0)
        hashes[entry["seq"]] = entry["hash"]


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        entry = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    kinds = {"seq": int, "prev": str, "event": dict, "hash": str}
    fits = isinstance(entry, dict) and all(type(entry.get(name)) is kind for name, kind in kinds.items())
    return entry if fits else None


def _wrong(line: bytes, entry: dict[str, Any], position: int, number: int, report: Report) -> Iterator[str]:
    if hashlib.sha256(line[: -_SUFFIX - 1]).hexdigest() != entry["hash"]:
        yield "changed after it was written"
    if report.lines and entry["seq"] != report.last + 1:
        yield f"line {entry['seq']} follows line {report.last}: lines are missing or in another order"
    elif report.lines and entry["prev"] != report.hash:
        yield "does not follow from the line before it"
    elif not report.lines and entry["seq"] == 1 and entry["prev"] != GENESIS:
        yield "the first line of all follows from another"
    if position == 1 and entry["event"].get("segment") != number:
        yield "does not begin as this segment does"


def _check_oldest(found: dict[int, Path], report: Report) -> None:
    """The newest segment says which was the oldest kept when it was begun."""
    newest = found[max(found)].read_bytes().partition(b"\n")[0] + b"\n"
    entry = _entry(newest)
    oldest = entry["event"].get("oldest") if entry else None
    if isinstance(oldest, int) and min(found) > oldest:
        report.problems.append(f"segments {oldest} to {min(found) - 1} are missing")
    elif report.first > 1:
        report.notes.append(f"begins at line {report.first}: rotation has removed what was before")


def _check_head(path: Path, report: Report, hashes: dict[int, str]) -> None:
    try:
        head = orjson.loads(path.read_bytes())
        seq, digest = int(head["seq"]), str(head["hash"])
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        report.problems.append(f"{path.name} is missing or cannot be read: the end may be cut off")
        return
    if seq > report.last:
        report.problems.append(f"ends at line {report.last}, but line {seq} was written: the end is cut off")
    elif hashes.get(seq) != digest:
        report.problems.append(f"line {seq} is not the one that {path.name} tells of")
