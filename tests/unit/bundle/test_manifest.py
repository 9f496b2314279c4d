"""The manifest: what a bundle holds, every mistake named with its line and field, all at once."""

import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from adapter.app import load_bundle
from adapter.bundle.manifest import BundleError, Example, Limits, Model, parse, read, schema
from adapter.bundle.toml_lines import line_of
from adapter.settings import Settings

ROOT = Path(__file__).parent.parent.parent.parent
GOOD = 'name = "halves"\nversion = "1.0.0"\n[[models]]\nname = "half_plus_two"\nversion = 1\n'
EXAMPLE = '[[examples]]\nname = "one"\nrequest = "one.json"\n'
FULL = """\
name = "digits"
version = "1.0.0"
handler = "handler.py"

[provenance]
git_commit = "0123abc"
training = "run 17"
author = "Ada"

[limits]
max_body = 1048576
timeout = 10
max_batch = 64

[[models]]
name = "digits"
version = 1
coalesce = true
signatures = ["serving_default"]
labels = { stable = 1 }
max_calls = 16
memory = 256

[[examples]]
name = "seven"
request = "examples/seven.png"
content_type = "image/png"
response = "examples/seven.answer.json"
tolerance = 1e-4
warmup = true
"""


def bundle(directory: Path, manifest: str = GOOD) -> Path:
    (directory / "bundle.toml").write_text(manifest)
    saved = directory / "models" / "half_plus_two" / "1"
    saved.mkdir(parents=True)
    (saved / "saved_model.pb").touch()
    return directory


def refusal(directory: Path, manifest: str) -> list[str]:
    """What is said of this manifest, without the file's name that every line begins with."""
    path = directory / "bundle.toml"
    path.write_bytes(manifest.encode("utf-8", "surrogateescape"))
    with pytest.raises(BundleError) as caught:
        parse(path)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{path}:") for line in lines)
    return [line.removeprefix(f"{path}:") for line in lines]


def test_it_is_read_with_its_defaults(tmp_path: Path) -> None:
    manifest = read(bundle(tmp_path))
    assert (manifest.name, manifest.version, manifest.handler) == ("halves", "1.0.0", None)
    assert manifest.models == (Model("half_plus_two", 1, coalesce=False),)
    assert (manifest.limits, manifest.examples) == (Limits(max_batch=1024), ())


def test_it_says_all_that_a_bundle_can_say(tmp_path: Path) -> None:
    (tmp_path / "bundle.toml").write_text(FULL)
    manifest = parse(tmp_path / "bundle.toml")
    assert manifest.model("digits") == Model("digits", 1, True, ("serving_default",), {"stable": 1}, 16, 256)
    assert manifest.model("other") is None
    assert manifest.limits == Limits(1048576, 10.0, 64)
    assert (manifest.provenance.author, manifest.provenance.data) == ("Ada", "")
    (example,) = manifest.examples
    assert (example.tolerance, example.warmup, manifest.path_of(example)) == (1e-4, True, "/predict")


