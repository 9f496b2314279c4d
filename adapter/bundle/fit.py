"""Whether a bundle fits the models that TensorFlow Serving has: what it names exists there, and is as its handler declares it."""

from typing import Any

from adapter.bundle import tensors
from adapter.bundle.api import Handler
from adapter.bundle.manifest import Manifest
from adapter.errors import Refused
from adapter.inference.plane import DataPlane
from adapter.inference.signatures import Servable


async def misfit(
    plane: DataPlane, bundle: Manifest, handler: type[Handler[Any, Any]] | None, servable: Servable, deadline: float
) -> str | None:
    """What does not fit, by `deadline`; None if all does. `handler` is one that is for `servable` alone, if there is one.

    Raises:
        RequestFailed: TensorFlow Serving cannot be asked.
    """
    for model in bundle.models:
        for name in model.signatures:
            problem = await _missing(plane, Servable(model.name, model.version), name, "bundle.toml", deadline)
            if problem is not None:
                return problem
    if handler is None:
        return None
    problem = await _missing(plane, servable, handler.signature, bundle.handler or "", deadline)
    if problem is not None:
        return problem
    signature = (await plane.endpoint(servable, handler.signature, deadline)).signature
    differs = tensors.mismatch(handler.inputs, signature.inputs, "input") or tensors.mismatch(
        handler.outputs, signature.outputs, "output"
    )
    return f"{bundle.handler} declares {differs}" if differs else None


async def _missing(plane: DataPlane, servable: Servable, signature: str, who: str, deadline: float) -> str | None:
    try:
        await plane.endpoint(servable, signature, deadline)
    except Refused as error:
        if error.status != 400:
            raise
        return f"{who} uses signature {signature!r} of model {servable.model} {servable.version}, which has none of that name"
    return None
