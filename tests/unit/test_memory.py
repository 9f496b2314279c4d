"""Memory that large requests took goes back to the platform."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from adapter import memory
from tests.virtual_time import VirtualTime

SCRIPT = """
import threading
from pathlib import Path
from adapter import memory

memory.configure()
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1])
def use():
    global full, kept
    pieces = [None] * 500
    for place in range(500):
        pieces[place] = bytes(100_000)  # 50 MB in pieces that glibc keeps on a heap, the last at its top
    full = resident()
    pieces.clear()
    kept = resident()
thread = threading.Thread(target=use)
{way}
memory.trim()
print(full - kept, kept - resident())
"""


@pytest.mark.skipif(os.confstr("CS_GNU_LIBC_VERSION") is None, reason="glibc alone keeps memory in this way")
@pytest.mark.parametrize(
    "way", ["thread.run()", "thread.start(); thread.join()"], ids=["main thread", "another thread"]
)
def test_memory_that_glibc_keeps_is_given_back_whichever_thread_took_it(way):
    script = SCRIPT.format(way=way)
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    by_itself, by_trim = map(int, found.stdout.split())
    pages = 25_000_000 // os.sysconf("SC_PAGE_SIZE")
    assert by_itself < pages < by_trim


def trims_of(sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> int:
    """How often memory is given back in the minute after bodies of these sizes came at one time."""
    trims = []
    monkeypatch.setattr(memory, "trim", lambda: trims.append(1))

    async def minute() -> None:
        trim = memory.Trim()
        for size in sizes:
            trim.after(size)
        await asyncio.sleep(60)

    with asyncio.Runner(loop_factory=VirtualTime) as runner:
        runner.run(minute())
    return len(trims)


def test_many_large_bodies_ask_for_one_trim_at_a_time_and_one_after_the_last(monkeypatch):
    monkeypatch.setattr(memory, "_DELAY_SECONDS", 2)
    monkeypatch.setattr(memory, "_QUIET_SECONDS", 3)
    assert trims_of([memory._LARGE, memory._LARGE * 2, 10], monkeypatch) == 2


def test_small_bodies_ask_for_none(monkeypatch):
    assert trims_of([memory._LARGE - 1], monkeypatch) == 0
