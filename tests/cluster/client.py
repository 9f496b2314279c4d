"""A client as there are many: asks Consul's DNS where the service is, then calls it; and a steady load of such calls."""

import asyncio
import json
import time
from dataclasses import dataclass, field

import aiohttp
import dns.asyncresolver
import dns.exception
import dns.resolver

MODEL = "/v1/models/half_plus_two:predict"
QUESTION = {"instances": [1.0, 2.0, 5.0]}
ANSWER = {"predictions": [2.5, 3.0, 4.5]}
_BODY = json.dumps(QUESTION).encode()
FIRST_HALF = f"POST {MODEL} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(_BODY)}\r\n\r\n".encode() + _BODY[:10]
SECOND_HALF = _BODY[10:]


class Directory:
    """Consul's DNS: where the passing instances of a service are."""

    def __init__(self, port: int) -> None:
        self._resolver = dns.asyncresolver.Resolver(configure=False)
        self._resolver.nameservers = ["127.0.0.1"]
        self._resolver.port = port
        self._resolver.lifetime = 2

    async def addresses(self, service: str) -> list[str]:
        """host:port of each instance, by the SRV records and the address records that come with them."""
        try:
            answer = await self._resolver.resolve(f"{service}.service.consul", "SRV")
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return []
        hosts = {str(each.name): str(each[0]) for each in answer.response.additional if each.rdtype == dns.rdatatype.A}
        return [f"{hosts[str(record.target)]}:{record.port}" for record in answer]

    async def hosts(self, service: str) -> list[str]:
        """The address records alone."""
        return [str(record) for record in await self._resolver.resolve(f"{service}.service.consul", "A")]


@dataclass(frozen=True)
class Call:
    """One request and what came of it."""

    started: float
    address: str | None
    """None: Consul named no instance, and nothing was sent."""
    status: int | None = None
    """None: no answer; `failure` says why."""
    correct: bool = False
    retry_after: str | None = None
    failure: str = ""

    @property
    def lost(self) -> bool:
        """Something was sent and no right answer came back."""
        return self.address is not None and not self.correct


async def ask(session: aiohttp.ClientSession, address: str) -> Call:
    """Ask the instance at `address` what the model has an answer for."""
    started = time.monotonic()
    try:
        async with session.post(f"http://{address}{MODEL}", json=QUESTION) as response:
            retry_after = response.headers.get("Retry-After")
            correct = response.status == 200 and await response.json() == ANSWER
            return Call(started, address, response.status, correct, retry_after)
    except (aiohttp.ClientError, TimeoutError) as error:
        return Call(started, address, failure=repr(error))


async def half_a_request(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A request that is in flight until `SECOND_HALF` is written."""
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(FIRST_HALF)
    await writer.drain()
    return reader, writer


async def is_ready(client: aiohttp.ClientSession, address: str) -> bool:
    """Whether /health/ready says so; a closed port does not."""
    try:
        async with client.get(f"http://{address}/health/ready") as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


def refused_for_now(call: Call) -> bool:
    """The one answer that is right while the model server is away."""
    return call.status == 503 and call.retry_after is not None


def session() -> aiohttp.ClientSession:
    """Every request on a connection of its own: the hard case for an instance that goes away."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(force_close=True), timeout=aiohttp.ClientTimeout(total=10)
    )


@dataclass
class Load:
    """`rate` requests a second for at most `seconds`, each to an instance that the directory names at that moment.

    async with Load(directory, "service") as load:
        await load.done(50)
    """

    directory: Directory
    service: str
    rate: float = 50
    seconds: float = 60
    calls: list[Call] = field(default_factory=list)

    async def __aenter__(self) -> "Load":
        self._stopped = asyncio.Event()
        self._more = asyncio.Condition()
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopped.set()
        await self._task

    async def done(self, count: int) -> None:
        """Wait until `count` further requests are done."""
        target = len(self.calls) + count
        async with self._more:
            await self._more.wait_for(lambda: len(self.calls) >= target)

    async def _run(self) -> None:
        began = time.monotonic()
        async with session() as client, asyncio.TaskGroup() as group:
            for number in range(int(self.rate * self.seconds)):
                try:
                    async with asyncio.timeout_at(asyncio.get_running_loop().time() + self._wait(began, number)):
                        await self._stopped.wait()
                    return
                except TimeoutError:
                    group.create_task(self._call(client))

    def _wait(self, began: float, number: int) -> float:
        return max(0.0, began + number / self.rate - time.monotonic())

    async def _call(self, client: aiohttp.ClientSession) -> None:
        addresses = await self.directory.addresses(self.service)
        call = await ask(client, addresses[0]) if addresses else Call(time.monotonic(), None)
        async with self._more:
            self.calls.append(call)
            self._more.notify_all()
