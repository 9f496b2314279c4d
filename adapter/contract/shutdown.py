"""`POST /shutdown`: ends this instance. Answers 202, then drains and exits."""

from collections.abc import Callable
from typing import Annotated

import msgspec

from adapter.errors import Refused
from adapter.exchange import Bodies, Exchange, response
from adapter.http.answer import Answer


class ShutdownRequest(msgspec.Struct, forbid_unknown_fields=True):
    """`grace_seconds`: how long requests in flight may take; `reason`: recorded in log, history and health."""

    grace_seconds: Annotated[float, msgspec.Meta(ge=0, le=3600)] | None = None
    reason: Annotated[str, msgspec.Meta(max_length=500)] = "asked for by POST /shutdown"


class Shutdown:
    """Starts the drain by `drain(reason, grace_seconds)`."""

    def __init__(self, bodies: Bodies, drain: Callable[[str, float | None], None]) -> None:
        self._bodies = bodies
        self._drain = drain

    async def __call__(self, exchange: Exchange) -> Answer:
        """202 and the drain begins. Raises Refused (400) naming the field that is wrong."""
        body = await self._bodies.read(exchange)
        try:
            asked = msgspec.json.decode(body or b"{}", type=ShutdownRequest)
        except msgspec.MsgspecError as error:  # malformed JSON, or a field of the wrong kind (it names the path)
            raise Refused(400, str(error)) from None
        self._drain(asked.reason, asked.grace_seconds)
        return response(202, b'{"status": "draining"}', {"Content-Type": "application/json", "Connection": "close"})
