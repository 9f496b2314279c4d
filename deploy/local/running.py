"""The embedded group for as long as a block of code needs it, quiet but for why it did not get ready."""

import asyncio
import io
import json
import tempfile
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from adapter.bundle.manifest import BundleError
from deploy.local.console import Console
from deploy.local.group import EmbeddedGroup, free_port

READY_TIMEOUT = 180.0
# Lines kept of what both tasks say.
KEPT = 200


class _Listening(Console):
    """Shows nothing; keeps what could be the reason why the group does not get ready."""

    def __init__(self) -> None:
        super().__init__(io.StringIO())
        self.reasons: deque[str] = deque(maxlen=KEPT)

    def task(self, name: str, stream: str, line: str) -> None:
        try:
            record = json.loads(line)
        except ValueError:
            record = {"body": f"{name}: {line}", "severity_text": "ERROR" if stream == "stderr" else ""}
        if isinstance(record, dict) and record.get("severity_text") in ("ERROR", "FATAL"):
            self.reasons.append(str(record.get("body", "")))

    def say(self, text: str) -> None:
        """The group's own word is no reason."""


@asynccontextmanager
async def running(source: Path) -> AsyncIterator[str]:
    """The base URL of the service of this bundle, ready.

    Raises:
        BundleError: it does not get ready; the last thing that its tasks complained about says why.
    """
    console = _Listening()
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="tandem-") as directory:
        group = EmbeddedGroup(source, port, Path(directory), console, signals=False)
        life = asyncio.create_task(group.run())
        ready = asyncio.create_task(group.ready.wait())
        try:
            await asyncio.wait({life, ready}, timeout=READY_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                if life.done():
                    life.result()  # a BundleError of its own says more
                raise BundleError(f"{source} does not get ready: {_why(console.reasons)}")
            yield f"http://127.0.0.1:{port}"
        finally:
            ready.cancel()
            group.stop()
            await asyncio.gather(life, return_exceptions=True)


def _why(reasons: deque[str]) -> str:
    return reasons[-1] if reasons else f"no reason was logged within {READY_TIMEOUT:g} s"
