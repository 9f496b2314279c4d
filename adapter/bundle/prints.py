"""What a handler prints or logs: records of the common log, never a line between them, and no secret in it.

The log's own stream is a copy of stdout (`telemetry/logs.py`). Here `print` becomes a record a line, what C code writes to
file descriptor 1 goes to stderr, and the values of secrets that the process holds are blanked wherever the handler's words
hold them. Which those were is kept: a handler that prints a secret while it is imported is refused.
"""

import io
import logging
import os
import re
import sys
from collections.abc import Iterable, Mapping

LOGGER = "handler"
# Names of environment variables whose values are nobody's business (NOMAD_TOKEN, AWS_SECRET_ACCESS_KEY, DB_PASSWORD, …).
_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSW(OR)?D|CREDENTIAL|PRIVATE|API_?KEY|ACCESS_?KEY", re.IGNORECASE)
_SHORTEST = 8
_LONGEST_LINE = 16_384
_OURS = ("adapter", "aiohttp", "asyncio")


def secrets_of(environ: Mapping[str, str]) -> dict[str, str]:
    """Name → value of what must not be printed: secret variables, and the contents of files that `…_FILE` ones name."""
    found = {}
    for name, value in environ.items():
        if not _SECRET_NAME.search(name):
            continue
        if name.endswith("_FILE"):
            try:
                with open(value, encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - a name from the environment
                    value = file.read(1 << 16).strip()
            except OSError:
                continue
        if len(value) >= _SHORTEST:
            found[name] = value
    return found


class Blanking(logging.Filter):
    """Blanks `secrets` (name → value) in records of other loggers than the adapter's own; `leaked` names those it met."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        super().__init__()
        self._secrets = dict(secrets)
        self.leaked: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Called by logging for each record."""
        if record.name.partition(".")[0] in _OURS and not record.exc_info:
            return True
        text = record.getMessage()
        blanked = self.blanked(text)
        if blanked != text:
            record.msg, record.args = blanked, None
        if record.exc_info:
            trace = logging.Formatter().formatException(record.exc_info)
            if self.blanked(trace) != trace:
                record.exc_info = None
                record.msg = f"{record.getMessage()} (its trace holds a secret and is not shown)"
                record.args = None
        return True

    def blanked(self, text: str) -> str:
        """`text` without the secrets."""
        for name, value in self._secrets.items():
            if value in text:
                self.leaked.add(name)
                text = text.replace(value, f"[{name}]")
        return text


class _Lines(io.TextIOBase):
    """A stream that is a logger: each line a record."""

    def __init__(self, level: int) -> None:
        super().__init__()
        self._level = level
        self._rest = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        if len(self._rest) > _LONGEST_LINE:
            lines.append(self._rest)
            self._rest = ""
        self._log(lines)
        return len(text)

    def flush(self) -> None:
        """A line is written when it is whole: `print(end="", flush=True)` makes no records of halves."""

    def _log(self, lines: Iterable[str]) -> None:
        for line in lines:
            if line.strip():
                logging.getLogger(LOGGER).log(self._level, "%s", line.rstrip("\r"))


def capture(environ: Mapping[str, str]) -> Blanking:
    """From now on, whatever this process prints is in the log. Call it once, when the log has its own copy of stdout."""
    blanking = Blanking(secrets_of(environ))
    for handler in logging.getLogger().handlers:
        handler.addFilter(blanking)
    os.dup2(2, 1)
    sys.stdout = _Lines(logging.INFO)
    sys.stderr = _Lines(logging.WARNING)
    return blanking
