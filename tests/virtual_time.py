"""Time that passes only when everybody waits for it: what takes seconds is tested in none, and to the microsecond."""

import asyncio


class VirtualTime(asyncio.SelectorEventLoop):
    """An event loop on which nobody waits: when all sleep, it is at once as late as the first one wants to wake."""

    def __init__(self) -> None:
        super().__init__()
        self._moment = 0.0
        select = self._selector.select  # type: ignore[attr-defined]

        def at_once(timeout: float | None = None) -> object:
            assert timeout is not None, "nobody will ever wake"
            self._moment += timeout
            return select(0)

        self._selector.select = at_once  # type: ignore[attr-defined]

    def time(self) -> float:
        return self._moment
