"""Where a bundle comes from, written into the manifest that ships: what the author left open is taken from git.

git_commit   HEAD of the source's repository, with "-dirty" where something that git knows or sees differs
built_at     SOURCE_DATE_EPOCH where it is set, else the commit's time; never the clock, which would change the bytes
built_by     this release of Tandem
"""

import os
import re
import subprocess
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import adapter
from adapter.bundle.manifest import BundleError

_TABLE = re.compile(r"^[ \t]*\[[ \t]*provenance[ \t]*\][ \t]*(#.*)?$", re.MULTILINE)


def manifest_with_provenance(source: Path) -> bytes:
    """The text of `source`'s manifest, its provenance filled in. Raises BundleError for SOURCE_DATE_EPOCH as no number."""
    text = (source / "bundle.toml").read_text("utf-8")
    given = tomllib.loads(text).get("provenance", {})
    found = {**_of_git(source), "built_by": f"tandem {adapter.__version__}"}
    if epoch := os.environ.get("SOURCE_DATE_EPOCH"):
        found["built_at"] = _time(epoch)
    lines = [f'{name} = "{value}"' for name, value in sorted(found.items()) if not given.get(name)]
    return _inserted(text, lines, written=bool(given)).encode()


def _inserted(text: str, lines: list[str], written: bool) -> str:
    table = _TABLE.search(text)
    if table:
        return "\n".join([text[: table.end()], *lines]) + text[table.end() :]
    if written:  # as `provenance.author = …` or an inline table, which a table of its own would contradict
        return text
    return "\n".join([text.rstrip("\n"), "", "[provenance]", *lines, ""])


def _of_git(source: Path) -> Mapping[str, str]:
    commit = _git(source, "log", "-1", "--format=%H %ct")
    if not commit:
        return {}
    digest, _, time = commit.partition(" ")
    dirty = _git(source, "status", "--porcelain", "--", ".")
    return {"git_commit": digest + ("-dirty" if dirty else ""), "built_at": _time(time)}


def _git(source: Path, *arguments: str) -> str:
    """What git says, or nothing where there is no git, no repository or no commit."""
    try:
        done = subprocess.run(["git", "-C", source, *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _time(epoch: str) -> str:
    try:
        return datetime.fromtimestamp(int(epoch), UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        raise BundleError(f"SOURCE_DATE_EPOCH={epoch!r}: expected seconds since 1970") from None
