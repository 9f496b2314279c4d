"""A handler's service: whose fault it is where the model's answer is of no use."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from adapter.bundle.interface import Interface
from adapter.bundle.service import Service
from adapter.errors import RequestFailed
from adapter.exchange import Exchange
from adapter.inference.plane import DataPlane
from adapter.inference.signatures import Endpoint, Servable
from adapter.inference.tensor import FLOAT, Signature, Tensor
from tests.unit.bundle.test_trial import Shows
from tests.unit.inference.test_plane import MAX_CALLS, Quantized

ENDPOINT = Endpoint(Servable("m"), Signature("serving_default", "", {}, {}), b"")


class Asking:
    """A way to the model and no further."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane

    async def answer(self, exchange: Exchange, body: object) -> bytes:
        inputs = {"x": Tensor(FLOAT, np.zeros(1, np.float32))}
        await self._plane.predict(ENDPOINT, inputs, exchange.deadline)
        raise AssertionError


@pytest.mark.parametrize("coalesced", [frozenset(), frozenset({"m"})], ids=["alone", "coalesced"])
async def test_an_output_of_a_type_without_tensors_is_no_fault_of_the_inputs(
    coalesced: frozenset[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plane = DataPlane(Quantized(1), coalesced, MAX_CALLS, 64)
    model: Any = SimpleNamespace(name="m", version=1)
    bundle: Any = SimpleNamespace(handler="", models=[model], limits=SimpleNamespace(timeout=None, max_batch=1))
    service = Service(tmp_path, bundle, plane, max_queue=1, max_memory=0, tell=lambda _: None, end=lambda _: None)
    service._interface, service._way = Interface(Shows(), 1), Asking(plane)
    exchange: Any = SimpleNamespace(deadline=float("inf"), trace=None, request_id="id-1")
    with caplog.at_level(logging.ERROR), pytest.raises(RequestFailed) as caught:
        await service.answer(exchange, "application/json", b"{}")
    assert (caught.value.status, caught.value.message) == (500, "The handler failed; the log names it by id-1")
    assert "Failed to write JSON value for tensor type: quint8" in caplog.text
    assert "refused its inputs" not in caplog.text
