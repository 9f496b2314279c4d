"""The samples answer as they say, and a bundle that `tandem new` makes passes its own tests."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.embedded.test_trial import tandem

SAMPLES = Path(__file__).parents[2] / "samples"


@pytest.mark.parametrize("name", ["sentiment", "pipeline"])
def test_a_sample_answers_its_examples_alone_and_as_one_batch(name: str) -> None:
    done = tandem("test", SAMPLES / name, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    asked = json.loads(done.stdout)["asked"]
    assert [question for question in asked if question.endswith("as one batch")]
    assert [question for question in asked if "rows do not depend on each other" in question]


def test_a_new_bundle_passes_its_tests(tmp_path: Path) -> None:
    made = tandem("new", tmp_path / "my_model", "--json")
    assert made.returncode == 0, made.stderr
    assert "handler.py" in json.loads(made.stdout)["files"]
    done = tandem("test", tmp_path / "my_model")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "examples one, two as one batch" in done.stdout
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_handler.py"]
    tested = subprocess.run(command, cwd=tmp_path / "my_model", capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stdout


def test_a_new_bundle_overwrites_nothing_and_needs_a_name_that_a_service_may_have(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious").touch()
    for directory, said in ((tmp_path / "mine", "is not empty"), (tmp_path / "No Name", "cannot be a bundle's name")):
        done = tandem("new", directory)
        assert (done.returncode, said in done.stderr) == (2, True)
