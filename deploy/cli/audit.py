"""`tandem audit verify`: are a service's audit files what was written?"""

import argparse
import re
from dataclasses import asdict
from pathlib import Path

from deploy.cli.output import DIRECTORIES, Commands, add_json, tell


def register(commands: Commands) -> None:
    """Add the verbs of this module."""
    audit = commands.add_parser("audit", help="a service's audit files")
    verbs = audit.add_subparsers(required=True, metavar="verify")
    verify = verbs.add_parser(
        "verify",
        help="check that no line of them was changed, moved or removed",
        description="Exit status 0: they are whole. 1: they are not, and each problem is said. 2: wrong usage.",
    )
    directory = verify.add_argument("directory", type=Path, help="ADAPTER_AUDIT_DIR; under Nomad, alloc/data/audit")
    directory.complete = DIRECTORIES  # shtab reads it
    verify.add_argument(
        "--head",
        type=_head,
        metavar="SEQ:HASH",
        help="a line that must be there: audit.seq and audit.hash of a `tandem.audit.head` record in the log stream",
    )
    verify.add_argument("--name", choices=("audit", "capture"), default="audit", help="which files (default audit)")
    add_json(verify)
    verify.set_defaults(run=_verify)


def _head(text: str) -> tuple[int, str]:
    match = re.fullmatch(r"(\d{1,18}):([0-9a-f]{64})", text)
    if match is None:
        raise argparse.ArgumentTypeError("expected SEQ:HASH, a number and 64 hexadecimal digits")
    return int(match[1]), match[2]


def _verify(options: argparse.Namespace) -> int:
    from adapter.access.ledger_check import verify

    report = verify(options.directory, options.name, options.head)
    lines = [f"{report.lines} lines in {report.segments} segments: {report.first} to {report.last}, {report.hash}"]
    lines += [f"{report.lost} records were lost while they could not be written"] if report.lost else []
    lines += [f"note: {note}" for note in report.notes]
    lines += [f"PROBLEM: {problem}" for problem in report.problems] or ["whole"]
    tell(options, asdict(report), "\n".join(lines))
    return 1 if report.problems else 0
