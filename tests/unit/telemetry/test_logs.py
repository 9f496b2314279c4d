"""The common log format, and the stream that requests append to."""

import asyncio
import errno
import io
import json
import logging
import os
from functools import partial
from typing import Any

import pytest
from aiohttp.http import HttpProcessingError

from adapter.telemetry import logs
from adapter.telemetry.logs import CommonHandler, LogStream, StrangersMistakes, timestamp
from tests.output import Output

RESOURCE = {"service.name": "halves"}


def records(output: io.BytesIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.getvalue().splitlines()]


def test_time_is_rfc_3339_with_nine_digits() -> None:
    assert timestamp(1795362196533992000) == "2026-11-22T15:43:16.533992000Z"
    assert timestamp(5) == "1970-01-01T00:00:00.000000005Z"


def test_a_record_has_the_data_models_fields() -> None:
    output = io.BytesIO()
    LogStream(RESOURCE, output).write("WARNING", "look out", {"a": 1}, 1795362196533992000)
    assert records(output) == [
        {
            "timestamp": "2026-11-22T15:43:16.533992000Z",
            "severity_text": "WARN",
            "severity_number": 13,
            "body": "look out",
            "attributes": {"a": 1},
            "resource": RESOURCE,
        }
    ]


async def test_information_is_buffered_and_a_warning_takes_it_along() -> None:
    output = Output()
    stream = LogStream(RESOURCE, output)
    stream.start()
    stream.write("INFO", "first", {})
    assert output.getvalue() == b""
    stream.write("WARNING", "second", {})
    stream.write("INFO", "third", {})
    assert output.wait(output.getvalue)  # by another thread
    assert [record["body"] for record in records(output)] == ["first", "second"]
    stream.stop()


async def test_the_buffer_is_written_soon_and_at_the_end() -> None:
    output = Output()
    stream = LogStream(RESOURCE, output)
    stream.start()
    stream.write("INFO", "one", {})
    await output.until(output.getvalue)
    stream.write("INFO", "two", {})
    stream.stop()
    assert [record["body"] for record in records(output)] == ["one", "two"]


async def test_what_no_reader_takes_is_dropped_beyond_a_bound_and_said_once_one_does() -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb", buffering=0) as output, os.fdopen(reader, "rb") as pipe:
        stream = LogStream(RESOURCE, output)
        stream.start()
        for _ in range(600):
            stream.write("WARNING", "x" * logs.MAX_BODY, {})
        dropped = stream.dropped
        assert 600 - dropped == pytest.approx(logs.MAX_BUFFER / logs.MAX_BODY, rel=0.05)
        assert stream.clogged
        told = await asyncio.to_thread(next, filter(_tells_of_lost, map(json.loads, pipe)))
        assert told["attributes"]["tandem.log.records_dropped"] == dropped
        assert not stream.clogged
        stream.stop()


def test_a_line_that_breaks_off_takes_no_other_with_it_and_no_note_is_made_of_it() -> None:
    disk = Disk(room=250)
    stream = LogStream(RESOURCE, disk)
    noted: list[int] = []
    for number in range(3):
        stream.write("INFO", f"{number}", {})
        stream.flush(partial(noted.append, number))
    assert noted == [0]
    disk.room = 10_000
    stream.write("INFO", "3", {})
    stream.flush(partial(noted.append, 3))
    assert noted == [0, 3]
    whole, torn, *others = disk.content.splitlines()
    assert not torn.endswith(b"}")
    assert [json.loads(line)["body"] for line in (whole, others[0])] == ["0", "3"]
    assert json.loads(others[1])["attributes"]["tandem.log.records_dropped"] == stream.dropped == 2


class Disk(io.RawIOBase):
    """A file with room for so many bytes."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.content = b""

    def write(self, data: Any) -> int:
        taken = bytes(data[: self.room - len(self.content)])
        if not taken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.content += taken
        return len(taken)


def _tells_of_lost(record: dict[str, Any]) -> bool:
    return bool(record["attributes"].get("event.name") == "tandem.log.lost")


def test_long_bodies_are_cut_and_lone_surrogates_survive() -> None:
    output = io.BytesIO()
    stream = LogStream(RESOURCE, output)
    stream.write("INFO", "y" * 100_000, {})
    stream.write("INFO", "\udcff", {"path": "\udc80"})
    first, second = records(output)
    assert len(first["body"]) == logs.MAX_BODY + 1
    assert second["attributes"] == {"path": "?"}


def test_an_exception_leaves_with_type_message_and_stack() -> None:
    output = io.BytesIO()
    logger = logging.Logger("some.module")
    logger.addHandler(CommonHandler(LogStream(RESOURCE, output)))
    try:
        raise ValueError("no")
    except ValueError:
        logger.exception("It %s", "failed", extra={"attributes": {"k": "v"}})
    (record,) = records(output)
    assert record["body"] == "It failed"
    assert record["attributes"]["exception.type"] == "ValueError"
    assert record["attributes"]["exception.message"] == "no"
    assert "raise ValueError" in record["attributes"]["exception.stacktrace"]
    assert record["attributes"]["k"] == "v"


def test_what_a_stranger_sends_is_one_line_without_a_stack() -> None:
    output = io.BytesIO()
    logger = logging.Logger("aiohttp.server")
    logger.addFilter(StrangersMistakes())
    logger.addHandler(CommonHandler(LogStream(RESOURCE, output)))
    try:
        raise HttpProcessingError(code=400, message="not HTTP")
    except HttpProcessingError:
        logger.exception("Error handling request")
    (record,) = records(output)
    assert record["severity_text"] == "INFO"
    assert "not HTTP" in record["body"]
    assert "exception.stacktrace" not in record["attributes"]
