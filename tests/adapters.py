"""Adapters for tests: the real process, waited for by what it logs."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

Record = dict[str, Any]
LAST_SECONDS = 6.0
"""What may be left to do when the grace period is over: last records, a last scrape, telemetry that nobody takes."""


@dataclass(frozen=True)
class Answer:
    """What came back: status, headers (names in lower case) and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Adapter:
    """`python -m adapter` on a free port with these settings (ADAPTER_ left out, lower case), as a context manager.

    with Adapter(tfs_grpc=server.target) as adapter:
        adapter.request("GET", "/health")

    Entering waits until it listens; `ready()` waits until the group is ready. `records` holds its log so far; what it
    writes goes to `keep`, too, as a platform would keep it. `program` are Python's arguments, for a test that starts it
    otherwise.
    """

    def __init__(
        self,
        environment: Mapping[str, str] | None = None,
        keep: Callable[[bytes], None] | None = None,
        program: Sequence[str] = ("-m", "adapter"),
        **settings: object,
    ) -> None:
        self._keep = keep
        self._program = program
        self._environment = {f"ADAPTER_{name.upper()}": str(value) for name, value in settings.items()}
        self._environment.setdefault("ADAPTER_HOST", "127.0.0.1")
        self._environment.setdefault("ADAPTER_PORT", "0")
        self._environment.update(environment or {})
        self.records: list[Record] = []
        self.port = 0
        self._more = threading.Condition()
        self._ended = False

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            [sys.executable, *self._program],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **self._environment},
            cwd=Path(__file__).parent.parent,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.port = self.wait_for(event("tandem.start"))["attributes"]["server.port"]
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGKILL)
        assert self.process.stderr is not None
        self.process.stderr.close()

    @property
    def pid(self) -> int:
        return self.process.pid

    def ready(self) -> Self:
        """Wait until the group is ready."""
        self.wait_for(state("ready"))
        return self

    def wait_for(self, wanted: Callable[[Record], bool], timeout: float = 30, after: int = 0) -> Record:
        """The first log record, from number `after` on, that is wanted."""

        unseen = after

        def met() -> bool:
            """Of a record that is wanted, or of the end; each record is looked at once, however many come."""
            nonlocal unseen
            while unseen < len(self.records) and not wanted(self.records[unseen]):
                unseen += 1
            return unseen < len(self.records) or self._ended

        with self._more:
            self._more.wait_for(met, timeout)
            if unseen < len(self.records):
                return self.records[unseen]
        raise AssertionError(f"the adapter did not log it; its last records: {self.records[-10:]}")

    def connection(self, timeout: float = 30) -> http.client.HTTPConnection:
        """A connection to it, not opened yet."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def request(
        self, method: str, path: str, body: bytes | str | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request on a connection of its own; the path goes out as it is, byte for byte."""
        data = body.encode() if isinstance(body, str) else body
        connection = self.connection()
        with contextlib.closing(connection):
            connection.putrequest(method, path, skip_accept_encoding=True)
            given = dict(headers or {})
            if data is not None and "Transfer-Encoding" not in given:
                given.setdefault("Content-Length", str(len(data)))
            for name, value in given.items():
                connection.putheader(name, value)
            connection.endheaders(data)
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, names, response.read())

    def predict(self, model: str, body: object) -> Answer:
        """POST a JSON document to `/v1/models/MODEL:predict`."""
        return self.request("POST", f"/v1/models/{model}:predict", json.dumps(body))

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; returns the exit status (negative: the signal that ended it)."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for the end of a process that ends by itself."""
        status = self.process.wait(60)
        self._reader.join(60)
        return status

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                if self._keep is not None:
                    self._keep(line)
                if line == b"\n" or not line.endswith(b"\n"):  # one before it, or it itself, was killed while it wrote
                    continue
                with self._more:
                    self.records.append(json.loads(line))
                    self._more.notify_all()
        with self._more:
            self._ended = True
            self._more.notify_all()


def event(name: str) -> Callable[[Record], bool]:
    """A record of this `event.name`."""
    return lambda record: record["attributes"].get("event.name") == name


def state(name: str) -> Callable[[Record], bool]:
    """The record of the group's change to this state."""
    return lambda record: event("tandem.state")(record) and record["attributes"]["to"] == name


def refused(environment: Mapping[str, str] | None = None, **settings: object) -> list[str]:
    """What an adapter with these settings says that does not start: its lines on stderr."""
    named = {f"ADAPTER_{name.upper()}": str(value) for name, value in settings.items()}
    done = subprocess.run(
        [sys.executable, "-m", "adapter"],
        env={**os.environ, "ADAPTER_HOST": "127.0.0.1", "ADAPTER_PORT": "0", **named, **(environment or {})},
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    return done.stderr.splitlines()
