"""Nomad's task API as far as the adapter asks it: stop this allocation."""

from collections.abc import Callable
from pathlib import Path

from aiohttp import web


class TaskApi:
    """Serves it at a unix socket; `stop` is called when the allocation is to be stopped."""

    def __init__(self, socket: Path, allocation: str, stop: Callable[[], None]) -> None:
        self._socket = socket
        self._stop = stop
        application = web.Application()
        application.router.add_put(f"/v1/allocation/{allocation}/stop", self._stop_allocation)
        self._runner = web.AppRunner(application, access_log=None)

    async def start(self) -> None:
        """Listen."""
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self._socket)).start()

    async def close(self) -> None:
        """Listen no more."""
        await self._runner.cleanup()

    async def _stop_allocation(self, _: web.Request) -> web.Response:
        self._stop()
        return web.json_response({"EvalID": "", "Index": 0})
