"""The tailer over real files, rotated as Nomad rotates them: each line exactly once, whatever happens in between."""

import asyncio
import json
import logging
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapter.telemetry import tailer
from adapter.telemetry.follower import MAX_LINE, PATIENCE
from adapter.telemetry.logs import CommonHandler, LogStream
from adapter.telemetry.own_log import OwnLog
from adapter.telemetry.rotated_files import CHUNK, CHUNK_LINES, LOOKS
from adapter.telemetry.tailer import Limits, Tailer
from deploy.local.task import RotatedLog
from tests.output import Output


class Log:
    """An allocation's directories, what a task writes there, and what tailers made of it."""

    def __init__(self, allocation: Path) -> None:
        self.directory = allocation / "logs"
        self.checkpoint = allocation / "data" / "tailer.json"
        self.directory.mkdir()
        self.checkpoint.parent.mkdir()
        self.output = Output()
        self.stream = LogStream({"service.name": "halves"}, self.output)
        self.failures: list[tuple[str, str]] = []

    def write(self, text: str | bytes, number: int = 0, name: str = "stderr") -> None:
        data = text.encode() if isinstance(text, str) else text
        with (self.directory / f"tfs.{name}.{number}").open("ab") as file:
            file.write(data)

    def tailer(self, limits: Limits | None = None, allocation: str = "") -> Tailer:
        said = OwnLog(self.directory / "adapter.stdout").said()
        return Tailer(
            self.directory,
            self.stream,
            lambda model, text: self.failures.append((model, text)),
            limits,
            said,
            allocation,
        )

    def publish(self, size: int | None = None) -> None:
        """What the platform keeps of the adapter's stdout: all of it so far, or its first bytes."""
        (self.directory / "adapter.stdout.0").write_bytes(self.output.getvalue()[:size])

    def read(self, limits: Limits | None = None) -> list[dict[str, Any]]:
        """What one adapter, started and stopped, adds to the log."""
        self.output.seek(0)
        self.output.truncate()
        self.tailer(limits).finish(60)
        return self.records

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.getvalue().splitlines()]

    @property
    def bodies(self) -> list[str]:
        return [record["body"] for record in self.records]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    made = Log(tmp_path)
    handler = CommonHandler(made.stream)
    logging.getLogger("adapter.telemetry").addHandler(handler)
    yield made
    logging.getLogger("adapter.telemetry").removeHandler(handler)


def line(number: object) -> str:
    return f"2026-11-22 13:57:24.343859: I tensorflow_serving/model_servers/server.cc:77] number {number}\n"


def numbers(records: list[dict[str, Any]]) -> list[int]:
    return [int(record["body"].split()[1]) for record in records if record["body"].startswith("number ")]


def test_a_line_becomes_a_record_with_its_task_its_stream_and_its_place(log: Log) -> None:
    log.write(line(1))
    log.write("TensorFlow ModelServer: 2.19.1\n", name="stdout")
    first, second = log.read()
    assert first["body"] == "number 1"
    assert first["attributes"] == {
        "code.file.path": "tensorflow_serving/model_servers/server.cc",
        "code.line.number": 77,
        "tandem.task": "tfs",
        "log.iostream": "stderr",
        "log.record.uid": f"tfs.stderr.0/{len(line(1))}",
    }
    assert first["resource"] == {"service.name": "halves"}
    assert second["attributes"] == {
        "tandem.task": "tfs",
        "log.iostream": "stdout",
        "log.record.uid": "tfs.stdout.0/31",
    }


async def test_over_twenty_rotations_and_three_restarts_each_line_comes_exactly_once(log: Log) -> None:
    """The writer goes on all the time; the tailers are cut off anywhere, as by SIGKILL: nothing of them is stopped."""
    chance = random.Random(5)
    rotated = RotatedLog(log.directory / "tfs.stderr", max_files=30, max_size=20_000)
    written = 0
    for _ in range(4):
        running = log.tailer()
        turns = chance.randrange(20, 60)
        for _ in range(turns):
            for _ in range(chance.randrange(60)):
                rotated.write(line(written).encode())
                written += 1
            await running._turn()
    rotated.close()
    assert len(list(log.directory.iterdir())) >= 21
    log.tailer().finish(60)
    assert numbers(log.records) == list(range(written))


