"""Where a log stream writes, in tests: it tells when it was written to, by whatever thread."""

import asyncio
import io
import threading
from collections.abc import Callable

from typing_extensions import Buffer


class Output(io.BytesIO):
    """Bytes in memory, and `until` they are what is wanted."""

    def __init__(self) -> None:
        super().__init__()
        self._more = threading.Condition()

    def write(self, data: Buffer) -> int:
        with self._more:
            written = super().write(data)
            self._more.notify_all()
        return written

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for a write after which this holds."""
        assert await asyncio.to_thread(self.wait, condition), self.getvalue()

    def wait(self, condition: Callable[[], object]) -> object:
        """The same for a thread; whether it came to hold within half a minute."""
        with self._more:
            return self._more.wait_for(condition, 30)
