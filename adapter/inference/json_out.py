"""Tensors to the JSON of TensorFlow Serving's predict answers. No I/O.

Values, nesting and names are TFS's (tensorflow_serving/util/json_tensor.cc); the text is compact. Floats are the
shortest that read back as the same float32 or float64. half and bfloat16 are written as the float32 they equal,
complex numbers as `[real, imaginary]`; TFS refuses these. Bytes that are not UTF-8 in an output whose name does not
end in `_bytes` become U+FFFD each: TFS writes them raw, and its answer is then no JSON at all.
"""

from binascii import b2a_base64
from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
import orjson

from adapter.inference.tensor import (
    BFLOAT16,
    COMPLEX64,
    COMPLEX128,
    HALF,
    STRING,
    Array,
    BadInput,
    Tensor,
    aligned,
    length_of_strings,
)
from adapter.joining import joined

NonFinite = Literal["tfs", "null", "string"]

_TOKENS: Mapping[NonFinite, tuple[bytes, bytes, bytes]] = {
    "tfs": (b"NaN", b"Infinity", b"-Infinity"),
    "null": (b"null", b"null", b"null"),
    "string": (b'"NaN"', b'"Infinity"', b'"-Infinity"'),
}
_ROWS, _COLUMNS = "predictions", "outputs"
_REWRITTEN = frozenset(dtype.number for dtype in (BFLOAT16, HALF, COMPLEX64, COMPLEX128))
# So many numbers are rendered in one go: 1 to 2 ms, 10 where all are infinite, and about half a megabyte of text.
STEP = 1 << 15
# Likewise: strings, their bytes (which base64 takes by threes), and rows of several outputs, by the values in them.
_STRINGS, _STRINGS_BYTES, _ROWS_TOGETHER = 1 << 12, 3 << 16, 1 << 11


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
    return (yield from together(_answer(outputs, row, nonfinite)))


def size(outputs: Iterable[Tensor]) -> int:
    """Bytes that are to be written as JSON, about."""
    total = 0
    for tensor in outputs:
        total += tensor.data.nbytes
        if tensor.dtype is STRING:
            total += length_of_strings(tensor.data)
    return total


def together(pieces: Iterator[bytes]) -> Generator[None, None, bytes]:
    """All pieces; yields after each that took some time, and while they are joined."""
    parts = []
    for piece in pieces:
        parts.append(piece)
        if len(piece) > 1:
            yield
    return (yield from joined(parts))


def _answer(outputs: Mapping[str, Tensor], row: bool, nonfinite: NonFinite) -> Iterator[bytes]:
    if not outputs:
        raise BadInput("Cannot convert empty tensor map to JSON")
    if len(outputs) == 1:
        yield b'{"%b":' % (_ROWS if row else _COLUMNS).encode()
        ((name, tensor),) = outputs.items()
        yield from in_pieces(name, tensor, nonfinite)
    elif row:
        yield b'{"predictions":['
        yield from _rows_in_pieces(outputs, nonfinite)
        yield b"]"
    else:
        separator = b'{"outputs":{'
        for name, tensor in outputs.items():
            yield separator + orjson.dumps(name) + b":"
            yield from in_pieces(name, tensor, nonfinite)
            separator = b","
        yield b"}"
    yield b"}"


def in_pieces(name: str, tensor: Tensor, nonfinite: NonFinite) -> Iterator[bytes]:
    """One output as JSON, in pieces that take a few milliseconds each."""
    data = tensor.data
    if not data.size or not data.ndim:
        yield _text(name, tensor, nonfinite)
    elif tensor.dtype is STRING:
        yield b"["
        yield from _strings_in_pieces(data, name.endswith("_bytes"))
        yield b"]"
    elif data.size > STEP:
        yield from _pieces(tensor, nonfinite)
    else:
        yield numbers(plain(tensor), nonfinite)


def _assembled(texts: Mapping[str, bytes], outputs: Mapping[str, Tensor], row: bool) -> bytes:
    """The answer, from the texts of its outputs."""
    if len(texts) == 1:
        (text,) = texts.values()
        return b'{"%b":%b}' % ((_ROWS if row else _COLUMNS).encode(), text)
    if not texts:
        raise BadInput("Cannot convert empty tensor map to JSON")
    if row:
        return b'{"predictions":[%b]}' % _rows_together(outputs, texts)
    members = [b"%b:%b" % (orjson.dumps(name), text) for name, text in texts.items()]
    return b'{"outputs":{%b}}' % b",".join(members)


def _rows_together(outputs: Mapping[str, Tensor], texts: Mapping[str, bytes]) -> bytes:
    """The rows of several outputs, from the texts of the outputs."""
    columns = [_rows(name, tensor, texts[name]) for name, tensor in outputs.items()]
    template = b"{%b}" % b",".join([orjson.dumps(name).replace(b"%", b"%%") + b":%b" for name in outputs])
    return b",".join([template % values for values in zip(*columns, strict=True)])


