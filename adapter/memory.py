"""Memory goes back to the platform after large requests, so that a service's size says what it holds now.

Left alone, glibc raises the size from which it asks the kernel for memory of its own to the largest it has seen, and
keeps smaller pieces in an arena for every thread. Free pages between pieces in use are given back by malloc_trim(3), and
so is the end of the first arena; the end of another is not. So there is one for all threads (decision 076). Elsewhere than
on glibc nothing here does anything.
"""

import asyncio
import ctypes
import gc
import os
from pathlib import Path

# From <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGE = 1 << 18
_DELAY_SECONDS = 0.5
# So long after the last large body memory is still given back: it may wait for its turn first.
_QUIET_SECONDS = 5.0

_libc = ctypes.CDLL(None)

# What this container may hold: cgroup v2 (Documentation/admin-guide/cgroup-v2.rst), and v1.
_BOUNDS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_UNBOUNDED = 1 << 60
_PAGE = os.sysconf("SC_PAGE_SIZE")


def configure() -> None:
    """Call it before anything large is allocated."""
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(_M_ARENA_MAX, 1)
        # As high as it goes: pages asked for anew for every large body are cleared by the kernel, which takes a quarter
        # of the time that the body takes. `Trim` gives them back once it is quiet.
        _libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        _libc.mallopt(_M_TRIM_THRESHOLD, 128 << 20)


class Trim:
    """Gives free memory back, twice a second, while large bodies come and for some seconds after the last.

    It takes about a millisecond for ten megabytes, and next to nothing where there is nothing to give.
    """

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None
        self._until = 0.0

    def after(self, size: int) -> None:
        """A body of so many bytes came."""
        if size < _LARGE or not hasattr(_libc, "malloc_trim"):
            return
        loop = asyncio.get_running_loop()
        self._until = loop.time() + _QUIET_SECONDS
        if self._timer is None:
            self._timer = loop.call_later(_DELAY_SECONDS, self._give_back)

    def _give_back(self) -> None:
        loop = asyncio.get_running_loop()
        trim()
        self._timer = loop.call_later(_DELAY_SECONDS, self._give_back) if loop.time() < self._until else None


def trim() -> None:
    """Give back every free page (malloc_trim(3)); calls of gRPC are cycles, and hold their messages until these are found."""
    gc.collect()
    _libc.malloc_trim(0)


def resident() -> int:
    """Bytes that this process holds now (proc_pid_statm(5))."""
    with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - each second
        return int(file.read().split()[1]) * _PAGE


def bound() -> int:
    """Bytes that the platform lets this process hold before it kills it; 0 = no bound is known."""
    for path in _BOUNDS:
        try:
            value = int(path.read_text())
        except (OSError, ValueError):  # not there, or "max"
            continue
        return value if value < _UNBOUNDED else 0
    return 0
