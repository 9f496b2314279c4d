"""The channel to TensorFlow Serving: unary calls, raw bytes both ways, whichever client carries them.

Two do: `adapter/grpc_h2` (decision 025) and gRPC's own client (`grpc_aio.py`). Whoever uses a channel sees `CallFailed`,
never a client's own exceptions.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

Metadata = Sequence[tuple[str, str]]
"""Headers of a call beside gRPC's own: lower-case names, printable ASCII values."""


class Channel(Protocol):
    """Long-lived; connects by itself, and again when the connection is lost."""

    async def unary(self, path: str, request: bytes, timeout: float, metadata: Metadata = ()) -> bytes:
        """The answer of `path` within `timeout` seconds; cancelling it cancels the call at the server.

        Raises:
            CallFailed: the server's status and words; UNAVAILABLE when it cannot be reached or the connection is lost
                on the way, DEADLINE_EXCEEDED.
        """

    async def lost(self) -> None:
        """Keeps the connection up; returns as soon as one that was established is lost."""

    async def close(self) -> None:
        """Close the connection; calls still in flight fail."""


def open_channel(target: str, client: Literal["h2", "grpc"]) -> Channel:
    """A channel to `target` (`unix:///path` or `host:port`) by that client, the other one not even imported."""
    if client == "h2":
        from adapter.grpc_h2.channel import H2Channel

        return H2Channel(target)
    from adapter.inference.grpc_aio import GrpcAio

    return GrpcAio(target)
