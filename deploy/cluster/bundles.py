"""A bundle store: bundles served over HTTP, as Nomad's `artifact` fetches them."""

import hashlib
import shutil
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from deploy.cluster.process import Background


@dataclass(frozen=True)
class Published:
    """A bundle that can be fetched."""

    url: str
    checksum: str


class BundleStore:
    """A directory of bundles behind Python's plain file server on loopback."""

    def __init__(self, directory: Path, port: int) -> None:
        self._files = directory / "bundles"
        self._port = port
        self._process = Background("bundles", directory)

    def start(self) -> None:
        """Start the file server and wait until it listens."""
        self._files.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "http.server", "--bind=127.0.0.1", f"--directory={self._files}"]
        self._process.start([*command, str(self._port)])
        self._process.until(self._listens, seconds=10)

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.pid is not None

    def stop(self) -> None:
        """Stop the file server."""
        self._process.stop(signal.SIGTERM, seconds=5)

    def publish(self, archive: Path) -> Published:
        """Put a copy of `archive` into the store."""
        content = archive.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        name = f"{digest[:12]}-{archive.name}"
        shutil.copy(archive, self._files / name)
        return Published(f"http://127.0.0.1:{self._port}/{name}", f"sha256:{digest}")

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0
