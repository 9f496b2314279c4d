"""The channel by gRPC's own client, `grpc.aio`: slower by half or more, and the oracle of the other one's tests."""

import grpc
import grpc.aio

from adapter.errors import CallFailed
from adapter.inference.channel import Metadata

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


class GrpcAio:
    """Unary calls to `target` (`unix:///path` or `host:port`). For one event loop."""

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
