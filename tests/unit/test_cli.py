"""The command `tandem`: its verbs, as a person and a shell see them."""

import re
from pathlib import Path

import pytest

from deploy import cli

DOCUMENT = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_completes_every_verb(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--print-completion", shell])
    assert ended.value.code == 0
    script = capsys.readouterr().out
    assert {verb for verb in ("pack", "verify", "inspect", "new", "test", "run") if verb not in script} == set()


def test_the_documented_verbs_are_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    helped = capsys.readouterr().out
    documented = set(re.findall(r"^\| `tandem ([a-z-]+)", DOCUMENT, re.MULTILINE))
    assert documented == set(re.findall(r"^ {4}([a-z-]+)\b", helped, re.MULTILINE))


def test_wrong_usage_is_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["pack"])
    assert ended.value.code == 2
    assert "usage: tandem pack" in capsys.readouterr().err
