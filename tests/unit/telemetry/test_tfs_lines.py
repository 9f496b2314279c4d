"""TensorFlow Serving's lines as records: held to everything that a real one was recorded to print."""

import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter.telemetry.tfs_lines import MAX_BODY, MAX_LINES, Joiner, Record, failure, head
from tests.golden.conftest import DATA

RECORDED = sorted((DATA / "logs").glob("*.err")) + sorted((DATA / "logs").glob("*.out"))


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def joined(text: str, *, plain: bool = False) -> list[Record]:
    records: list[Record] = []
    joiner = Joiner(records.append, plain=plain)
    for line in text.splitlines():
        joiner.feed(line, len(line.encode()) + 1)
    joiner.flush()
    return records


def known(line: str) -> Record:
    record = head(line)
    assert record is not None
    return record


@pytest.mark.parametrize(
    ("line", "severity", "nanoseconds", "body", "attributes"),
    [
        (
            "2026-11-22 13:57:24.343859: W tensorflow_serving/model_servers/server.cc:77] Some  text: I a.cc:1] x",
            "WARNING",
            1795355844_343859000,
            "Some  text: I a.cc:1] x",
            {"code.file.path": "tensorflow_serving/model_servers/server.cc", "code.line.number": 77},
        ),
        (
            "2026-11-22 13:57:24.000001: E    7738 external/a/b.cc:121]  (Re-)adding model: m",
            "ERROR",
            1795355844_000001000,
            "(Re-)adding model: m",
            {"code.file.path": "external/a/b.cc", "code.line.number": 121, "thread.id": 7738},
        ),
        (
            "I0000 00:00:1795355844.534183   15687 loader_harness.cc:71] Approving load",
            "INFO",
            1795355844_534183000,
            "Approving load",
            {"code.file.path": "loader_harness.cc", "code.line.number": 71, "thread.id": 15687},
        ),
        (
            "[evhttp_server.cc : 261] NET_LOG: Entering the event loop ...",
            "INFO",
            0,
            "Entering the event loop ...",
            {"code.file.path": "evhttp_server.cc", "code.line.number": 261},
        ),
        (
            "[libprotobuf ERROR google/protobuf/text_format.cc:337] Error parsing text-format: 1:9: no",
            "ERROR",
            0,
            "Error parsing text-format: 1:9: no",
            {"code.file.path": "google/protobuf/text_format.cc", "code.line.number": 337},
        ),
        (
            "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
            "WARNING",
            0,
            "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
            {},
        ),
        ("Failed to start server. Error: NOT_FOUND: /nope", "ERROR", 0, "Failed to start server. Error: NOT_FOUND: /nope", {}),
        ("terminate called without an active exception", "CRITICAL", 0, "terminate called without an active exception", {}),
    ],
)  # fmt: skip
def test_each_form_gives_severity_time_text_and_place(
    line: str, severity: str, nanoseconds: int, body: str, attributes: dict[str, object]
) -> None:
    assert known(line) == Record(severity, nanoseconds, body, attributes)


def test_tensorflows_time_is_local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "XXX-2")
    time.tzset()
    assert known("2026-11-22 14:00:00.000000: I a.cc:1] x").nanoseconds == 1795348800_000000000


def test_a_date_that_there_is_not_gives_no_time() -> None:
    assert known("2026-02-30 14:00:00.343859: I a.cc:1] x").nanoseconds == 0


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.name)
def test_every_recorded_line_finds_its_record(path: Path) -> None:
    text = path.read_text()
    records = joined(text, plain=path.suffix == ".out")
    said = "\n".join(record.body for record in records)
    for line in text.splitlines():
        begun = head(line)
        assert (begun.body if begun else line) in said
    assert [r for r in records if not r.body] == []
    for record in records:
        assert not re.match(r"20\d\d-|[IWEF]0000|\[\w+\.cc", record.body), record
        if path.suffix == ".err" and not record.body.startswith("WARNING: "):
            assert {"code.file.path", "code.line.number"} <= record.attributes.keys(), record


