"""Ending this instance for good, both tasks: an exit alone would be restarted by Nomad.

    allowed       PUT /v1/allocation/ID/stop over Nomad's task API (secrets/api.sock), as this workload; Nomad stops both
                  tasks in its order and starts another instance elsewhere. The policy: deploy/nomad/stop-self.policy.hcl
    not allowed   exit with status 1 and a note for those who are restarted after us (`ended.py`): the allocation fails
                  as one, and is replaced

Outside an allocation there is nobody to restart it: it exits.
"""

import asyncio
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from adapter.group import ended
from adapter.group.drain import Drain

log = logging.getLogger(__name__)

ANSWER_SECONDS = 5.0
# Between Nomad's "it will be stopped" and the SIGTERM: one evaluation, and the client's next look.
SIGNAL_SECONDS = 30.0


class NotAllowed(Exception):
    """The allocation cannot be stopped from here; the message says why."""


@dataclass(frozen=True)
class TaskApi:
    """Nomad's task API at the unix socket `socket`, spoken to with this workload's token."""

    socket: Path

    async def stop(self, allocation: str) -> None:
        """Have the allocation stopped and replaced. Raises NotAllowed."""
        # Callers have left already: no_shutdown_delay.
        url = f"http://task-api/v1/allocation/{allocation}/stop?no_shutdown_delay=true"
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.socket)), timeout=timeout) as session,
                session.put(url, headers={"X-Nomad-Token": self._token()}) as answer,
            ):
                if answer.status != 200:
                    raise NotAllowed(f"Nomad's task API answers {answer.status}: {(await answer.text()).strip()[:200]}")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise NotAllowed(f"Nomad's task API cannot be reached: {error or type(error).__name__}") from None

    def _token(self) -> str:
        """The workload's identity; the file is renewed, the environment is not."""
        try:
            return (self.socket.parent / "nomad_token").read_text(encoding="ascii").strip()
        except OSError:
            return os.environ.get("NOMAD_TOKEN", "")


async def end(drain: Drain, allocation: str, data: Path, api: TaskApi | None) -> int:
    """End the drained instance; the exit status that this process is to have."""
    try:
        if api is None:
            raise NotAllowed("no task API is configured")
        await api.stop(allocation)
        log.info("Nomad stops this allocation")
        async with asyncio.timeout(SIGNAL_SECONDS):
            await drain.signalled.wait()
    except NotAllowed as error:
        why = str(error)
    except TimeoutError:
        why = f"Nomad said that it stops this allocation, and did not within {SIGNAL_SECONDS:g} s"
    else:
        return 0
    attributes = {"event.name": "tandem.ending"}
    log.warning("Ending by failing the allocation: %s", why, extra={"attributes": attributes})
    try:
        ended.note(data, allocation, drain.reason)
    except OSError as error:
        log.error("Nomad will restart this task: the note that it has ended cannot be left: %s", error)
    return 1
