"""Each source of TensorFlow Serving logs in its own format; the shapes are taken from recorded lines."""

import re
from pathlib import Path

import pytest

from deploy.local.model_server import logs

RECORDED = Path(__file__).parents[2] / "golden" / "data" / "logs"


def shape(line: str) -> str:
    return re.sub(r"\d+", lambda digits: "9" * min(len(digits[0]), 6), re.sub(r" {2,}\d+", " PID", line)).rstrip()


def recorded(file: str, words: str) -> str:
    return shape(next(line for line in (RECORDED / file).read_text().splitlines() if words in line))


def test_tensorflows_format_has_local_time_in_microseconds_and_the_whole_path(
    capfd: pytest.CaptureFixture[str],
) -> None:
    logs.info("server_core.cc:481", "Adding/updating models.")
    assert shape(capfd.readouterr().err) == recorded("B_default_single_model.err", "Adding/updating models.")


def test_absls_format_has_unix_time_and_the_thread(capfd: pytest.CaptureFixture[str]) -> None:
    logs.info("loader_harness.cc:79", "Loading servable version {name: one version: 123}")
    assert shape(capfd.readouterr().err) == recorded("B_default_single_model.err", "Loading servable version")


def test_the_http_server_has_a_format_of_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    logs.net("evhttp_server.cc:261", "Entering the event loop ...")
    assert shape(capfd.readouterr().err) == recorded("B_default_single_model.err", "Entering the event loop")


def test_the_thread_is_logged_on_demand(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_THREAD_IDS", True)
    logs.info("server_core.cc:481", "Adding/updating models.")
    assert shape(capfd.readouterr().err) == recorded("E_thread_id.err", "Adding/updating models.")


def test_the_minimum_level_hides_what_is_below_but_not_absls_lines(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_MIN_LEVEL", 2)
    logs.info("server_core.cc:481", "hidden")
    logs.warning("server_core.cc:481", "hidden")
    logs.error("server_core.cc:481", "shown")
    logs.info("loader_harness.cc:79", "shown")
    assert re.findall("hidden|shown", capfd.readouterr().err) == ["shown", "shown"]
