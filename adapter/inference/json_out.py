"""Tensors to the JSON of TensorFlow Serving's predict answers. No I/O.

Values, nesting and names are TFS's (tensorflow_serving/util/json_tensor.cc); the text is compact. Floats are the
shortest that read back as the same float32 or float64. half and bfloat16 are written as the float32 they equal,
complex numbers as `[real, imaginary]`; TFS refuses these. Bytes that are not UTF-8 in an output whose name does not
end in `_bytes` become U+FFFD each: TFS writes them raw, and its answer is then no JSON at all.
"""

from binascii import b2a_base64
from collections.abc import Generator, Iterator, Mapping
from typing import Any, Literal

import numpy as np
import orjson

from adapter.inference.tensor import BFLOAT16, HALF, Array, BadInput, Tensor

NonFinite = Literal["tfs", "null", "string"]
Steps = Generator[None, None, bytes]

_TOKENS: Mapping[NonFinite, tuple[bytes, bytes, bytes]] = {
    "tfs": (b"NaN", b"Infinity", b"-Infinity"),
    "null": (b"null", b"null", b"null"),
    "string": (b'"NaN"', b'"Infinity"', b'"-Infinity"'),
}
# So many numbers are rendered in one go: 2-4 ms and about a megabyte of text.
_STEP = 1 << 16


def predictions(outputs: Mapping[str, Tensor], row: bool, nonfinite: NonFinite = "tfs") -> bytes:
    """The body of an answer to a row (`instances`) or columnar (`inputs`) request.

    `nonfinite` says how NaN and infinities stand in it: TFS's bare tokens, which JSON does not have, `null`, or strings.

    Raises:
        BadInput: the outputs have no common batch size, which the row format needs; in TFS's words.
    """
    steps = predictions_in_steps(outputs, row, nonfinite)
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]


def predictions_in_steps(outputs: Mapping[str, Tensor], row: bool, nonfinite: NonFinite = "tfs") -> Steps:
    """The same for large answers: yields every few milliseconds, so that others get their turn."""
    if not outputs:
        raise BadInput("Cannot convert empty tensor map to JSON")
    if row:
        _check_batch_size(outputs)
    texts = {}
    for name, tensor in outputs.items():
        texts[name] = yield from _text(name, tensor, nonfinite)
    if len(texts) == 1:
        (text,) = texts.values()
        return b'{"predictions":%b}' % text if row else b'{"outputs":%b}' % text
    keys = [orjson.dumps(name) for name in texts]
    if not row:
        return b'{"outputs":{%b}}' % b",".join([b"%b:%b" % pair for pair in zip(keys, texts.values(), strict=True)])
    columns = [_rows(name, tensor, texts[name]) for name, tensor in outputs.items()]
    template = b"{%b}" % b",".join([key.replace(b"%", b"%%") + b":%b" for key in keys])
    return b'{"predictions":[%b]}' % b",".join([template % values for values in zip(*columns, strict=True)])


def _check_batch_size(outputs: Mapping[str, Tensor]) -> None:
    batch = -1
    for name, tensor in outputs.items():
        shape = tensor.data.shape
        if not shape:
            raise BadInput(f"Tensor name: {name} has no shape information ")
        if batch >= 0 and shape[0] != batch:
            raise BadInput(f"Tensor name: {name} has inconsistent batch size: {shape[0]} expecting: {batch}")
        batch = shape[0]


def _text(name: str, tensor: Tensor, nonfinite: NonFinite) -> Steps:
    """One tensor as JSON."""
    if tensor.dtype.is_string:
        return orjson.dumps(_strings(tensor.data, name.endswith("_bytes")))
    data = plain(tensor)
    if data.size <= _STEP:
        text = _dumps(data)
    else:
        pieces: list[bytes] = []
        for piece in _pieces(data):
            pieces.append(piece)
            yield
        text = b"".join(pieces)
    if data.dtype.kind == "f" and b"null" in text:  # orjson's word for each number that JSON does not have
        text = _with_tokens(text, data, nonfinite)
    return text


def plain(tensor: Tensor) -> Array:
    """The tensor's numbers in a type that JSON writers know; complex numbers get a last dimension of two."""
    data = tensor.data
    if tensor.dtype is BFLOAT16:
        return (data.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if tensor.dtype is HALF:
        return data.astype(np.float32)
    if data.dtype.kind == "c":
        return data.reshape(*data.shape, 1).view(np.float32 if data.itemsize == 8 else np.float64)
    return data


def _dumps(data: Array) -> bytes:
    return orjson.dumps(data if data.ndim else data[()], option=orjson.OPT_SERIALIZE_NUMPY)


def _pieces(data: Array) -> Iterator[bytes]:
    """The text of a large array, in pieces of at most `_STEP` numbers."""
    inner = data.size // len(data)
    yield b"["
    if inner > _STEP:
        for index in range(len(data)):
            if index:
                yield b","
            yield from _pieces(data[index])
    else:
        step = _STEP // inner
        for start in range(0, len(data), step):
            if start:
                yield b","
            yield _dumps(data[start : start + step])[1:-1]
    yield b"]"


def _with_tokens(text: bytes, data: Array, nonfinite: NonFinite) -> bytes:
    nan, infinity, minus_infinity = _TOKENS[nonfinite]
    bad = data[~np.isfinite(data)].tolist()
    tokens = [nan if value != value else infinity if value > 0 else minus_infinity for value in bad]
    parts = text.split(b"null")
    return b"".join([part for pair in zip(parts, tokens, strict=False) for part in pair]) + parts[-1]


def _strings(data: Array, as_base64: bool) -> list[Any]:
    """A string tensor as nested lists of what JSON writers know."""
    items: list[bytes] = data.ravel().tolist()
    values = np.empty(len(items), object)
    values[:] = (
        [{"b64": b2a_base64(item, newline=False).decode()} for item in items]
        if as_base64
        else [item.decode("utf-8", "replace") for item in items]
    )
    nested: list[Any] = values.reshape(data.shape).tolist()
    return nested


def _rows(name: str, tensor: Tensor, text: bytes) -> list[bytes]:
    """The texts of a tensor's rows, cut out of its own text."""
    data = tensor.data
    if tensor.dtype.is_string:
        return [orjson.dumps(row) for row in _strings(data, name.endswith("_bytes"))]
    if data.size == 0:
        return [_dumps(np.empty(data.shape[1:]))] * len(data)
    inner = data.ndim - 1 + (data.dtype.kind == "c")
    opening, closing = b"[" * inner, b"]" * inner
    rows = text[inner + 1 : -inner - 1].split(closing + b"," + opening)
    return [opening + row + closing for row in rows] if inner else rows
