"""Memory goes back to the platform after large requests, so that a service's size says what it holds now.

Left alone, glibc raises the size from which it asks the kernel for memory of its own to the largest it has seen, keeps
smaller pieces in an arena for every thread, and gives back only the top of each (mallopt(3), malloc_trim(3)). Elsewhere
than on glibc nothing here does anything.
"""

import asyncio
import ctypes
import os
from pathlib import Path

# From <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGE = 4 << 20
_DELAY_SECONDS = 0.5

_libc = ctypes.CDLL(None)

# What this container may hold: cgroup v2 (Documentation/admin-guide/cgroup-v2.rst), and v1.
_BOUNDS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_UNBOUNDED = 1 << 60
_PAGE = os.sysconf("SC_PAGE_SIZE")


def configure() -> None:
    """Call it before anything large is allocated."""
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(_M_ARENA_MAX, 2)
        _libc.mallopt(_M_MMAP_THRESHOLD, 1 << 20)
        _libc.mallopt(_M_TRIM_THRESHOLD, 4 << 20)


class Trim:
    """Gives free memory back half a second after a large body came; it takes about a millisecond for ten megabytes."""

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None

    def after(self, size: int) -> None:
        """A body of so many bytes came."""
        if size >= _LARGE and self._timer is None and hasattr(_libc, "malloc_trim"):
            self._timer = asyncio.get_running_loop().call_later(_DELAY_SECONDS, self._trim)

    def _trim(self) -> None:
        self._timer = None
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
