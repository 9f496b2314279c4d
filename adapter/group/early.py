"""Signals that come before there is anything to drain: noted at once, obeyed as soon as possible, and no failure.

Importing takes most of a second, in which SIGTERM's default would end the process with a status that looks like a crash.
Light to import, since it comes before everything else.
"""

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_noted: list[str] = []


def note() -> None:
    """Note signals from now on."""
    for number in _SIGNALS:
        signal.signal(number, lambda given, _: _noted.append(signal.Signals(given).name))


def noted() -> bool:
    """One came."""
    return bool(_noted)


def hand_over(loop: "AbstractEventLoop", heed: "Callable[[str], None]") -> None:
    """Tell `heed` the name of each that came, and from now on of each that comes."""
    for number in _SIGNALS:
        loop.add_signal_handler(number, heed, number.name)
    for name in _noted:
        heed(name)
