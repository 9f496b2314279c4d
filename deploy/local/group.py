"""The embedded group: both tasks on this machine, started, healed and stopped as Nomad does with `jobs/serving.nomad.hcl`.

    prestart: tfs (sidecar) ── runs ──► main: adapter (leader)
    tfs dies      → started again after RESTART_DELAY, at most RESTART_ATTEMPTS times in RESTART_INTERVAL; then the
                    adapter drains and the group fails as one
    adapter ends  → the group ends: the leader is dead, so tfs is stopped
    Ctrl-C        → SIGTERM to the adapter, which drains; then SIGTERM to tfs; a second one forces
    POST /shutdown → the adapter drains and has the task API stop the allocation: as Ctrl-C
    with `watch`: a file of the source is saved → tfs loads the models anew where they changed, and a new adapter takes
                    the place of the old one on the same port; one that ends by itself waits for the next change

The allocation's directory lies under `--dir` and is removed at the end.
"""

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import uuid
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

from adapter.bundle.manifest import BundleError, Manifest, read
from deploy.bundle.archive import unpack
from deploy.bundle.source import build
from deploy.bundle.tfs import MONITORING, models_config
from deploy.local import watch
from deploy.local.console import Console
from deploy.local.task import Task
from deploy.local.task_api import TaskApi

RESTART_DELAY = 1.0
RESTART_ATTEMPTS = 5
RESTART_INTERVAL = 60.0
KILL_TIMEOUT = 30.0
TFS_KILL_TIMEOUT = 5.0
# What `--grpc_max_threads` of the model server and the adapter's bound are set to, together.
MAX_CALLS = 64