def test_the_next_lines_of_a_message_join_it() -> None:
    text = (
        "2026-11-22 14:03:36.1: I not/a/head.cc:1] what comes first has nothing before it\n"
        "2026-11-22 14:03:36.409151: I rendezvous.cc:407] aborting with status: INVALID_ARGUMENT: no\n"
        "\t [[{{function_node __inference_predict_424}}{{node Sum}}]]\n"
        "2026-11-22 14:03:36.409189: I tensorflow/core/platform/cpu_feature_guard.cc:210] This binary is optimized.\n"
        "To enable the following instructions: AVX2\n"
        "2026-11-22 14:04:39.105262: I tensorflow_serving/model_servers/model_service_impl.cc:57] \n"
        "Config entry\n"
        "\tindex : 0\n"
    )
    assert [record.body for record in joined(text)] == [
        "2026-11-22 14:03:36.1: I not/a/head.cc:1] what comes first has nothing before it",
        "aborting with status: INVALID_ARGUMENT: no\n\t [[{{function_node __inference_predict_424}}{{node Sum}}]]",
        "This binary is optimized.\nTo enable the following instructions: AVX2",
        "Config entry\n\tindex : 0",
    ]


def test_on_stdout_only_indented_lines_continue() -> None:
    records = joined(
        "TensorFlow ModelServer: 2.19.1\nTensorFlow Library: 2.19.1\nFlags:\n\t--port=1\n\t--b=2\n", plain=True
    )
    assert [record.body for record in records] == [
        "TensorFlow ModelServer: 2.19.1",
        "TensorFlow Library: 2.19.1",
        "Flags:\n\t--port=1\n\t--b=2",
    ]


def test_a_message_without_end_goes_on_in_records_of_its_severity() -> None:
    trace = [f"  frame {number}" for number in range(3 * MAX_LINES)]
    records = joined("\n".join(["2026-11-22 14:03:36.409151: E a.cc:1] it broke", *trace]))
    assert {record.severity for record in records} == {"ERROR"}
    assert "\n".join(record.body for record in records).split("\n") == ["it broke", *trace]
    assert all(record.body.count("\n") < MAX_LINES for record in records)
    wide = joined("\n".join(["2026-11-22 14:03:36.409151: E a.cc:1] it broke"] + ["x" * 5000] * 10))
    assert all(len(record.body) <= MAX_BODY for record in wide)
    assert sum(record.body.count("x") for record in wide) == 50_000


def test_what_is_held_back_is_counted_in_bytes_of_the_file() -> None:
    joiner = Joiner(lambda _: None, plain=False)
    joiner.feed("2026-11-22 14:03:36.409151: E a.cc:1] é", 50)
    joiner.feed("\tmore", 7)
    assert joiner.pending_bytes == 57
    joiner.feed("2026-11-22 14:03:36.409151: E a.cc:1] next", 40)
    assert joiner.pending_bytes == 40
    joiner.flush()
    assert joiner.pending_bytes == 0


@given(st.text() | st.from_regex(r"\A(20\d\d-\d\d-\d\d |[IWEF]\d{4} |\[)[\d: .a-z\]]*\Z"))
def test_no_line_raises_or_loses_its_text(line: str) -> None:
    records: list[Record] = []
    joiner = Joiner(records.append, plain=False)
    joiner.feed(line, len(line))
    joiner.flush()
    assert len(records) == bool(line)  # an empty one says nothing
    assert all(record.body in line for record in records)
    assert all(record.body == line or "code.line.number" in record.attributes for record in records)


@pytest.mark.parametrize(
    ("file", "model", "words"),
    [
        ("E_broken_retry.err", "broken", "Read less bytes than requested"),
        ("E_broken_retry.out", "", "1 servable(s) did not become available"),
        ("E_missing_path.err", "m", "Could not find base path"),
        ("E_empty_dir.err", "m", "No versions of servable m found"),
        ("E_missing_config.out", "", "No such file or directory"),
    ],
)
def test_a_failed_load_is_known_by_tensorflow_servings_own_words(file: str, model: str, words: str) -> None:
    records = joined((DATA / "logs" / file).read_text(), plain=file.endswith(".out"))
    found = [(failure(record), record.body) for record in records if failure(record) is not None]
    assert found
    for name, body in found:
        assert name == model
        assert words in body


def test_a_server_that_runs_well_reports_no_failed_load() -> None:
    assert [r for r in joined((DATA / "logs" / "A_main_run.err").read_text()) if failure(r) is not None] == []