def _rows_in_pieces(outputs: Mapping[str, Tensor], nonfinite: NonFinite) -> Iterator[bytes]:
    """The rows of several outputs, half and half until they are few."""
    batch = len(next(iter(outputs.values())).data)
    values = sum([tensor.data.size for tensor in outputs.values()])
    if not batch:
        return
    if batch * len(outputs) <= _ROWS_TOGETHER and values <= STEP and all(map(_is_short, outputs.values())):
        yield _rows_together(outputs, {name: _text(name, tensor, nonfinite) for name, tensor in outputs.items()})
    elif batch > 1:
        half = {name: Tensor(tensor.dtype, tensor.data[: batch // 2]) for name, tensor in outputs.items()}
        yield from _rows_in_pieces(half, nonfinite)
        yield b","
        half = {name: Tensor(tensor.dtype, tensor.data[batch // 2 :]) for name, tensor in outputs.items()}
        yield from _rows_in_pieces(half, nonfinite)
    else:
        separator = b"{"
        for name, tensor in outputs.items():
            yield separator + orjson.dumps(name) + b":"
            separator = b","
            row = np.asarray(tensor.data[0], tensor.dtype.numpy)
            yield from in_pieces(name, Tensor(tensor.dtype, row), nonfinite)
        yield b"}"


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
    """The tensor's numbers as JSON writers know them, on their boundary; complex numbers get a last dimension of two."""
    data = aligned(tensor.data)
    if tensor.dtype.number not in _REWRITTEN:
        return data
    if tensor.dtype is BFLOAT16:
        return np.left_shift(data, 16, dtype=np.uint32).view(np.float32)
    if tensor.dtype is HALF:
        return data.astype(np.float32)
    return data.reshape(*data.shape, 1).view(np.float32 if data.itemsize == 8 else np.float64)


def numbers(data: Array, nonfinite: NonFinite, key: str = "") -> bytes:
    """Numbers of a `plain` tensor as JSON, nested as their shape is; under a key as the only member of an object."""
    value = data if data.ndim else data[()]
    text = orjson.dumps({key: value} if key else value, None, orjson.OPT_SERIALIZE_NUMPY)
    start = len(key) + 4 if key else 0
    # orjson writes `null` for what JSON has no number for, and no other n: a search for one byte is 50 times as fast.
    return _with_tokens(text, data, nonfinite) if text.find(b"n", start) >= 0 else text


def _pieces(tensor: Tensor, nonfinite: NonFinite) -> Iterator[bytes]:
    """The text of many numbers, in pieces of at most `STEP`."""
    data = tensor.data
    inner = data.size // len(data)
    yield b"["
    if inner > STEP:
        for index in range(len(data)):
            if index:
                yield b","
            yield from _pieces(Tensor(tensor.dtype, data[index]), nonfinite)
    else:
        step = STEP // inner
        for start in range(0, len(data), step):
            if start:
                yield b","
            yield numbers(plain(Tensor(tensor.dtype, data[start : start + step])), nonfinite)[1:-1]
    yield b"]"


def _is_short(tensor: Tensor) -> bool:
    """Whether the strings of a tensor, if it holds any, are rendered in one go."""
    data = tensor.data
    if tensor.dtype is not STRING:
        return True
    return data.size <= _STRINGS and length_of_strings(data) <= _STRINGS_BYTES


def _strings_in_pieces(data: Array, as_base64: bool) -> Iterator[bytes]:
    """The text of strings without the outermost brackets, half and half until they are few."""
    if _is_short(Tensor(STRING, data)):
        yield orjson.dumps(_strings(data, as_base64))[1:-1]
    elif len(data) > 1:
        yield from _strings_in_pieces(data[: len(data) // 2], as_base64)
        yield b","
        yield from _strings_in_pieces(data[len(data) // 2 :], as_base64)
    elif data.ndim > 1:
        yield b"["
        yield from _strings_in_pieces(data[0], as_base64)
        yield b"]"
    else:
        yield from _long_base64(data[0]) if as_base64 else long_text(data[0])


def long_text(item: bytes, errors: Literal["replace", "strict"] = "replace") -> Iterator[bytes]:
    """The text of a string in pieces that take a few milliseconds each, cut between characters.

    Raises:
        UnicodeDecodeError: the string is not UTF-8, and errors are `strict`; in the piece that is not.
    """
    yield b'"'
    start = 0
    while start < len(item):
        stop = start + _STRINGS_BYTES
        for _ in range(3):  # a character has at most three more bytes
            if stop < len(item) and item[stop] & 0xC0 == 0x80:
                stop += 1
        yield orjson.dumps(item[start:stop].decode("utf-8", errors))[1:-1]
        start = stop
    yield b'"'


def _long_base64(item: bytes) -> Iterator[bytes]:
    yield b'{"b64":"'
    for start in range(0, len(item), _STRINGS_BYTES):
        yield b2a_base64(item[start : start + _STRINGS_BYTES], newline=False)
    yield b'"}'


def _with_tokens(text: bytes, data: Array, nonfinite: NonFinite) -> bytes:
    nan, infinity, minus_infinity = _TOKENS[nonfinite]
    found = data[~np.isfinite(data)]
    if np.isnan(found).all():  # a tenth of the time, where they are many
        return text.replace(b"null", nan)
    bad = found.tolist()
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