class EmbeddedGroup:
    """One allocation of the group `serving` for the bundle at `source` (a directory, or a packed file)."""

    def __init__(
        self, source: Path, port: int, directory: Path, console: Console, watch: bool = False, signals: bool = True
    ) -> None:
        """`watch`: follow the changes of a source directory. `signals`: end by SIGINT and SIGTERM, not by `stop` alone."""
        self._source = source
        self._watch = watch
        self._signals = signals
        self._port = port
        self._console = console
        self._id = str(uuid.uuid4())
        self._allocation = directory.resolve() / self._id
        self._short = Path(tempfile.mkdtemp(prefix="tandem-"))  # a socket's path has at most 107 bytes (unix(7))
        self._stop = asyncio.Event()
        self._force: Callable[[], None] = lambda: None
        self.ready = asyncio.Event()
        self._leader_ended = False
        self._reload_began: float | None = None
        self._listening: socket.socket | None = None

    def stop(self) -> None:
        """End as by Ctrl-C."""
        self._stop.set()

    async def run(self) -> int:
        """Run until the adapter ends or a signal comes. Exit status: the adapter's, or 1 when the group failed.

        Raises:
            BundleError: the bundle cannot be used; nothing was started.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM) if self._signals else ():
            loop.add_signal_handler(number, self._interrupt)
        api = TaskApi(self._short / "api.sock", self._id, self._stop.set)
        try:
            manifest = await asyncio.to_thread(self._place)
            await api.start()
            return await self._supervise(manifest)
        finally:
            await api.close()
            if self._listening is not None:
                self._listening.close()
            shutil.rmtree(self._allocation, ignore_errors=True)
            shutil.rmtree(self._short, ignore_errors=True)

    def _interrupt(self) -> None:
        """The first time, stop; the second time, the adapter is told again."""
        if self._stop.is_set():
            self._force()
        self._stop.set()

    def _place(self) -> Manifest:
        """What Nomad's artifact and template blocks do before a task starts."""
        for part in ("data", "logs", "tmp"):
            (self._allocation / "alloc" / part).mkdir(parents=True)
        (self._short / "tmp").symlink_to(self._allocation / "alloc" / "tmp")
        bundle = self._allocation / "alloc" / "bundle"
        if self._source.is_dir():
            manifest = build(self._source)
            bundle.symlink_to(self._source.resolve())
        else:
            unpack(self._source, bundle)
            manifest = read(bundle)
        local = self._allocation / "tfs" / "local"
        local.mkdir(parents=True)
        (local / "models.config").write_text(models_config(manifest, str(bundle)))
        (local / "monitoring.config").write_text(MONITORING)
        return manifest

    def _tasks(self, manifest: Manifest) -> tuple[Task, Task]:
        group = {
            "NOMAD_ALLOC_ID": self._id,
            "NOMAD_ALLOC_NAME": f"{manifest.name}.serving[0]",
            "NOMAD_ALLOC_INDEX": "0",
            "NOMAD_GROUP_NAME": "serving",
            "NOMAD_JOB_ID": manifest.name,
            "NOMAD_JOB_NAME": manifest.name,
            "NOMAD_NAMESPACE": "default",
            "NOMAD_REGION": "global",
            "NOMAD_DC": "local",
            "NOMAD_PORT_http": str(self._port),
        }
        monitoring = free_port()
        local = self._allocation / "tfs" / "local"
        tfs = [sys.executable, "-m", "deploy.local.model_server", "--port=0"]
        tfs += [f"--grpc_socket_path={self._short}/tmp/tfs.sock", f"--grpc_max_threads={MAX_CALLS}"]
        tfs += [f"--rest_api_port={monitoring}", f"--monitoring_config_file={local}/monitoring.config"]
        tfs += [f"--model_config_file={local}/models.config", "--allow_version_labels_for_unavailable_models=true"]
        adapter = {
            "ADAPTER_HOST": os.environ.get("ADAPTER_HOST", "127.0.0.1"),
            "ADAPTER_BUNDLE": str(self._allocation / "alloc" / "bundle"),
            "ADAPTER_TFS_GRPC": f"unix://{self._short}/tmp/tfs.sock",
            "ADAPTER_TFS_METRICS_URL": f"http://127.0.0.1:{monitoring}/monitoring/prometheus/metrics",
            "ADAPTER_TFS_MAX_CALLS": str(MAX_CALLS),
            "ADAPTER_TASK_API": str(self._short / "api.sock"),
        }
        leader = [sys.executable, "-m", "adapter"]
        descriptors = []
        if self._watch:
            self._listening = listening(adapter["ADAPTER_HOST"], self._port)
            descriptors = [self._listening.fileno()]
            adapter["ADAPTER_LISTEN_FD"] = str(descriptors[0])
        return (
            Task("tfs", tfs, group, self._allocation, self._tfs_says),
            Task("adapter", leader, {**group, **adapter}, self._allocation, self._adapter_says, descriptors),
        )

    async def _supervise(self, manifest: Manifest) -> int:
        tfs, adapter = self._tasks(manifest)
        self._console.say(f"bundle {manifest.name}@{manifest.version}, allocation {self._id[:8]}")
        self._console.say("tfs is Tandem's local model server over TensorFlow, not the stock image")
        await tfs.start()
        await adapter.start()
        sidecar = asyncio.create_task(self._keep(tfs))
        leader = asyncio.create_task(self._follow(adapter) if self._watch else adapter.wait())
        stop = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({sidecar, leader, stop}, return_when=asyncio.FIRST_COMPLETED)
            if leader.done():
                self._leader_ended = True
                self._console.say(f"adapter ended with status {leader.result()}; stopping tfs")
                return leader.result()
            failed = sidecar.done()
            self._console.say("tfs failed for good: the group fails as one" if failed else "stopping: adapter first")
            self._force = partial(adapter.signal, signal.SIGTERM)
            status = await adapter.stop(KILL_TIMEOUT)
            self._leader_ended = True
            return 1 if failed else status
        finally:
            stop.cancel()
            sidecar.cancel()
            leader.cancel()
            await tfs.stop(TFS_KILL_TIMEOUT)

    async def _follow(self, adapter: Task) -> int:
        """One adapter after the other, whenever the source changes."""
        saved = watch.changes(self._source)
        while True:
            changes = asyncio.ensure_future(anext(saved))
            ended = asyncio.create_task(adapter.wait())
            try:
                await asyncio.wait({changes, ended}, return_when=asyncio.FIRST_COMPLETED)
                if ended.done():
                    self._console.say(f"adapter ended with status {ended.result()}; waiting for a change")
                await self._reload(adapter, await changes)
            finally:
                changes.cancel()
                ended.cancel()

    async def _reload(self, adapter: Task, changed: frozenset[str]) -> None:
        self._reload_began = asyncio.get_running_loop().time()
        self._console.say(f"changed: {', '.join(sorted(changed)[:3])}{' …' if len(changed) > 3 else ''}")
        try:
            manifest = await asyncio.to_thread(build, self._source)
        except BundleError as error:
            self._console.say(f"not reloaded: {error}")
            return
        await adapter.stop(KILL_TIMEOUT)
        reloads = [adapter.start()]  # it takes longer to import than tfs to unload
        if watch.touches_models(changed):
            reloads.append(self._reload_models(manifest))
        await asyncio.gather(*reloads)

    async def _reload_models(self, manifest: Manifest) -> None:
        bundle = str(self._allocation / "alloc" / "bundle")
        try:
            await watch.reload_models(f"unix://{self._short}/tmp/tfs.sock", models_config(manifest, bundle))
        except watch.ReloadFailed as error:
            self._console.say(f"tfs does not load the models: {error}")

    async def _keep(self, tfs: Task) -> None:
        """Restart the sidecar whenever it ends; returns when it has failed for good."""
        loop = asyncio.get_running_loop()
        restarts: deque[float] = deque()
        while True:
            out_of_memory = kernel_oom_kills()
            status = await tfs.wait()
            if status < 0:  # as the job's tfs.sh says it
                because = ", out of memory" if kernel_oom_kills() > out_of_memory else ""
                tfs.note(f"Killed by {signal.Signals(-status).name}: tensorflow_model_server{because}\n")
            while restarts and loop.time() - restarts[0] > RESTART_INTERVAL:
                restarts.popleft()
            if len(restarts) == RESTART_ATTEMPTS:
                return
            restarts.append(loop.time())
            self._console.say(f"tfs ended ({_ending(status)}); restarting in {RESTART_DELAY:g} s")
            await asyncio.sleep(RESTART_DELAY)
            await tfs.start()

    def _tfs_says(self, stream: str, line: str) -> None:
        """While the adapter runs, it says this in the common log."""
        if self._leader_ended:
            self._console.task("tfs", stream, line)

    def _adapter_says(self, stream: str, line: str) -> None:
        self._console.task("adapter", stream, line)
        if '"tandem.state"' not in line or json.loads(line)["attributes"].get("to") != "ready":
            return
        if not self.ready.is_set():
            self.ready.set()
            self._greet()
        elif self._reload_began is not None:
            self._console.say(f"reloaded in {asyncio.get_running_loop().time() - self._reload_began:.1f} s")
            self._reload_began = None

    def _greet(self) -> None:
        """Ready for the first time: where it is, and a request that works."""
        url = f"http://127.0.0.1:{self._port}"
        bundle = self._allocation / "alloc" / "bundle"
        manifest = read(bundle)
        name = manifest.models[0].name
        request = self._source / "request.json"
        example = next((each for each in manifest.examples if each.content_type == "application/json"), None)
        if example is not None:
            file = os.path.relpath((self._source if self._source.is_dir() else bundle) / example.request)
            curl = f"curl -d @{file} {url}{manifest.path_of(example)}"
        elif request.is_file():
            curl = f"curl -d @{os.path.relpath(request)} {url}/v1/models/{name}:predict"
        else:
            curl = f"curl {url}/v1/models/{name}/metadata"
        for line in ("ready", f"  REST     {url}", f"  Swagger  {url}/docs", f"  try      {curl}"):
            self._console.say(line)


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens there, for adapters to inherit. Raises BundleError where somebody else does."""
    try:
        return socket.create_server((host, port), backlog=1024)
    except OSError as error:
        raise BundleError(f"{host}:{port}: {error}") from None


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def kernel_oom_kills(counters: Path = Path("/proc/vmstat")) -> int:
    """How many processes of this machine the kernel has killed for want of memory."""
    fields = (line.split() for line in counters.read_text().splitlines())
    return next((int(value) for name, value in fields if name == "oom_kill"), 0)


def _ending(status: int) -> str:
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
