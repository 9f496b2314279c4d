"""Does a model mix the rows of a batch? Rows are made up, seeded, and answered together and one by one."""

import base64
import json
from typing import Any

import aiohttp
import numpy as np

from deploy.bundle.comparison import differences
from deploy.bundle.savedmodel import SavedModel, Signature, Tensor

ROWS = 4
SEED = 7
# A batch of another size may take another way through the same arithmetic: single precision agrees to about this.
TOLERANCE = 1e-4
PREDICT = "tensorflow/serving/predict"
# Sizes for dimensions that the model leaves open.
OPEN = 8
_WORDS = ["a fine day", "no", "", "the third of four rows"]


async def mixed(client: aiohttp.ClientSession, model: str, saved: SavedModel) -> list[tuple[str, list[str]]]:
    """Each signature of `model` that is for predictions, as a question, and how its rows depend on each other.

    A signature that refuses what is made up here shows nothing, and is left to the golden examples.
    """
    found = []
    for name, signature in saved.signatures.items():
        if signature.method != PREDICT or not signature.inputs:
            continue
        question = f"model {model}, signature {name}: rows do not depend on each other (coalesce)"
        if fixed := [key for key, tensor in signature.inputs.items() if not _is_batched(tensor)]:
            found.append(
                (question, [f"input {', '.join(fixed)} has no first dimension of any size, so no batches exist"])
            )
            continue
        problems = await _compare(client, model, name, signature)
        if problems is not None:
            found.append((question, problems))
    return found


async def _compare(client: aiohttp.ClientSession, model: str, name: str, signature: Signature) -> list[str] | None:
    generator = np.random.default_rng(SEED)
    inputs = {key: _made_up(tensor, generator) for key, tensor in signature.inputs.items()}
    together = await _ask(client, model, name, inputs)
    if together is None:
        return None
    for i in range(ROWS):
        alone = await _ask(client, model, name, {key: values[i : i + 1] for key, values in inputs.items()})
        if alone is None:
            return None
        for output, values in alone.items():
            row = together[output][i : i + 1] if isinstance(together[output], list) else together[output]
            if found := differences(values, row, TOLERANCE):
                return [f"row {i} among {ROWS} is answered differently than alone: {output}{found[0]}"]
    return []


async def _ask(
    client: aiohttp.ClientSession, model: str, signature: str, inputs: dict[str, list[Any]]
) -> dict[str, Any] | None:
    """The outputs by name; None where the model refuses the inputs."""
    body = json.dumps({"signature_name": signature, "inputs": inputs})
    async with client.post(f"/v1/models/{model}:predict", data=body) as response:
        if response.status != 200:
            return None
        outputs = (await response.json(content_type=None))["outputs"]
        return outputs if isinstance(outputs, dict) else {"": outputs}


def _is_batched(tensor: Tensor) -> bool:
    return tensor.shape is None or (len(tensor.shape) > 0 and tensor.shape[0] is None)


def _made_up(tensor: Tensor, generator: np.random.Generator) -> list[Any]:
    shape = (ROWS, *(OPEN if size is None else size for size in (tensor.shape or ())[1:]))
    if tensor.dtype == "string":
        words = [{"b64": base64.b64encode(word.encode()).decode()} for word in _WORDS]
        return _shaped([words[i % len(words)] for i in range(int(np.prod(shape)))], shape)
    if tensor.dtype == "bool":
        return generator.integers(0, 2, shape).astype(bool).tolist()  # type: ignore[no-any-return]
    if "int" in tensor.dtype:
        return generator.integers(0, 2, shape).tolist()  # type: ignore[no-any-return]
    return generator.random(shape).round(3).tolist()  # type: ignore[no-any-return]


def _shaped(values: list[Any], shape: tuple[int, ...]) -> list[Any]:
    for size in reversed(shape[1:]):
        values = [values[i : i + size] for i in range(0, len(values), size)]
    return values
