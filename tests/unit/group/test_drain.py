"""The drain: whoever begins it, whatever comes while it lasts, it ends within its grace."""

import asyncio
import time

from adapter.group.drain import Drain


class Port:
    """The listening side, and when it was closed."""

    closed = 0.0

    async def stop(self) -> None:
        self.closed = time.monotonic()


class Connections:
    """One request in flight, until `answered` is set."""

    def __init__(self) -> None:
        self.answered = asyncio.Event()
        self.awaited = asyncio.Event()
        self.cut_off = False

    def pre_shutdown(self) -> None:
        pass

    async def shutdown(self, timeout: float | None) -> None:
        self.awaited.set()
        try:
            async with asyncio.timeout(timeout):
                await self.answered.wait()
        except TimeoutError:
            self.cut_off = True


async def finish(drain: Drain, connections: Connections, delay: float = 0) -> bool:
    async with asyncio.timeout(5):
        return await drain.finish(Port(), connections, delay)


async def test_it_waits_for_the_answer() -> None:
    drain, connections = Drain(60), Connections()
    drain.signal("SIGTERM")
    finished = asyncio.create_task(finish(drain, connections))
    await asyncio.sleep(0)
    assert not finished.done()
    connections.answered.set()
    assert await finished
    assert not connections.cut_off


async def test_it_cuts_off_what_is_not_answered_within_the_grace() -> None:
    drain, connections = Drain(0.05), Connections()
    drain.signal("SIGTERM")
    assert not await finish(drain, connections)
    assert connections.cut_off


async def test_a_second_signal_forces_at_any_time() -> None:
    for delay in (60.0, 0.0):
        drain, connections = Drain(60), Connections()
        drain.signal("SIGTERM")
        finished = asyncio.create_task(finish(drain, connections, delay))
        await (asyncio.sleep(0) if delay else connections.awaited.wait())
        drain.signal("SIGINT")
        assert not await finished
        assert connections.cut_off


async def test_a_signal_after_a_shutdown_does_not_force_but_bounds_the_grace() -> None:
    drain, connections = Drain(0.1), Connections()
    drain.end("moving house", 3600)
    finished = asyncio.create_task(finish(drain, connections))
    await connections.awaited.wait()
    drain.signal("SIGTERM")
    await asyncio.sleep(0)
    assert not connections.cut_off
    assert not await finished
    assert (drain.reason, drain.signals, drain.for_good) == ("moving house", 1, True)


async def test_a_second_shutdown_can_only_shorten() -> None:
    drain, connections = Drain(60), Connections()
    drain.end("first", 0.1)
    drain.end("second", 3600)
    drain.end("third")
    assert not await finish(drain, connections)
    drain, connections = Drain(60), Connections()
    drain.signal("SIGTERM")
    finished = asyncio.create_task(finish(drain, connections))
    await connections.awaited.wait()
    drain.end("now", 0)
    assert not await finished
    assert drain.reason == "signal SIGTERM"


async def test_the_port_stays_open_for_the_delay() -> None:
    drain, connections, port = Drain(1), Connections(), Port()
    connections.answered.set()
    drain.signal("SIGTERM")
    began = time.monotonic()
    assert await drain.finish(port, connections, 0.1)
    assert port.closed - began >= 0.1


async def test_a_failure_of_ours_is_remembered() -> None:
    drain = Drain(1)
    drain.fail("internal failure: KeyError")
    assert drain.failed
    assert drain.begun.is_set()
    assert not drain.for_good