def test_killed_between_the_records_and_the_note_it_says_none_of_them_again(log: Log) -> None:
    log.write("".join(line(number) for number in range(100)))
    assert numbers(log.read()) == list(range(100))
    log.publish()
    log.checkpoint.unlink()
    log.write(line(100))
    assert numbers(log.read()) == [100]


def test_killed_while_it_writes_it_says_again_only_the_record_that_broke_off(log: Log) -> None:
    log.write("".join(line(number) for number in range(100)))
    log.read()
    lines = log.output.getvalue().splitlines(keepends=True)
    log.publish(size=sum(len(text) for text in lines[:42]) + 100)
    log.checkpoint.unlink()
    assert OwnLog(log.directory / "adapter.stdout").torn
    assert numbers(log.read()) == list(range(42, 100))


def test_what_the_log_proves_counts_across_the_end_of_a_file(log: Log) -> None:
    log.write(line(0) + "2026-11-22 13:57:24.343859: I a.cc:1] number 1 goes on", number=3)
    log.write(" here\n" + line(2), number=4)
    assert numbers(log.read()) == [0, 1, 2]
    lines = log.output.getvalue().splitlines(keepends=True)
    log.publish(size=len(lines[0]))
    log.checkpoint.unlink()
    assert numbers(log.read()) == [1, 2]


def test_a_log_that_proves_less_than_the_note_does_not_count(log: Log) -> None:
    log.write(line(0) + line(1))
    log.read()
    log.publish(size=log.output.getvalue().index(b"\n") + 1)
    assert numbers(log.read()) == []


def test_what_the_log_proves_of_files_that_are_gone_does_not_count(log: Log) -> None:
    log.write(line(0) + line(1), number=7)
    log.read()
    log.publish()
    log.checkpoint.unlink()
    (log.directory / "tfs.stderr.7").unlink()
    log.write(line(2))
    assert numbers(log.read()) == [2]


async def test_it_follows_while_it_is_written_and_reads_to_the_end_when_stopped(log: Log) -> None:
    running = asyncio.create_task(log.tailer().run())
    log.write(line(0))
    await log.output.until(lambda: numbers(log.records) == [0])
    log.write(line(1))
    log.write(line(2), number=1)
    await log.output.until(lambda: numbers(log.records) == [0, 1, 2])
    log.write(line(3), number=1)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert numbers(log.records) == [0, 1, 2, 3]


async def test_a_directory_that_appears_later_is_followed_from_its_first_line(tmp_path: Path) -> None:
    later = tmp_path / "later"
    output = Output()
    running = asyncio.create_task(Tailer(later / "logs", LogStream({}, output)).run())
    await asyncio.sleep(0)
    (later / "data").mkdir(parents=True)
    (later / "logs").mkdir()
    (later / "logs" / "tfs.stderr.0").write_text(line(0))
    await output.until(lambda: b"number 0" in output.getvalue())
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def test_a_line_without_its_end_waits_for_it_over_a_restart(log: Log) -> None:
    log.write(line(0) + "2026-11-22 13:57:24.343859: I a.cc:1] num")
    assert numbers(log.read()) == [0]
    log.write("ber 1\n")
    assert numbers(log.read()) == [1]


def test_a_line_that_rotation_split_is_one_line(log: Log) -> None:
    text = line(7)
    log.write(text[:40])
    log.write(text[40:] + line(8), number=1)
    assert numbers(log.read()) == [7, 8]


def test_a_split_line_survives_a_restart_between_its_halves(log: Log) -> None:
    text = line(7)
    log.write(line(6) + text[:40])
    log.write("", number=1)
    assert numbers(log.read()) == [6]
    log.write(text[40:] + line(8), number=1)
    assert numbers(log.read()) == [7, 8]


def test_a_message_of_several_lines_joins_over_a_rotation(log: Log) -> None:
    log.write(line(1))
    log.write("\t [[{{node Sum}}]]\n" + line(2), number=1)
    assert [record["body"] for record in log.read()] == ["number 1\n\t [[{{node Sum}}]]", "number 2"]


