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

from adapter.inference.tensor import BFLOAT16, COMPLEX64, COMPLEX128, HALF, STRING, Array, BadInput, Tensor

NonFinite = Literal["tfs", "null", "string"]

_TOKENS: Mapping[NonFinite, tuple[bytes, bytes, bytes]] = {
    "tfs": (b"NaN", b"Infinity", b"-Infinity"),
    "null": (b"null", b"null", b"null"),
    "string": (b'"NaN"', b'"Infinity"', b'"-Infinity"'),
}
_ROWS, _COLUMNS = "predictions", "outputs"
_REWRITTEN = frozenset(dtype.number for dtype in (BFLOAT16, HALF, COMPLEX64, COMPLEX128))
# So many numbers are rendered in one go: 2-4 ms and about a megabyte of text.
STEP = 1 << 16


def predictions(outputs: Mapping[str, Tensor], row: bool, nonfinite: NonFinite = "tfs") -> bytes:
    """The body of an answer to a row (`instances`) or columnar (`inputs`) request.

    `nonfinite` says how NaN and infinities stand in it: TFS's bare tokens, which JSON does not have, `null`, or strings.

    Raises:
        BadInput: the outputs have no common batch size, which the row format needs; in TFS's words.
    """
    if row:
        _check_batch_size(outputs)
    if len(outputs) == 1:
        (tensor,) = outputs.values()
        if tensor.dtype is not STRING:
            return numbers(plain(tensor), nonfinite, _ROWS if row else _COLUMNS)
    return _assembled({name: _text(name, tensor, nonfinite) for name, tensor in outputs.items()}, outputs, row)


def predictions_in_steps(
    outputs: Mapping[str, Tensor], row: bool, nonfinite: NonFinite = "tfs"
) -> Generator[None, None, bytes]:
    """The same for large answers: yields every few milliseconds, so that others get their turn."""
    if row:
        _check_batch_size(outputs)
    if len(outputs) == 1:
        (tensor,) = outputs.values()
        if tensor.dtype is not STRING:
            return (yield from numbers_in_steps(tensor, nonfinite, _ROWS if row else _COLUMNS))
    texts = {}
    for name, tensor in outputs.items():
        if tensor.dtype is STRING:
            texts[name] = _text(name, tensor, nonfinite)
            yield
        else:
            texts[name] = yield from numbers_in_steps(tensor, nonfinite)
    return _assembled(texts, outputs, row)


def _assembled(texts: Mapping[str, bytes], outputs: Mapping[str, Tensor], row: bool) -> bytes:
    """The answer, from the texts of its outputs."""
    if len(texts) == 1:
        (text,) = texts.values()
        return b'{"%b":%b}' % ((_ROWS if row else _COLUMNS).encode(), text)
    if not texts:
        raise BadInput("Cannot convert empty tensor map to JSON")
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


def _text(name: str, tensor: Tensor, nonfinite: NonFinite) -> bytes:
    """One tensor as JSON."""
    if tensor.dtype is STRING:
        return orjson.dumps(_strings(tensor.data, name.endswith("_bytes")))
    return numbers(plain(tensor), nonfinite)


def plain(tensor: Tensor) -> Array:
    """The tensor's numbers in a type that JSON writers know; complex numbers get a last dimension of two."""
    data = tensor.data
    if tensor.dtype.number not in _REWRITTEN:
        return data
    if tensor.dtype is BFLOAT16:
        return np.left_shift(data, 16, dtype=np.uint32).view(np.float32)
    if tensor.dtype is HALF:
        return data.astype(np.float32)
    return data.reshape(*data.shape, 1).view(np.float32 if data.itemsize == 8 else np.float64)


def numbers_in_steps(tensor: Tensor, nonfinite: NonFinite, key: str = "") -> Generator[None, None, bytes]:
    """A tensor that holds no strings as JSON; yields between the pieces of a large one. See `numbers`."""
    data = plain(tensor)
    if data.size <= STEP:
        return numbers(data, nonfinite, key)
    pieces = [b'{"%b":' % key.encode() if key else b""]
    for piece in _pieces(data, nonfinite):
        pieces.append(piece)
        if len(piece) > 1:
            yield
    pieces.append(b"}" if key else b"")
    return b"".join(pieces)


def numbers(data: Array, nonfinite: NonFinite, key: str = "") -> bytes:
    """Numbers of a `plain` tensor as JSON, nested as their shape is; under a key as the only member of an object."""
    value = data if data.ndim else data[()]
    text = orjson.dumps({key: value} if key else value, None, orjson.OPT_SERIALIZE_NUMPY)
    start = len(key) + 4 if key else 0
    # orjson writes `null` for what JSON has no number for, and no other n: a search for one byte is 50 times as fast.
    return _with_tokens(text, data, nonfinite) if text.find(b"n", start) >= 0 else text


def _pieces(data: Array, nonfinite: NonFinite) -> Iterator[bytes]:
    """The text of a large array, in pieces of at most `STEP` numbers."""
    inner = data.size // len(data)
    yield b"["
    if inner > STEP:
        for index in range(len(data)):
            if index:
                yield b","
            yield from _pieces(data[index], nonfinite)
    else:
        step = STEP // inner
        for start in range(0, len(data), step):
            if start:
                yield b","
            yield numbers(data[start : start + step], nonfinite)[1:-1]
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
    if tensor.dtype is STRING:
        return [orjson.dumps(row) for row in _strings(data, name.endswith("_bytes"))]
    if data.size == 0:
        return [numbers(np.empty(data.shape[1:]), "null")] * len(data)
    inner = data.ndim - 1 + (data.dtype.kind == "c")
    opening, closing = b"[" * inner, b"]" * inner
    rows = text[inner + 1 : -inner - 1].split(closing + b"," + opening)
    return [opening + row + closing for row in rows] if inner else rows
