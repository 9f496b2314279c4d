r"""TensorFlow Serving's output lines → log records. Pure: whoever reads the files is `tailer`.

One process writes five forms, mixed (which source file uses which changes between releases, so none can be left out):

    2026-11-22 13:57:24.343859: I tensorflow_serving/model_servers/server.cc:77] text       TensorFlow's own logger
    2026-11-22 14:07:24.811053: I    7738 tensorflow_serving/….cc:121] text                 with TF_CPP_LOG_THREAD_ID=1
    I0000 00:00:1795355844.534183   15687 loader_harness.cc:71] text                        absl before InitializeLog
    [evhttp_server.cc : 261] NET_LOG: text                                                  net_http, no time, no severity
    [libprotobuf ERROR google/protobuf/text_format.cc:337] text                             protobuf

Everything else is either the next line of the message before it (`\t [[{{node Sum}}]]`, the second line of
cpu_feature_guard, a stack trace) or a plain line (what the server prints to stdout before it gives up).
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

MAX_LINES = 256
MAX_BODY = 16_384

_LETTERS: Final = {"I": "INFO", "W": "WARNING", "E": "ERROR", "F": "CRITICAL"}
_WORDS: Final = {"INFO": "INFO", "WARNING": "WARNING", "ERROR": "ERROR", "FATAL": "CRITICAL"}
_TENSORFLOW = re.compile(
    r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)\.(\d{6}): ([IWEF]) (?: *(\d{1,18}) )?([^\s:]+):(\d{1,9})\] ?(.*)",
    re.ASCII | re.DOTALL,
)
_ABSL = re.compile(
    r"([IWEF])(\d{4}) \d\d:\d\d:(\d{1,10})\.(\d{6}) +(\d{1,18}) ([^\s:]+):(\d{1,9})\] ?(.*)", re.ASCII | re.DOTALL
)
_BRACKETED = re.compile(
    r"\[(?:libprotobuf (?P<word>\w+) )?(?P<file>[^\s:]+)(?: : |:)(?P<line>\d{1,9})\] (?P<text>.*)", re.ASCII | re.DOTALL
)
# Lines without a prefix that are nevertheless the first of a message, with what they mean.
_PLAIN = (
    (re.compile(r"(WARNING|ERROR|FATAL): "), ""),
    (re.compile(r"Failed to start server\. Error: |unknown argument: "), "ERROR"),
    (re.compile(r"terminate called |\*\*\* |Segmentation fault|Aborted|Killed"), "CRITICAL"),
)


@dataclass(slots=True)
class Record:
    """One message: severity as `logging` names it, Unix nanoseconds (0: the line has no time), text, attributes."""

    severity: str
    nanoseconds: int
    body: str
    attributes: dict[str, str | int | bool] = field(default_factory=dict)


def head(line: str) -> Record | None:
    """The record that this line begins; None if it has no form of its own, and may continue the one before."""
    first = line[:1]
    if first.isdigit():
        return _tensorflow(line)
    if first == "[":
        return _bracketed(line)
    if first in _LETTERS and (found := _absl(line)):
        return found
    return _plain(line) if first and not first.isspace() else None


def _tensorflow(line: str) -> Record | None:
    found = _TENSORFLOW.match(line)
    if found is None:
        return None
    second, micros, letter, thread, file, number, text = found.groups()
    attributes: dict[str, str | int | bool] = {"code.file.path": file, "code.line.number": int(number)}
    if thread:
        attributes["thread.id"] = int(thread)
    local = _local(second)
    return Record(_LETTERS[letter], local and local + int(micros) * 1000, text.lstrip(" "), attributes)


@lru_cache(maxsize=16)
def _local(second: str) -> int:
    """TensorFlow prints local time (tsl/platform/default/logging.cc); the group's two tasks have one time zone.

    0 if there is no such time: the record's is then when it was read.
    """
    try:
        return int(time.mktime(time.strptime(second, "%Y-%m-%d %H:%M:%S"))) * 1_000_000_000
    except (ValueError, OverflowError):
        return 0


def _absl(line: str) -> Record | None:
    found = _ABSL.match(line)
    if found is None:
        return None
    letter, day, second, micros, thread, file, number, text = found.groups()
    # Before InitializeLog, which TFS never calls, absl has no time zone and prints 0000 00:00: and the Unix time.
    nanoseconds = int(second) * 1_000_000_000 + int(micros) * 1000 if day == "0000" else 0
    attributes: dict[str, str | int | bool] = {"code.file.path": file, "code.line.number": int(number)}
    attributes["thread.id"] = int(thread)
    return Record(_LETTERS[letter], nanoseconds, text.lstrip(" "), attributes)


def _bracketed(line: str) -> Record | None:
    found = _BRACKETED.match(line)
    if found is None:
        return None
    attributes: dict[str, str | int | bool] = {"code.file.path": found["file"], "code.line.number": int(found["line"])}
    severity = _WORDS.get(found["word"] or "", "INFO")
    return Record(severity, 0, found["text"].removeprefix("NET_LOG: "), attributes)


def _plain(line: str) -> Record | None:
    for expression, severity in _PLAIN:
        if found := expression.match(line):
            return Record(severity or _WORDS[found[1]], 0, line)
    return None


class Joiner:
    """Lines of one stream in, whole messages out to `emit`.

    A line without a form of its own continues the message before it: always on stderr, where every message has a
    prefix, and if indented on stdout, where none has. A message beyond `MAX_LINES` or `MAX_BODY` goes on as another
    record, so that nothing is lost.
    """

    def __init__(self, emit: Callable[[Record], None], *, plain: bool) -> None:
        self._emit = emit
        self._plain = plain
        self._record: Record | None = None
        self._lines: list[str] = []
        self._size = 0
        self.fed = 0
        """Bytes of all lines fed so far."""
        self.pending_bytes = 0
        """Of the lines fed whose record is not emitted yet."""

    def feed(self, line: str, size: int, *, truncated: bool = False) -> None:
        """Take the next line, without its end; `size` bytes of the file held it."""
        if not line and self._record is None:  # the end of a line that was taken for whole
            self.skip(size)
            return
        begun = head(line)
        if begun is None and not self._continues(line):
            # Where a message had to be cut, its rest is as severe as its beginning.
            before = None if self._plain else self._record
            begun = Record(before.severity if before else "INFO", 0, line)
        if begun is not None:
            self.flush()
            self._record = begun
            self._lines = [begun.body] if begun.body else []
            self._size = len(begun.body)
        else:
            self._lines.append(line)
            self._size += len(line) + 1
        self.fed += size
        self.pending_bytes += size
        if truncated and self._record is not None:
            self._record.attributes["log.record.truncated"] = True

    def skip(self, size: int) -> None:
        """So many bytes are not fed: they are of nobody's record."""
        self.fed += size

    def flush(self) -> None:
        """Emit what is held: nothing more belongs to it."""
        record, self._record = self._record, None
        self.pending_bytes = 0
        if record is not None:
            record.body = "\n".join(self._lines)
            self._emit(record)

    def _continues(self, line: str) -> bool:
        if self._record is None or len(self._lines) >= MAX_LINES or self._size + len(line) >= MAX_BODY:
            return False
        return not self._plain or line[:1] in ("", " ", "\t")


# What TFS says when a model cannot be loaded (util/retrier.cc, core/loader_harness.cc, core/aspired_versions_manager.cc,
# sources/storage_path/file_system_storage_path_source.cc), or when the server gives up (model_servers/main.cc, on stdout).
_FAILURE = re.compile(
    r"(?:Loading servable: |Encountered an error for servable version |Servable )\{name: (?P<a>\S+) version: \d+\}"
    r"(?: failed| cannot be loaded|): "
    r"|No versions of servable (?P<b>\S+) found under base path "
    r"|FileSystemStoragePathSource encountered .* for servable (?P<c>\S+) with error "
    r"|Failed to start server\. Error: "
    r"|Killed by SIG"  # the job's tfs.sh
)


def failure(record: Record) -> str | None:
    """The model whose load this record says has failed; "" for the whole server; None if it is no such news."""
    if record.severity == "INFO" and not record.body.startswith("Encountered"):
        return None
    found = _FAILURE.match(record.body)
    return None if found is None else found["a"] or found["b"] or found["c"] or ""