async def test_a_message_is_said_once_no_more_of_it_comes(log: Log) -> None:
    running = log.tailer()
    log.write(line(1))
    assert await running._turn()
    assert not await running._turn()
    assert log.bodies == []  # its next line may still come
    log.write("\tmore\n")
    assert await running._turn()
    assert not await running._turn()
    assert not await running._turn()
    assert log.bodies == ["number 1\n\tmore"]


def test_a_huge_line_is_cut_and_marked(log: Log) -> None:
    prefix = "2026-11-22 13:57:24.343859: W a.cc:1] "
    log.write(line(0) + prefix + "é" * (5 * CHUNK) + "\n" + line(2))
    first, huge, last = log.read()
    assert (numbers([first]), numbers([last])) == ([0], [2])
    assert huge["severity_text"] == "WARN"
    assert huge["attributes"]["log.record.truncated"] is True
    assert len(prefix) + len(huge["body"].rstrip("\ufffd").encode()) <= MAX_LINE
    assert huge["body"].startswith("ééé")


def test_bytes_that_are_no_text_hurt_nothing(log: Log) -> None:
    log.write(b"2026-11-22 13:57:24.343859: I a.cc:1] \xff\xfe\x00\n" + line(1).encode())
    records = log.read()
    assert records[0]["body"] == "\ufffd\ufffd\x00"
    assert numbers(records) == [1]


def test_many_short_lines_take_several_turns(log: Log) -> None:
    log.write("x\n" * 10_000, name="stdout")
    assert len(log.read()) == 10_000
    assert CHUNK_LINES < 10_000


def test_files_removed_before_they_were_read_are_counted_and_announced(log: Log) -> None:
    log.write(line(0))
    assert numbers(log.read()) == [0]
    log.write(line(1))
    (log.directory / "tfs.stderr.0").unlink()
    log.write(line(2), number=3)
    records = log.read()
    assert numbers(records) == [2]
    (lost,) = [r for r in records if r["attributes"].get("event.name") == "tandem.tfs_log.lost"]
    assert lost["severity_text"] == "WARN"
    assert lost["attributes"]["tandem.tfs_log.files_lost"] == 3
    assert lost["attributes"]["tandem.task"] == "adapter"


async def test_a_file_that_is_removed_while_it_is_read_is_read_to_its_end(log: Log) -> None:
    running = log.tailer()
    log.write(line(0))
    await running._turn()
    log.write(line(1))
    (log.directory / "tfs.stderr.0").unlink()
    log.write(line(2), number=1)
    running.finish(60)
    assert numbers(log.records) == [0, 1, 2]


async def test_half_a_line_before_a_gap_is_not_glued_to_what_comes_after_it(log: Log) -> None:
    running = log.tailer()
    log.write(line(0) + "2026-11-22 13:57:24.343859: I a.cc:1] half a")
    await running._turn()
    (log.directory / "tfs.stderr.0").unlink()
    log.write(line(2), number=5)
    running.finish(60)
    bodies = [body for body in log.bodies if not body.startswith("Lost of")]
    assert bodies == ["number 0", "half a", "number 2"]


async def test_a_file_emptied_in_place_is_read_from_its_beginning(log: Log) -> None:
    running = log.tailer()
    log.write(line(0) + line(1))
    await running._turn()
    (log.directory / "tfs.stderr.0").write_text(line(2))
    running.finish(60)
    assert numbers(log.records) == [0, 1, 2]


def test_another_allocations_checkpoint_is_not_used(log: Log) -> None:
    log.write(line(0))
    assert numbers(log.read()) == [0]
    (log.directory / "tfs.stderr.0").rename(log.directory / "old")
    log.write(line(1))
    assert numbers(log.read()) == [1]


@pytest.mark.parametrize(
    "rubbish", ["", "{", "[]", '{"stderr": {"number": 0}}', '{"stderr": 1}', '{"stderr": {"a": "b"}}']
)
def test_a_checkpoint_that_cannot_be_read_repeats_rather_than_loses(log: Log, rubbish: str) -> None:
    log.write(line(0))
    log.read()
    log.checkpoint.write_text(rubbish)
    assert numbers(log.read()) == [0]


def test_without_a_place_for_the_checkpoint_it_says_so_and_goes_on(log: Log) -> None:
    log.checkpoint.parent.rmdir()
    log.write(line(0))
    records = log.read()
    assert numbers(records) == [0]
    assert any("Cannot note how far" in record["body"] for record in records)


