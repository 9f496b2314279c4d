"""Tensors to an inference response of the Open Inference Protocol: JSON, binary data, or both. No I/O.

Values in JSON are flat, in row-major order, as in the specification's examples. Numbers that JSON does not have are the
strings of ProtoJSON ("NaN", "Infinity", "-Infinity"), which numpy, too, reads as numbers. Binary data is joined once.
"""

from collections.abc import Generator, Iterable
from struct import Struct
from typing import Any

import orjson

from adapter.inference import json_out
from adapter.inference.tensor import BadInput, Tensor

Steps = Generator[None, None, tuple[bytes, int | None]]

_LENGTH = Struct("<I")


def response_in_steps(
    model: str, version: int, request_id: str | None, outputs: Iterable[tuple[str, Tensor, bool]]
) -> Steps:
    """The body of a response and the length of the JSON in it, None if that is all; the bool asks for binary data.

    Yields every few milliseconds, so that others get their turn.

    Raises:
        BadInput: a string that JSON can't hold was asked for in JSON.
    """
    about = {"model_name": model, "model_version": str(version)}
    if request_id is not None:
        about["id"] = request_id
    parts = [orjson.dumps(about)[:-1], b',"outputs":[']
    separator = b""
    binary: list[Any] = []
    for name, tensor, wants_binary in outputs:
        described = orjson.dumps({"name": name, "datatype": tensor.dtype.v2, "shape": tensor.shape})
        parts += (separator, described[:-1])
        separator = b","
        if wants_binary:
            content: Any = _strings_as_binary(tensor) if tensor.dtype.is_string else tensor.data
            parts.append(b',"parameters":{"binary_data_size":%d}}' % memoryview(content).nbytes)
            binary.append(content)
        else:
            parts += (b',"data":', (yield from _as_json(name, tensor)), b"}")
    parts.append(b"]}")
    if not binary:
        return b"".join(parts), None
    length = sum(map(len, parts))
    return b"".join([*parts, *binary]), length


def _strings_as_binary(tensor: Tensor) -> bytes:
    pack = _LENGTH.pack
    return b"".join([part for item in tensor.data.ravel().tolist() for part in (pack(len(item)), item)])


def _as_json(name: str, tensor: Tensor) -> Generator[None, None, bytes]:
    if tensor.dtype.is_string:
        return _strings_as_json(name, tensor)
    return (yield from json_out.numbers_in_steps(Tensor(tensor.dtype, tensor.data.reshape(-1)), "string"))


def _strings_as_json(name: str, tensor: Tensor) -> bytes:
    texts: list[str] = []
    for index, item in enumerate(tensor.data.ravel().tolist()):
        try:
            texts.append(item.decode())
        except UnicodeDecodeError:
            problem = (
                f"element {index} is not UTF-8, which JSON can't hold; ask for binary data (parameters.binary_data)"
            )
            raise BadInput(f'output "{name}": {problem}') from None
    return orjson.dumps(texts)
