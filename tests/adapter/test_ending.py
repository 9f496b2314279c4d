"""`POST /shutdown` in an allocation ends it for good: stopped through Nomad's task API, or failed where that is refused."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from tests.adapters import Adapter, event, state

ALLOCATION = "11111111-2222-3333-4444-555555555555"


class Nomad:
    """The task API of an allocation at DIRECTORY/secrets/api.sock; answers `status` and remembers what it was asked."""

    def __init__(self, directory: Path, status: int = 200) -> None:
        self.status = status
        self.asked: list[tuple[str, str, str | None]] = []
        self.directory = directory
        for part in ("secrets", "alloc/data", "alloc/logs"):
            (directory / part).mkdir(parents=True, exist_ok=True)
        (directory / "secrets" / "nomad_token").write_text("the-token\n")
        self._loop = asyncio.new_event_loop()
        self._asked = threading.Semaphore(0)

    def __enter__(self) -> "Nomad":
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    @property
    def environment(self) -> dict[str, str]:
        return environment(self.directory)

    def wait_until_asked(self) -> None:
        assert self._asked.acquire(timeout=30)

    async def _answer(self, request: web.Request) -> web.Response:
        if request.method != "GET":  # what runs here is asked for, too
            self.asked.append((request.method, request.path_qs, request.headers.get("X-Nomad-Token")))
            self._asked.release()
        return web.Response(status=self.status, text="Permission denied" if self.status == 403 else "{}")

    def _serve(self) -> None:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(application)
        self._loop.run_until_complete(runner.setup())
        site = web.UnixSite(runner, str(self.directory / "secrets" / "api.sock"))
        self._loop.run_until_complete(site.start())
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()


def environment(directory: Path) -> dict[str, str]:
    return {
        "NOMAD_ALLOC_ID": ALLOCATION,
        "NOMAD_ALLOC_DIR": str(directory / "alloc"),
        "NOMAD_SECRETS_DIR": str(directory / "secrets"),
        "ADAPTER_TFS_GRPC": f"unix://{directory}/none.sock",
    }


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory whose sockets have short paths."""
    with tempfile.TemporaryDirectory(prefix="tandem-") as directory:
        yield Path(directory)


def test_it_has_nomad_stop_the_allocation_and_leaves_when_nomad_says_so(short: Path) -> None:
    with Nomad(short) as nomad, Adapter(nomad.environment) as adapter:
        assert adapter.request("POST", "/shutdown", '{"reason": "moving house"}').status == 202
        nomad.wait_until_asked()
        adapter.wait_for(state("stopped"))
        assert adapter.process.poll() is None, "an exit before Nomad's signal would be restarted"
        assert adapter.stop(signal.SIGTERM) == 0
        path = f"/v1/allocation/{ALLOCATION}/stop?no_shutdown_delay=true"
        assert nomad.asked == [("PUT", path, "the-token")]
    assert not (short / "alloc" / "data" / "ended.json").exists()


@pytest.mark.parametrize("how", ["refused", "absent"])
def test_where_that_is_not_allowed_it_fails_and_every_restart_within_the_allocation_fails_at_once(
    short: Path, how: str
) -> None:
    with Nomad(short, status=403) as nomad:
        given = {**nomad.environment, **({"ADAPTER_TASK_API": ""} if how == "absent" else {})}
        with Adapter(given) as adapter:
            adapter.request("POST", "/shutdown", '{"reason": "moving house"}')
            assert adapter.wait() == 1
            said = adapter.wait_for(event("tandem.ending"))["body"]
    assert ("Permission denied" if how == "refused" else "no task API is configured") in said
    again = subprocess.run(
        [sys.executable, "-m", "adapter"], env={**os.environ, **given}, capture_output=True, text=True, check=False
    )
    assert again.returncode == 1
    assert again.stderr == "adapter: this allocation was ended for good: moving house\n"
    with Adapter({**given, "NOMAD_ALLOC_ID": "another"}) as handed_on:  # the disk, to the next allocation
        assert handed_on.request("GET", "/health/live").status == 200


def test_a_stop_by_the_platform_meanwhile_needs_no_task_api(short: Path) -> None:
    with Nomad(short) as nomad, Adapter(nomad.environment, shutdown_delay=60) as adapter:
        adapter.request("POST", "/shutdown")
        adapter.wait_for(state("draining"))
        adapter.process.send_signal(signal.SIGTERM)
        assert adapter.stop(signal.SIGINT) == 0  # not merged with the first, as two alike are
        assert nomad.asked == []


def test_outside_an_allocation_it_exits(short: Path) -> None:
    with Adapter(tfs_grpc=f"unix://{short}/none.sock") as adapter:
        adapter.request("POST", "/shutdown")
        assert adapter.wait() == 0