def test_an_example_goes_where_it_says_or_to_the_handler_or_to_the_first_model(tmp_path: Path) -> None:
    (tmp_path / "bundle.toml").write_text(GOOD + EXAMPLE)
    manifest = parse(tmp_path / "bundle.toml")
    assert manifest.path_of(manifest.examples[0]) == "/v1/models/half_plus_two:predict"
    assert manifest.path_of(Example("n", "r", "/v1/models/m/versions/1:predict")) == "/v1/models/m/versions/1:predict"


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (GOOD.replace("halves", "No Spaces"), "1: name: expected str matching regex"),
        (GOOD.replace('"1.0.0"', '""'), "2: version: expected str"),
        (GOOD.replace("version = 1\n", 'version = "one"\n'), "5: models[0].version: expected int, got str"),
        (GOOD.replace("version = 1\n", "version = -1\n"), "5: models[0].version: expected int >= 0"),
        (GOOD.replace("version = 1\n", ""), "3: models[0].version: missing"),
        (GOOD + 'colour = "red"\n', "6: models[0].colour: no such field"),
        (GOOD + "coalescing = true\n", "6: models[0].coalescing: no such field; did you mean coalesce?"),
        (GOOD + '[[models]]\nname = "half_plus_two"\nversion = 2\n', "7: models[1].name: every name only once"),
        (GOOD + "labels = { stable = 2 }\n", "6: models[0].labels.stable: expected 1, the only version"),
        (GOOD + "signatures = [\n'a',\n7]\n", "8: models[0].signatures[1]: expected str, got int"),
        (GOOD + "max_calls = 0\n", "6: models[0].max_calls: expected int >= 1"),
        (GOOD + "[limits]\ntimeout = 0\n", "7: limits.timeout: expected float > 0.0"),
        ('limits = 3\n' + GOOD, "1: limits: expected a table, got a number"),
        (GOOD + EXAMPLE + EXAMPLE, "10: examples[1].name: every name only once"),
        (GOOD + EXAMPLE + 'path = "/predict"\n', "9: examples[0].path: /predict needs a handler"),
        (GOOD + EXAMPLE + 'response = "../secret"\n', "9: examples[0].response: expected a path inside the bundle"),
        (GOOD + EXAMPLE.replace("one.json", "/etc/passwd"), "8: examples[0].request: expected a path inside"),
        ('handler = "src/handler.py"\n' + GOOD, "1: handler: expected a .py file or a package at the bundle's top"),
        ('name = "x"\nversion = "1"\nmodels = []\n', "3: models: expected array of length >= 1"),
        ("= nothing", "(at line 1"),
        ("\udcff", "codec can't decode"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_line(tmp_path: Path, manifest: str, said: str) -> None:
    (line,) = refusal(tmp_path, manifest)
    assert said in line


def test_all_mistakes_are_named_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    lines = refusal(tmp_path, 'name = "No"\n[[models]]\nname = "m"\nversion = "x"\nlabls = {}\n')
    assert [line.split(": ")[0] + " " + line.split(": ")[1] for line in lines] == [
        "1 name",
        "1 version",
        "4 models[0].version",
        "5 models[0].labls",
    ]


def test_a_missing_manifest_says_what_a_bundle_is(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such file; a bundle has a"):
        read(tmp_path)


def test_every_file_that_is_listed_must_be_there(tmp_path: Path) -> None:
    bundle(tmp_path, 'handler = "handler.py"\n' + GOOD + '[[models]]\nname = "other"\nversion = 3\n' + EXAMPLE)
    with pytest.raises(BundleError, match=r"models/other/3/saved_model\.pb, handler\.py, one\.json missing"):
        read(tmp_path)


def test_a_file_that_leads_out_of_the_bundle_is_refused(tmp_path: Path) -> None:
    top = tmp_path / "bundle"
    top.mkdir()
    (tmp_path / "secret").write_text("s")
    (bundle(top, GOOD + EXAMPLE) / "one.json").symlink_to(tmp_path / "secret")
    with pytest.raises(BundleError, match=r"one\.json: lies outside of the bundle"):
        read(top)


def test_the_job_must_run_the_version_that_the_bundle_holds(tmp_path: Path) -> None:
    directory = str(bundle(tmp_path))
    assert load_bundle(Settings(bundle=directory, model_version=1)) is not None
    with pytest.raises(BundleError, match="the job says model version 2, the bundle holds half_plus_two 1"):
        load_bundle(Settings(bundle=directory, model_version=2))
    assert load_bundle(Settings()) is None


def test_the_schema_in_docs_is_current_and_takes_what_is_read() -> None:
    text = (ROOT / "docs" / "bundle.schema.json").read_text()
    assert text == schema(), "write what adapter.bundle.manifest.schema() gives to docs/bundle.schema.json"
    kept = json.loads(text)
    jsonschema.Draft202012Validator.check_schema(kept)
    jsonschema.validate(tomllib.loads(FULL), kept)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tomllib.loads(FULL.replace("coalesce", "coalescing")), kept)


@pytest.mark.parametrize(
    ("text", "where", "line"),
    [
        ('a = """\nx\n"""\nb = 1\n', ("b",), 4),
        ("a = '''\n]'''\n[t.u]\nc = 1\n", ("t", "u", "c"), 4),
        ('# "\n\n"quoted key" = 1 # b = 2\nb = 2', ("b",), 4),
        ('a.b.c = 1\n"a".d = 2', ("a", "d"), 2),
        ("[[t]]\nx = [\n1,\n[2,\n3]]\n[[t]]\nx = []\n[t.u]\ny = 1\n", ("t", 1, "u", "y"), 9),
        ("[[t]]\nx = [\n1,\n[2,\n3]]\n", ("t", 0, "x", 1, 1), 5),
        ('x = { y = "}", z = [\n{ w = 1 },\n{ w = 2 }] }\n', ("x", "z", 1, "w"), 3),
        ("a = 1\n[t]\n", ("t", "missing", 3), 2),
        ("a = 1\n", ("b",), 1),
        ('a = "\\"" # c\nd = 1979-05-27 07:32:00\ne = 1', ("e",), 3),
    ],
)
def test_a_line_is_found_whatever_toml_is_written_around_it(text: str, where: Any, line: int) -> None:
    tomllib.loads(text)
    assert line_of(text, where) == line
