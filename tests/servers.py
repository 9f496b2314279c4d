"""Model servers for tests: real processes, waited for by what they log, killed without mercy."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import grpc

READY = "Running gRPC ModelServer at"
_UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


class ModelServer:
    """The local model server with these flags, on a UNIX socket of its own, as a context manager.

    with ModelServer("--model_name=m", "--model_base_path=/models/m") as server:
        stub = PredictionServiceStub(server.channel())

    Entering waits until its ports are open, unless `ready` names another log line to wait for ("" = wait for nothing).
    """

    def __init__(
        self,
        *flags: str,
        ready: str = READY,
        timeout: float = 60,
        env: Mapping[str, str] | None = None,
        command: Sequence[str] = (sys.executable, "-m", "deploy.local.model_server"),
    ) -> None:
        self.flags = list(flags)
        self.directory = Path(tempfile.mkdtemp(prefix="tandem-"))  # short: a socket's path has at most 107 bytes
        self.socket = self.directory / "tfs.sock"
        self.timeout = timeout
        self.rest_port = 0  # whoever gives --rest_api_port may note it here
        self.lines: list[str] = []
        self.ready = ready
        self.env = dict(env or {})
        self._command = list(command)
        self._more = threading.Condition()
        self._ended = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self) -> None:
        """Start the process; again, too, after a `kill`: over the socket file that the dead one left."""
        self._ended = False
        before = len(self.lines)
        self.process = subprocess.Popen(
            [*self._command, *self._own_flags(), *self.flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, **self.env},
            cwd=Path(__file__).parent.parent,
        )
        self._reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self._reader.start()
        if self.ready:
            try:
                self.wait_for(self.ready, after=before)
            except BaseException:
                self.kill()
                raise

    @property
    def target(self) -> str:
        """The gRPC address."""
        return f"unix://{self.socket}"

    @property
    def pid(self) -> int:
        return self.process.pid

    def channel(self) -> grpc.Channel:
        """A blocking channel that takes messages of any size."""
        return grpc.insecure_channel(self.target, options=_UNLIMITED)

    def wait_for(self, pattern: str, after: int = 0) -> str:
        """The first line of stderr, from number `after` on, in which this regular expression is found."""
        expression = re.compile(pattern)
        with self._more:
            self._more.wait_for(lambda: self._ended or self._find(expression, after) is not None, self.timeout)
            line = self._find(expression, after)
            if line is None:
                state = "ended" if self._ended else f"did not log it within {self.timeout} s"
                raise AssertionError(f"no {pattern!r}: the model server {state}:\n" + "\n".join(self.lines[-40:]))
            return line

    def kill(self, number: int = signal.SIGKILL) -> int:
        """Send a signal and wait for the end; returns the exit status (negative: the signal that ended it)."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for the end of a process that ends by itself."""
        status = self.process.wait(self.timeout)
        self._reader.join(self.timeout)
        return status

    def stdout(self) -> str:
        """All it printed; once it has ended."""
        assert self.process.stdout is not None
        return self.process.stdout.read()

    def _own_flags(self) -> list[str]:
        given = {flag.partition("=")[0] for flag in self.flags}
        mine = {"--port": "0", "--grpc_socket_path": str(self.socket)}
        return [] if given & mine.keys() else [f"{name}={value}" for name, value in mine.items()]

    def _find(self, expression: re.Pattern[str], after: int) -> str | None:
        return next((line for line in self.lines[after:] if expression.search(line)), None)

    def _read(self, process: "subprocess.Popen[str]") -> None:
        assert process.stderr is not None
        for line in process.stderr:
            with self._more:
                self.lines.append(line.rstrip("\n"))
                self._more.notify_all()
        with self._more:
            self._ended = True
            self._more.notify_all()


def free_port() -> int:
    """A TCP port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
