"""docs/security.md: every attack in its table has a test that exists."""

import re
import subprocess
import sys
from pathlib import Path

from adapter.access.policy import TABLE

ROOT = Path(__file__).parents[3]
DOCUMENT = (ROOT / "docs" / "security.md").read_text()
ROWS = re.findall(r"^\| (.+) \| (.+) \| `(tests/\S.*)` \|$", DOCUMENT, re.MULTILINE)


def test_there_are_sixty_different_attacks_and_more() -> None:
    assert len({attack for attack, _, _ in ROWS}) == len(ROWS) >= 60
    sections = re.findall(r"^### (\w+)$", DOCUMENT, re.MULTILINE)
    assert sections == ["Tokens", "Addresses", "Heads", "Bodies", "Paths"]


def test_every_test_that_is_named_exists() -> None:
    files = sorted({test.partition("::")[0] for _, _, test in ROWS})
    command = [sys.executable, "-m", "pytest", "--collect-only", "--quiet", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    collected = set(done.stdout.splitlines())
    collected |= {test.partition("[")[0] for test in collected}
    assert [test for _, _, test in ROWS if test not in collected] == []


def test_the_policy_in_the_document_is_the_policy() -> None:
    told = re.findall(r"^\| (`/.+) \| (?:the scope )?(\S+) \|$", DOCUMENT, re.MULTILINE)
    table = {
        resource: demand.strip("`").replace("nothing", "open")
        for resources, demand in told
        for resource in re.findall(r"`(/[a-z0-9./]+)…?`", resources)
    }
    assert table == TABLE
