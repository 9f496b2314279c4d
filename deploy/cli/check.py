"""`tandem check URL`: does the service there keep the contract?"""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from deploy.cli.output import Commands, add_json, refuse, tell


def register(commands: Commands) -> None:
    """Add the verbs of this module."""
    check = commands.add_parser(
        "check",
        help="check from outside whether a service keeps the contract",
        description="Exit status 0: every check passed or does not apply. 1: some failed. 2: nobody answers there.",
    )
    check.add_argument("url", help="where the service is, with its path prefix if it has one")
    check.add_argument("--token-file", type=Path, help="file with a token to send, with the scopes of what is checked")
    check.add_argument("--ca-file", default="", help="certificates to trust, for https")
    check.add_argument("--timeout", type=float, default=10.0, help="seconds that an answer may take (default 10)")
    add_json(check)
    check.set_defaults(run=_check)


def _check(options: argparse.Namespace) -> int:
    from deploy.check.service import Service, Unreachable
    from deploy.check.suite import run

    try:
        token = options.token_file.read_text().strip() if options.token_file else ""
        results = list(run(Service(options.url, token, options.timeout, options.ca_file)))
    except (Unreachable, OSError) as error:
        return refuse(options, str(error))
    counts = {outcome: sum(r.outcome == outcome for r in results) for outcome in ("passed", "failed", "not here")}
    colour = {"passed": "32", "failed": "31", "not here": "33"} if sys.stdout.isatty() else {}
    lines = []
    for one in results:
        mark = f"\033[{colour[one.outcome]}m{one.outcome:8}\033[0m" if colour else f"{one.outcome:8}"
        lines.append(f"{mark}  {one.title}")
        lines += [f"          {one.reason}"] if one.reason else []
    lines.append(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    tell(options, {"url": options.url, **counts, "checks": [asdict(one) for one in results]}, "\n".join(lines))
    return 1 if counts["failed"] else 0
