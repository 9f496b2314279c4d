"""Registration with Consul from here, for services that no platform registers. Under Nomad the job's service block does it.

ready      → passing           a TTL check is told so several times in its time; an HTTP check asks /health/ready
not ready  → critical          at once for a TTL check, with the reason
drain      → deregistered      before anything else
an agent that has lost it      → registered again (it restarted, or somebody removed it)
a process that just dies       → critical when the TTL is over, removed after REMOVE_AFTER
"""

import asyncio
import logging
import socket
from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from adapter.group.consul import Agent, ConsulFailed
from adapter.group.state import Group

TTL_SECONDS = 10
REFRESH_SECONDS = 3.0
LOOK_SECONDS = 0.2
REMOVE_AFTER = "10m"

log = logging.getLogger(__name__)


class Registration:
    """This instance as `service_id` of `service` at `address`; `check` is `ttl` or `http`."""

    def __init__(
        self,
        agent: Agent,
        group: Group,
        service: str,
        service_id: str,
        address: tuple[str, int],
        tags: list[str],
        meta: Mapping[str, str],
        check: str,
        *,
        tls: bool = False,
    ) -> None:
        self._agent = agent
        self._group = group
        self._service = service
        self._id = service_id
        self._address = address
        self._tags = tags
        self._meta = dict(meta)
        self._check = check
        self._scheme = "https" if tls else "http"
        self._left = False
        self._registered = False
        self._told: tuple[bool, str] | None = None

    async def run(self) -> None:
        """Register, keep Consul told of the state, and register again when the agent has lost it; for ever."""
        loop = asyncio.get_running_loop()
        due, failing = 0.0, False
        while not self._left:
            state = (self._group.ready, self._group.reason)
            if loop.time() >= due or state != self._told:
                try:
                    await self._agent.call(partial(self._tell, ready=state[0], reason=state[1]))
                    self._told, failing = state, False
                except ConsulFailed as error:
                    if not failing:
                        log.warning("Not registered with Consul at this moment: %s", error)
                    failing, self._told = True, state
                due = loop.time() + REFRESH_SECONDS
            await asyncio.sleep(LOOK_SECONDS)

    async def leave(self) -> None:
        """Be found no more. Consul forgets by itself what it cannot be told."""
        self._left = True
        try:
            await self._agent.call(lambda client: client.agent.service.deregister(self._id))
            log.info("Deregistered from Consul", extra={"attributes": {"event.name": "tandem.deregistered"}})
        except ConsulFailed as error:
            log.warning("Not deregistered from Consul: %s", error)

    def _tell(self, client: Any, ready: bool, reason: str) -> None:
        """In the agent's thread: one look at what it knows, and what it does not know yet."""
        if self._left:
            return
        if self._id not in client.agent.services():
            client.agent.service.register(
                self._service,
                service_id=self._id,
                address=self._address[0],
                port=self._address[1],
                tags=self._tags,
                meta=self._meta,
                check=self._described(),
                extra_checks=[],
            )
            said = "again: the agent had lost it" if self._registered else f"as {self._id}"
            self._registered = True
            log.info("Registered with Consul %s", said, extra={"attributes": {"event.name": "tandem.registered"}})
        if self._check == "ttl":
            tell = client.agent.check.ttl_pass if ready else client.agent.check.ttl_fail
            tell(f"service:{self._id}", notes=reason[:512])

    def _described(self) -> dict[str, Any]:
        common = {"Name": "ready", "CheckID": f"service:{self._id}", "DeregisterCriticalServiceAfter": REMOVE_AFTER}
        if self._check == "ttl":
            return {**common, "TTL": f"{TTL_SECONDS}s", "Status": "critical"}
        host, port = self._address
        at = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        url = f"{self._scheme}://{at}/health/ready"
        # The agent asks an address, which a certificate seldom names.
        return {**common, "HTTP": url, "TLSSkipVerify": True, "Interval": "1s", "Timeout": "1s"}


def address_of(advertise: str, host: str, port: int, consul: str) -> tuple[str, int]:
    """Where others reach us: as the settings say, or where we listen; for every address, the one we have towards Consul."""
    if advertise:
        name, _, number = advertise.rpartition(":")
        return name.strip("[]"), int(number)
    if host not in ("", "0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        return host, port
    agent = urlsplit(consul if "://" in consul else f"http://{consul}").hostname or "127.0.0.1"
    family = socket.AF_INET6 if ":" in agent else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:  # no packet is sent: connect(2) only chooses the route
        try:
            probe.connect((agent, 1))
            return str(probe.getsockname()[0]), port
        except OSError:
            return socket.gethostname(), port
