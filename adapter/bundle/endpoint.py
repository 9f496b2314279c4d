"""`POST /predict`: the bundle's own question and answer, by its handler. A thin face of `service.py`."""

from adapter.bundle.service import Service
from adapter.encoding import encoded
from adapter.exchange import Bodies, Exchange
from adapter.http.answer import Answer

_JSON = {"Content-Type": "application/json"}


class Predict:
    """Answers with the handler; bodies of more than `max_body` bytes are refused before they are read."""

    def __init__(self, service: Service, bodies: Bodies, max_body: int | None) -> None:
        self._service = service
        self._bodies = bodies
        self._max_body = max_body

    async def __call__(self, exchange: Exchange) -> Answer:
        exchange.honour_timeout()
        headers = exchange.request.headers
        body = await self._bodies.read(exchange, self._max_body)
        exchange.lap("read")
        answer = await self._service.answer(exchange, headers.get("Content-Type", ""), body)
        return await encoded(headers, answer, _JSON)
