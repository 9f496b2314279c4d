"""One task of the embedded group: a process with the environment, directories and log files that Nomad would give it."""

import asyncio
import contextlib
import ctypes
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

# Nomad's defaults for `logs` (nomad/structs/structs.go, DefaultLogConfig): files kept, bytes in each.
MAX_FILES = 10
MAX_FILE_SIZE = 10 << 20

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class RotatedLog:
    """`<task>.<stream>.N` in the allocation's log directory: the highest N is written, the oldest are removed.

    Nomad's client/logmon/logging/rotator.go, whose names and order these are; a line is never split here.
    """

    def __init__(self, prefix: Path, max_files: int = MAX_FILES, max_size: int = MAX_FILE_SIZE) -> None:
        self._prefix = prefix
        self._max_files = max_files
        self._max_size = max_size
        existing = [int(p.suffix[1:]) for p in prefix.parent.glob(f"{prefix.name}.*") if p.suffix[1:].isdigit()]
        self._index = max(existing, default=0)
        self._file = self._path(self._index).open("ab", buffering=0)

    def write(self, line: bytes) -> None:
        """Append one line, in the next file if this one is full."""
        if self._file.tell() + len(line) > self._max_size and self._file.tell():
            self._file.close()
            self._index += 1
            self._file = self._path(self._index).open("ab", buffering=0)
            self._path(self._index - self._max_files).unlink(missing_ok=True)
        self._file.write(line)

    def close(self) -> None:
        self._file.close()

    def _path(self, index: int) -> Path:
        return self._prefix.with_name(f"{self._prefix.name}.{index}")


class Task:
    """A command that runs as task `name` of the allocation at `allocation`; `show(stream, line)` sees its output.

    It inherits `descriptors`.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        allocation: Path,
        show: Callable[[str, str], None],
        descriptors: Sequence[int] = (),
    ) -> None:
        self.name = name
        self._command = list(command)
        self._allocation = allocation
        self._show = show
        self._descriptors = tuple(descriptors)
        directory = allocation / name
        for part in ("local", "secrets", "tmp"):
            (directory / part).mkdir(parents=True, exist_ok=True)
        (directory / "secrets").chmod(0o700)
        self._environment = {
            **os.environ,
            **environment,
            "NOMAD_TASK_NAME": name,
            "NOMAD_ALLOC_DIR": str(allocation / "alloc"),
            "NOMAD_TASK_DIR": str(directory / "local"),
            "NOMAD_SECRETS_DIR": str(directory / "secrets"),
        }
        self._process: asyncio.subprocess.Process | None = None
        self._pumps: list[asyncio.Task[None]] = []

    @property
    def pid(self) -> int:
        """Of the process that runs now. It must have been started."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start the process; its output goes to the allocation's log files."""
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=1 << 20,
            pass_fds=self._descriptors,
            start_new_session=True,  # the terminal's Ctrl-C is the group's, not the tasks'
            preexec_fn=_die_with_parent,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._pumps = [
            asyncio.create_task(self._pump("stdout", self._process.stdout)),
            asyncio.create_task(self._pump("stderr", self._process.stderr)),
        ]

    async def wait(self) -> int:
        """Exit status (negative: the signal that ended it), once all of its output is written."""
        assert self._process is not None
        status = await self._process.wait()
        await asyncio.gather(*self._pumps)
        return status

    async def stop(self, kill_timeout: float) -> int:
        """SIGTERM, and SIGKILL after `kill_timeout` seconds, as Nomad does; returns the exit status."""
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(kill_timeout):
                return await self.wait()
        except TimeoutError:
            self.signal(signal.SIGKILL)
            return await self.wait()

    def note(self, line: str) -> None:
        """Write one line into the log of a task that has ended, as if it had said it on stderr."""
        log = RotatedLog(self._allocation / "alloc" / "logs" / f"{self.name}.stderr")
        log.write(line.encode())
        log.close()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the task, if it still runs."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _pump(self, stream: str, output: asyncio.StreamReader) -> None:
        log = RotatedLog(self._allocation / "alloc" / "logs" / f"{self.name}.{stream}")
        try:
            while line := await _line(output):
                log.write(line)
                self._show(stream, line.decode("utf-8", "replace").rstrip("\n"))
        finally:
            log.close()


async def _line(output: asyncio.StreamReader) -> bytes:
    """The next line; of one that is longer than the buffer, a piece."""
    try:
        return await output.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError as error:
        return await output.read(error.consumed)


def _die_with_parent() -> None:
    """Nothing stays behind, even when the group is killed (prctl(2), PR_SET_PDEATHSIG)."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