async def test_reading_takes_no_more_than_its_share_of_the_time(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(tailer.asyncio, "sleep", sleep)
    for number in range(5000):
        log.write(line(number))
    running = log.tailer(Limits(share=0.01))
    began = time.thread_time()
    while await running._turn():
        pass
    reading = time.thread_time() - began
    assert numbers(log.records) == list(range(4999))  # the last may get more lines yet
    assert 50 * reading < sum(pauses) < 99 * reading
    running.finish()


def test_what_lies_too_far_behind_is_dropped_counted_and_announced(log: Log) -> None:
    for number in range(5):
        log.write("".join(line(1000 * number + n) for n in range(1000)), number=number)
    records = log.read(Limits(backlog=100_000))
    said = numbers(records)
    assert said == sorted(set(said))
    assert said[-1] == 4999
    dropped = sum(record["attributes"].get("tandem.tfs_log.lines_dropped", 0) for record in records)
    assert dropped > 3000
    assert len(said) + dropped == 5000


def test_a_failed_load_is_reported_with_tensorflow_servings_words(log: Log) -> None:
    log.write("2026-11-22 14:07:05.2: I a\n")
    log.write(
        "2026-11-22 14:07:05.231367: E tensorflow_serving/util/retrier.cc:40] "
        "Loading servable: {name: m version: 1} failed: OUT_OF_RANGE: Read less bytes than requested\n"
    )
    log.read()
    assert log.failures == [
        ("m", "Loading servable: {name: m version: 1} failed: OUT_OF_RANGE: Read less bytes than requested")
    ]


def test_a_note_of_files_that_are_not_there_is_no_reason_to_wait_for_them(log: Log) -> None:
    log.checkpoint.write_text(json.dumps({"stderr": {"number": 7, "inode": 1, "offset": 100}}))
    log.write(line(0))
    assert numbers(log.read()) == [0]


async def test_files_that_come_after_such_a_note_are_read_from_the_first(log: Log) -> None:
    log.checkpoint.write_text(json.dumps({"stderr": {"number": 7, "inode": 1, "offset": 100}}))
    running = log.tailer()
    assert not await running._turn()
    log.write(line(0))
    running.finish(60)
    assert numbers(log.records) == [0]


def test_a_note_that_came_with_the_disk_of_another_allocation_does_not_count(log: Log) -> None:
    log.write(line(0))
    log.tailer(allocation="first").finish(60)
    log.write(line(1))
    log.tailer(allocation="first").finish(60)
    assert numbers(log.records) == [0, 1]
    log.tailer(allocation="second").finish(60)
    assert numbers(log.records) == [0, 1, 0, 1]


async def test_a_gap_in_front_of_it_does_not_stop_it_and_is_said(log: Log) -> None:
    """The next file is removed before it is seen, and the one that is read is still there."""
    running = log.tailer()
    log.write(line(1), number=1)
    await running._turn()
    log.write(line(3), number=3)
    for _ in range(LOOKS + 3):
        await running._turn()
    assert numbers(log.records) == [1, 3]
    running.finish(60)
    (lost,) = [record for record in log.records if record["attributes"].get("event.name") == "tandem.tfs_log.lost"]
    assert lost["attributes"]["tandem.tfs_log.files_lost"] == 1


async def test_the_last_words_of_a_process_are_said_without_their_end_and_once(log: Log) -> None:
    running = log.tailer()
    log.write(line(0) + "2026-11-22 13:57:24.343859: F a.cc:1] number 1")
    for _ in range(PATIENCE + 2):
        await running._turn()
    assert numbers(log.records) == [0, 1]
    assert log.records[-1]["attributes"]["log.record.truncated"] is True
    log.write("\n" + line(2))
    running.finish(60)
    assert log.bodies == ["number 0", "number 1", "number 2"]
    log.tailer().finish(60)
    assert log.bodies == ["number 0", "number 1", "number 2"]


def test_a_line_that_is_left_to_the_next_adapter_is_told_of(log: Log) -> None:
    log.write(line(0) + "2026")
    log.read()
    assert log.records[-1]["attributes"]["event.name"] == "tandem.tfs_log.unfinished"
    assert log.records[-1]["attributes"]["tandem.tfs_log.bytes_left"] == 4
