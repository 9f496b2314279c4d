"""`tandem test` and `tandem pack`: a bundle is run before it ships, and one that does not do what it says is refused."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.adapter.conftest import HALF_PLUS_TWO

MANIFEST = 'name = "halves"\nversion = "1"\n[[models]]\nname = "half_plus_two"\nversion = 1\ncoalesce = true\n'
CENTRED = """
import sys
import tensorflow as tf

class Centred(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    def predict(self, x):
        return {"y": x - tf.reduce_mean(x, axis=0)}

module = Centred()
tf.saved_model.save(module, f"{sys.argv[1]}/centred/1", signatures={"serving_default": module.predict})
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A bundle of half_plus_two, with three examples that it answers."""
    top = tmp_path / "source"
    shutil.copytree(HALF_PLUS_TWO / "1", top / "models" / "half_plus_two" / "1")
    (top / "examples").mkdir()
    examples = ""
    for name, x in (("one", [1.0]), ("two", [2.0, 8.0]), ("three", [3.0])):
        (top / "examples" / f"{name}.json").write_text(json.dumps({"instances": x}))
        (top / "examples" / f"{name}.answer.json").write_text(json.dumps({"predictions": [v / 2 + 2 for v in x]}))
        examples += f'[[examples]]\nname = "{name}"\nrequest = "examples/{name}.json"\n'
        examples += f'response = "examples/{name}.answer.json"\n'
    (top / "bundle.toml").write_text(MANIFEST + examples)
    return top


def tandem(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "deploy.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_bundle_that_answers_as_it_says_passes_and_is_packed(source: Path, tmp_path: Path) -> None:
    done = tandem("pack", source, "-o", tmp_path / "b.tar.zst", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["bundle"] == "halves@1"


def test_a_wrong_answer_is_shown_where_it_differs_and_is_not_packed(source: Path, tmp_path: Path) -> None:
    (source / "examples" / "two.answer.json").write_text('{"predictions": [3.0, 6.5]}')
    done = tandem("test", source)
    assert done.returncode == 1, done.stderr
    assert "ok       example one\n" in done.stdout
    assert "differs  example two\n           predictions[1]: expected 6.5, got 6 (off by 0.5)\n" in done.stdout
    assert "rows do not depend on each other" in done.stdout
    packed = tandem("pack", source, "-o", tmp_path / "b.tar.zst")
    assert packed.returncode == 2
    assert packed.stderr == f"tandem: {source}: example two: predictions[1]: expected 6.5, got 6 (off by 0.5)\n"
    assert not (tmp_path / "b.tar.zst").exists()


def test_the_examples_of_a_path_are_asked_as_one_batch_too(source: Path) -> None:
    done = tandem("test", source, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["asked"] == [
        "example one",
        "example two",
        "example three",
        "examples one, two, three as one batch",
        "model half_plus_two, signature serving_default: rows do not depend on each other (coalesce)",
    ]


def test_a_model_that_mixes_rows_is_refused_the_claim(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "build.py").write_text(CENTRED)
    manifest = 'name = "centred"\nversion = "1"\n[[models]]\nname = "centred"\nversion = 1\n'
    (source / "bundle.toml").write_text(manifest + "coalesce = true\n")
    done = tandem("pack", source, "-o", tmp_path / "b.tar.zst")
    assert done.returncode == 2
    assert "model centred, signature serving_default: rows do not depend on each other" in done.stderr
    assert "row 0 among 4 is answered differently than alone" in done.stderr
    (source / "bundle.toml").write_text(manifest)
    assert tandem("pack", source, "-o", tmp_path / "b.tar.zst").returncode == 0


def test_a_model_that_is_none_is_refused_before_anything_runs(source: Path, tmp_path: Path) -> None:
    saved = source / "models" / "half_plus_two" / "1" / "saved_model.pb"
    saved.write_bytes(saved.read_bytes()[:-1])
    done = tandem("pack", source, "-o", tmp_path / "b.tar.zst")
    assert done.returncode == 2
    assert "not a SavedModel: it ends in the middle of a field" in done.stderr
