"""What a person sees of the embedded group: one coloured line a record, from both tasks."""

import json
import sys
from typing import IO, Any

from adapter.telemetry import tfs_lines
from adapter.telemetry.logs import SEVERITY_TEXT

_COLOURS = {
    "DEBUG": "2",
    "INFO": "32",
    "WARN": "33",
    "ERROR": "31",
    "FATAL": "31;1",
    "tfs": "36",
    "adapter": "35",
    "group": "34",
}
_SHOWN = (
    "http.response.status_code",
    "duration_ms",
    "tandem.model",
    "tandem.model_version",
    "client.address",
    "error.message",
)


class Console:
    """Writes to `output`; colours only for a terminal."""

    def __init__(self, output: IO[str] = sys.stderr) -> None:
        self._output = output
        self._colour = output.isatty()

    def task(self, name: str, stream: str, line: str) -> None:
        """One line of a task: records of the common log are told in words, everything else as it is."""
        record = _record(line) if name == "adapter" and stream == "stdout" else None
        if record is None:
            found = tfs_lines.head(line) if name == "tfs" else None
            severity = SEVERITY_TEXT.get(found.severity, found.severity) if found else ""
            self._line(name, severity, found.body if found else line)
            return
        attributes = record.get("attributes", {})
        shown = " ".join(f"{key.rsplit('.', 1)[-1]}={attributes[key]}" for key in _SHOWN if key in attributes)
        text = f"{record['body']}  {shown}" if shown else record["body"]
        if "exception.stacktrace" in attributes:
            text += f"\n{attributes['exception.stacktrace']}"
        self._line(attributes.get("tandem.task", name), record["severity_text"], text, record["timestamp"][11:23])

    def say(self, text: str) -> None:
        """The group's own word."""
        self._line("group", "", text)

    def _line(self, who: str, severity: str, text: str, time: str = "") -> None:
        prefix = f"{self._paint(f'{who:<7}', who)} {time:<12} {self._paint(f'{severity:<5}', severity)}"
        print(f"{prefix} {text}", file=self._output, flush=True)

    def _paint(self, text: str, key: str) -> str:
        return f"\x1b[{_COLOURS[key]}m{text}\x1b[0m" if self._colour and key in _COLOURS else text


def _record(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and {"body", "severity_text", "timestamp"} <= record.keys() else None
