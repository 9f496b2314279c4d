"""A background process that outlives its parent, is found again by its pid file, and says why it died."""

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from deploy.cluster.say import say

PROBE_INTERVAL = 0.05
PORTS = range(10_000, 20_000)


class ClusterError(Exception):
    """A part of the cluster did not do what it should; the message says which, and shows its last log lines."""


def free_ports(count: int) -> list[int]:
    """`count` different ports that nobody has at this moment, TCP or UDP, where no client's own port is put."""
    ports: list[int] = []
    # Begun at a place of our own, so that clusters starting at the same moment do not pick the same ports.
    begin = os.getpid() * 16 % len(PORTS)
    for port in (*PORTS[begin:], *PORTS[:begin]):
        with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagram:
            try:
                stream.bind(("127.0.0.1", port))
                datagram.bind(("127.0.0.1", port))
            except OSError:
                continue
        ports.append(port)
        if len(ports) == count:
            return ports
    raise ClusterError(f"no {count} free ports in {PORTS}")


def need(*programs: str) -> None:
    """Raise unless every program is on the PATH."""
    if missing := [program for program in programs if shutil.which(program) is None]:
        raise ClusterError(f"not installed: {', '.join(missing)}")


class Background:
    """A process of the cluster, `name`, with its pid file and its log in `directory`."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.log = directory / f"{name}.log"
        self._pid_file = directory / f"{name}.pid"
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id while the process lives."""
        recorded = self._recorded()
        # The start time tells this process from a later one that got the same number.
        return recorded[0] if recorded and _start_time(recorded[0]) == recorded[1] else None

    def start(self, command: Sequence[str], environment: dict[str, str] | None = None) -> None:
        """Start `command` in a session of its own, its output in `log`."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        self._pid_file.write_text(f"{self._child.pid} {_start_time(self._child.pid)}")

    def until(self, ready: Callable[[], bool], seconds: float) -> None:
        """Wait until `ready()`; the process dying or `seconds` passing first is an error that shows its log.

        An agent that is not listening yet has no event to wait for: this is the one place that asks again.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            if self.pid is None:
                raise ClusterError(f"{self.name} died at start:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise ClusterError(f"{self.name} is not ready after {seconds:.0f} s:\n{self.tail()}")
            time.sleep(PROBE_INTERVAL)

    def stop(self, sign: signal.Signals, seconds: float) -> None:
        """Ask the process to end with `sign`, and kill it after `seconds`; then kill what it started and left."""
        if (pid := self.pid) is not None:
            watch = os.pidfd_open(pid)
            try:
                os.kill(pid, sign)
                if not _ended(watch, seconds):
                    say(f"{self.name} did not end within {seconds:.0f} s of {sign.name}: killed")
                    os.kill(pid, signal.SIGKILL)
                    _ended(watch, 10)
            finally:
                os.close(watch)
        if self._child is not None:
            self._child.wait()
        self._kill_group()
        self._pid_file.unlink(missing_ok=True)

    def _kill_group(self) -> None:
        """Kill what is left of the process's group; Nomad's log collectors outlive their agent."""
        recorded = self._recorded()
        # While a group has members its number is not given to a process; a process with that number is another's.
        if recorded is None or _start_time(recorded[0]):
            return
        for pid in _members(recorded[0]):
            with contextlib.suppress(ProcessLookupError):
                watch = os.pidfd_open(pid)
                signal.pidfd_send_signal(watch, signal.SIGKILL)
                _ended(watch, 10)
                os.close(watch)

    def _recorded(self) -> tuple[int, str] | None:
        try:
            pid, started = self._pid_file.read_text().split()
        except (FileNotFoundError, ValueError):
            return None
        return int(pid), started

    def tail(self, lines: int = 25) -> str:
        """The last lines of the log."""
        if not self.log.exists():
            return "(no log)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def _ended(pidfd: int, seconds: float) -> bool:
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(seconds * 1000))


def _members(group: int) -> list[int]:
    """The processes of a group, without those that ended."""
    numbers = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [pid for pid in numbers if (fields := _fields(pid)) and int(fields[2]) == group]


def _start_time(pid: int) -> str:
    """When the process started, in clock ticks since boot; "" for none, and for one that ended (a zombie)."""
    fields = _fields(pid)
    return fields[19] if fields else ""


def _fields(pid: int) -> list[str]:
    """/proc/PID/stat from the third field on (proc(5)); nothing for a process that ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [] if fields[0] == "Z" else fields
