"""What runs, as data: the same for all instances of a release, another for the next, and never a secret."""

import dataclasses
from pathlib import Path
from typing import Any

import msgspec
import pytest

from adapter.bundle.manifest import Manifest, parse
from adapter.contract.release import PER_INSTANCE, describe, digest
from adapter.group.placement import Placement
from adapter.settings import Settings, load

NOMAD = {
    "NOMAD_JOB_ID": "halves",
    "NOMAD_NAMESPACE": "default",
    "NOMAD_REGION": "global",
    "NOMAD_META_bundle_checksum": f"sha256:{'0' * 64}",
    "NOMAD_META_tfs_image": "tensorflow/serving:2.19.1-gpu",
    "NOMAD_META_adapter_image": "tandem/adapter:0.1.0",
    "NOMAD_META_released_by": "",
}
PLACED = Placement(job_version=3, submitted=0xABC, deployment="d", node="n", canary=False)


@pytest.fixture
def bundle(tmp_path: Path) -> Manifest:
    (tmp_path / "bundle.toml").write_text(
        'name = "halves"\nversion = "1.2.3"\n[[models]]\nname = "half_plus_two"\nversion = 1\n'
    )
    return parse(tmp_path / "bundle.toml")


def test_under_nomad_a_release_is_a_version_of_the_job(bundle: Manifest) -> None:
    release = describe(NOMAD, Settings(), bundle, "halves", PLACED)
    again = describe({**NOMAD, "NOMAD_ALLOC_ID": "another"}, Settings(port=1234), bundle, "halves", PLACED)
    later = describe(NOMAD, Settings(), bundle, "halves", dataclasses.replace(PLACED, job_version=4))
    purged = describe(NOMAD, Settings(), bundle, "halves", dataclasses.replace(PLACED, submitted=0xDEF))
    assert release["id"] == again["id"] == "halves-1.2.3.v3.abc"
    assert len({release["id"], later["id"], purged["id"]}) == 3


def test_elsewhere_a_release_is_what_the_platform_calls_it_or_what_runs(bundle: Manifest) -> None:
    def named(**settings: Any) -> str:
        return str(describe({}, Settings(**settings), bundle, "halves", Placement())["id"])

    assert named(deployment="blue-7") == "halves-1.2.3.blue-7"
    assert named() == named(host="10.0.0.7")
    assert named() != named(request_timeout=5.0)


def test_a_handler_is_known_by_its_code(tmp_path: Path) -> None:
    (tmp_path / "bundle.toml").write_text(
        'name = "halves"\nversion = "1"\nhandler = "handler.py"\n[provenance]\ngit_commit = "9f2c1ab"\n'
        '[[models]]\nname = "m"\nversion = 1\n'
    )
    seen = []
    for code in ("a = 1\n", "a = 2\n"):
        (tmp_path / "handler.py").write_text(code)
        parsed = parse(tmp_path / "bundle.toml")
        seen.append(describe({}, Settings(bundle=str(tmp_path)), parsed, "halves", Placement())["bundle"])
    assert [told["handler"]["file"] for told in seen] == ["handler.py", "handler.py"]
    assert seen[0]["handler"]["version"] != seen[1]["handler"]["version"]
    assert seen[0]["provenance"] == {"git_commit": "9f2c1ab"}


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("tensorflow/serving:2.19.1", "2.19.1"),
        ("tensorflow/serving:2.19.1-gpu", "2.19.1"),
        ("registry.example.com:5000/serving:2.18.0@sha256:00", "2.18.0"),
        ("tensorflow/serving:latest", None),
        ("registry.example.com:5000/serving", None),
        ("", None),
    ],
)
def test_tensorflow_servings_version_is_its_images_tag_or_unknown(image: str, version: str | None) -> None:
    tfs = describe({"NOMAD_META_tfs_image": image}, Settings(), None, "x", Placement())["tfs"]
    assert (tfs["version"], tfs["version_source"]) == (version, "image tag" if version else None)


def test_every_setting_counts_but_those_of_one_instance() -> None:
    fields = {field.name: field for field in msgspec.structs.fields(Settings)}
    assert fields.keys() >= PER_INSTANCE
    for name in fields:
        changed = msgspec.structs.replace(Settings(), **{name: "another"})
        assert (digest(changed) == digest(Settings())) == (name in PER_INSTANCE), name


def test_consuls_address_with_a_password_in_it_is_refused_without_showing_it() -> None:
    with pytest.raises(Exception, match="ADAPTER_CONSUL_ADDR") as caught:
        load({"ADAPTER_CONSUL_ADDR": "http://user:hunter2@127.0.0.1:8500"})
    assert "hunter2" not in str(caught.value)
