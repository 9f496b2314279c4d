"""Docker: the machine's daemon when there is one, otherwise one of our own with its images in the cache.

Our own daemon makes no bridge and no firewall rule: the only containers here are in Nomad's networks or in the
host's. Its image store stays in the cache, its sockets and pid file in a short directory under /run (a unix
socket's path has at most 107 characters).
"""

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

from deploy.cluster.cache import cache
from deploy.cluster.process import Background, ClusterError, need
from deploy.cluster.residue import unmount_below

SYSTEM_SOCKET = Path("/var/run/docker.sock")


class Docker:
    """A Docker daemon and the client that talks to it."""

    def __init__(self) -> None:
        need("docker")
        label = hashlib.sha256(str(cache()).encode()).hexdigest()[:8]
        self._run = Path(f"/run/tandem-docker-{label}")
        self._daemon = Background("dockerd", self._run)
        self.ours = not _answers(SYSTEM_SOCKET)
        self.socket = self._run / "docker.sock" if self.ours else SYSTEM_SOCKET

    def start(self) -> bool:
        """Start a daemon unless one answers already; true when this call started it."""
        if not self.ours or self._daemon.pid is not None:
            return False
        need("dockerd", "docker-init")
        self._run.mkdir(parents=True, exist_ok=True)
        command = ["dockerd", "--host", f"unix://{self.socket}", "--data-root", str(cache() / "docker")]
        command += ["--exec-root", str(self._run / "exec"), "--pidfile", str(self._run / "docker.pid")]
        command += ["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"]
        self._daemon.start(command)
        self._daemon.until(lambda: _answers(self.socket), seconds=60)
        return True

    def stop(self) -> None:
        """Stop our own daemon, with whatever container is left in it."""
        if not self.ours:
            return
        if self._daemon.pid is not None and (left := self.client("ps", "--all", "--quiet").split()):
            self.client("rm", "--force", "--volumes", *left)
        self._daemon.stop(signal.SIGTERM, seconds=30)
        unmount_below(self._run)
        shutil.rmtree(self._run, ignore_errors=True)

    def client(self, *arguments: str) -> str:
        """`docker ARGUMENTS…`: its output, or an error that holds what it said."""
        command = ["docker", "--host", f"unix://{self.socket}", *arguments]
        done = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ClusterError(f"docker {' '.join(arguments[:2])}: {(done.stdout + done.stderr)[-3000:]}")
        return done.stdout

    def has_image(self, tag: str) -> bool:
        """Whether the image store holds `tag`."""
        return bool(self.client("images", "--quiet", tag).strip())

    def build(self, dockerfile: Path, context: Path, tag: str, base: str) -> None:
        """Build `tag` on `base`, with no network."""
        options = ["--network=none", "--force-rm", "--tag", tag, "--build-arg", f"BASE={base}"]
        self.client("build", *options, "--file", str(dockerfile), str(context))

    def forget_older(self, tag: str) -> None:
        """Remove the other tags of an image of ours; what their layers share with it stays."""
        repository = tag.partition(":")[0]
        tags = self.client("images", "--format", "{{.Repository}}:{{.Tag}}", repository).split()
        for old in set(tags) - {tag}:
            with contextlib.suppress(ClusterError):  # a container still runs on it
                self.client("rmi", old)
        if self.ours:  # build stages without a name; the newest ones are the cache of the next build
            self.client("image", "prune", "--force", "--filter", "until=12h")


def _answers(socket: Path) -> bool:
    if not socket.exists():
        return False
    command = ["docker", "--host", f"unix://{socket}", "version", "--format", "{{.Server.Version}}"]
    return subprocess.run(command, env=_environment(), capture_output=True, check=False).returncode == 0


def _environment() -> dict[str, str]:
    # Debian 12's client comes without the buildx plugin, which a build with BuildKit needs.
    return {**os.environ, "DOCKER_BUILDKIT": "0"}
