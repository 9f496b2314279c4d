"""Processes that are measured: started on cores of their own, their CPU and memory read from /proc, all ended in the end."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Usage:
    """What a process and all its descendants have used: CPU seconds so far, bytes of memory now."""

    cpu: float = 0.0
    rss: int = 0


@dataclass(frozen=True)
class Cores:
    """Which cores serve whom: the peers get the last, backend and load the others; without two, all get all."""

    peer: Set[int]
    rest: Set[int]

    @classmethod
    def of_this_machine(cls, pinned: bool = True) -> "Cores":
        cores = sorted(os.sched_getaffinity(0))
        if not pinned or len(cores) < 2:
            return cls(frozenset(cores), frozenset(cores))
        return cls(frozenset(cores[-1:]), frozenset(cores[:-1]))


@contextlib.contextmanager
def _on(cores: Set[int]) -> Iterator[None]:
    """Children started inside inherit these cores, every thread of theirs too."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Processes:
    """Starts processes, their output in `directory`; leaving the context ends them and whatever they started."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_all()

    def stop_all(self) -> None:
        """End every server."""
        for process in self._started:
            self.stop(process)
        self._started.clear()

    def start(
        self, name: str, command: Sequence[object], cores: Set[int], env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a server; its output goes to `NAME.log`."""
        with (self.directory / f"{name}.log").open("wb") as log, _on(cores):
            process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def begin(self, command: Sequence[object], cores: Set[int]) -> "subprocess.Popen[str]":
        """Start a program that prints its result."""
        with _on(cores):
            return subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True)

    def stop(self, process: "subprocess.Popen[Any]") -> None:
        """End a server and its descendants."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)

    def last_words(self, name: str) -> str:
        """The end of a server's log."""
        lines = (self.directory / f"{name}.log").read_text(errors="replace").strip().splitlines()
        return " / ".join(lines[-3:])[-400:]


def usage(pid: int) -> Usage:
    """Of a process and its descendants; children that have ended count by what their parents waited for."""
    table = dict(_all_processes())
    total, family = Usage(), [pid]
    while family:
        parent = family.pop()
        if parent in table:
            total = Usage(total.cpu + table[parent][1].cpu, total.rss + table[parent][1].rss)
        family += [child for child, (its_parent, _) in table.items() if its_parent == parent]
    return total


def _all_processes() -> Iterator[tuple[int, tuple[int, Usage]]]:
    """pid → (parent, own usage), from proc(5): fields 4, 14-17 and 24 of stat."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = path.read_text().rpartition(")")[2].split()
            cpu = sum(int(ticks) for ticks in fields[11:15]) / _TICK
            yield int(path.parent.name), (int(fields[1]), Usage(cpu, int(fields[21]) * _PAGE))
