"""The channel to TensorFlow Serving: one unary call at a time of many, raw bytes both ways, whichever client carries them.

`grpc` is gRPC's own client (`grpc.aio`). Whoever uses a channel sees `CallFailed`, never a client's own exceptions.
"""

from collections.abc import Sequence
from typing import Protocol

import grpc
import grpc.aio

from adapter.errors import CallFailed

Metadata = Sequence[tuple[str, str]]
"""Headers of a call beside gRPC's own: lower-case names, printable ASCII values."""

# Tensors may be as large as TensorFlow Serving takes (server.cc: int32 max); the HTTP side bounds them.
_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.use_local_subchannel_pool", 1),
)


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


def open_channel(target: str) -> Channel:
    """A channel to `target` (`unix:///path` or `host:port`); on a running event loop."""
    return GrpcAio(target)


class GrpcAio:
    """gRPC's own client."""

    def __init__(self, target: str) -> None:
        self._channel = grpc.aio.insecure_channel(target.replace("unix://", "unix:", 1), _OPTIONS)
        self._stubs: dict[str, grpc.aio.UnaryUnaryMultiCallable] = {}

    async def unary(self, path: str, request: bytes, timeout: float, metadata: Metadata = ()) -> bytes:
        """See Channel."""
        stub = self._stubs.get(path)
        if stub is None:
            stub = self._stubs[path] = self._channel.unary_unary(path)
        try:
            answer: bytes = await stub(request, timeout=timeout, metadata=metadata or None)
        except grpc.aio.AioRpcError as error:
            raise CallFailed(error.code(), error.details() or error.code().name) from None
        return answer

    async def lost(self) -> None:
        """See Channel."""
        state = self._channel.get_state(try_to_connect=True)
        before = None
        while before is not grpc.ChannelConnectivity.READY:
            await self._channel.wait_for_state_change(state)
            before, state = state, self._channel.get_state(try_to_connect=True)

    async def close(self) -> None:
        """See Channel."""
        await self._channel.close()
