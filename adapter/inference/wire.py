"""Predict requests and answers as protobuf bytes, encoded and read by hand; knows nothing of gRPC.

Generated classes would copy every tensor at least twice and turn each number into a Python object. Here a request is
one `join` over the arrays' own buffers and an answer's numbers are read where they lie. The rules are those of
https://protobuf.dev/programming-guides/encoding/ and of `Tensor::FromProto` (tensorflow/core/framework/tensor.cc).
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from adapter.inference.tensor import DTYPES, Array, DType, Shape, Tensor
from adapter.inference.varints import unpack_varints

# Wire types, and the tags (field number << 3 | wire type) of what is written here.
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
# A single value may stand for a whole tensor; no honest server means more than this by it.
MAX_BROADCAST_BYTES = 1 << 26


def model_spec(name: str, version: int | None, label: str | None, signature: str) -> bytes:
    """An encoded `ModelSpec`: the same for every request to one servable, so callers keep it."""
    parts = [_text(1, name)]
    if version is not None:
        parts.append(_bytes(2, b"\x08" + _varint(version)))
    if label is not None:
        parts.append(_text(4, label))
    if signature:
        parts.append(_text(3, signature))
    return b"".join(parts)


def predict_request(spec: bytes, inputs: Mapping[str, Tensor]) -> bytes:
    """An encoded `PredictRequest`; numbers travel as `tensor_content`, copied once from their arrays."""
    parts: list[Any] = [b"\x0a", _varint(len(spec)), spec]
    for name, tensor in inputs.items():
        key, head = _heads(name, tensor.dtype.number, tensor.data.shape)
        if tensor.dtype.is_string:
            body = b"".join([b"\x42%b%b" % (_varint(len(item)), item) for item in tensor.data.ravel().tolist()])
            length = len(head) + len(body)
            parts += (b"\x12", _varint(len(key) + 1 + _varint_size(length) + length))
            parts += (key, b"\x12", _varint(length), head, body)
        else:
            size = _varint(tensor.data.nbytes)
            length = len(head) + 1 + len(size) + tensor.data.nbytes
            parts += (b"\x12", _varint(len(key) + 1 + _varint_size(length) + length))
            parts += (key, b"\x12", _varint(length), head, b"\x22", size, tensor.data)
    return b"".join(parts)


@lru_cache(4096)
def _heads(name: str, dtype: int, shape: Shape) -> tuple[bytes, bytes]:
    """What comes before the values: the map entry's key, and the tensor's dtype and shape."""
    dims = b"".join([_bytes(2, b"\x08" + _varint(size) if size else b"") for size in shape])
    return _text(1, name), b"\x08" + _varint(dtype) + _bytes(2, dims)


def _varint(value: int) -> bytes:
    if 0 <= value < 0x80:
        return _ONE_BYTE[value]
    value &= 0xFFFF_FFFF_FFFF_FFFF
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_ONE_BYTE = [bytes((value,)) for value in range(0x80)]


def _varint_size(value: int) -> int:
    return (value.bit_length() + 6) // 7 or 1


def _bytes(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | BYTES) + _varint(len(value)) + value


def _text(number: int, value: str) -> bytes:
    return _bytes(number, value.encode())


def predict_response(data: bytes) -> tuple[dict[str, Tensor], int]:
    """The outputs of an encoded `PredictResponse` and the model version that made them; ValueError if malformed."""
    outputs: dict[str, Tensor] = {}
    spec = b""
    try:
        for number, kind, start, end in _fields(data, 0, len(data)):
            if number == 1 and kind == BYTES:
                name, tensor = _entry(data, start, end)
                outputs[name] = tensor
            elif number == 2 and kind == BYTES:
                spec += data[start:end]
        return outputs, _spec_version(spec)
    except IndexError:
        raise ValueError("the answer ends in the middle of a field") from None


def _fields(data: bytes, pos: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Every field between two offsets: its number, its wire type, and where its value starts and ends."""
    while pos < end:
        tag = data[pos]
        pos += 1
        if tag >= 0x80:
            tag, pos = _read_varint(data, pos - 1)
        kind = tag & 7
        start = pos
        if kind == BYTES:
            length = data[pos]
            pos += 1
            if length >= 0x80:
                length, pos = _read_varint(data, pos - 1)
            start = pos
            pos += length
        elif kind == VARINT:
            while data[pos] >= 0x80:
                pos += 1
            pos += 1
            if pos - start > 10:
                raise ValueError("a varint is longer than ten bytes")
        elif kind == FIXED32:
            pos += 4
        elif kind == FIXED64:
            pos += 8
        else:
            raise ValueError(f"wire type {kind} is not used by this API")
        if pos > end:
            raise ValueError("a field is longer than the message that holds it")
        if not 8 <= tag < 1 << 32:
            raise ValueError("a field has an impossible number")
        yield tag >> 3, kind, start, pos


def _read_varint(data: bytes, pos: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[pos]
        pos += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, pos
        shift += 7
        if shift >= 70:
            raise ValueError("a varint is longer than ten bytes")


@lru_cache(256)
def _spec_version(spec: bytes) -> int:
    version = b""
    for number, kind, start, end in _fields(spec, 0, len(spec)):
        if kind == BYTES and number == 2:
            version += spec[start:end]
        elif kind == BYTES and number == 4:  # the other arm of the oneof takes the first one's place
            version = b""
    value = 0
    for number, kind, start, _ in _fields(version, 0, len(version)):
        if number == 1 and kind == VARINT:
            value = _read_varint(version, start)[0]
    return value - (1 << 64) if value >> 63 else value


def _entry(data: bytes, start: int, end: int) -> tuple[str, Tensor]:
    """One entry of a map from name to tensor."""
    name = ""
    tensor = (data, end, end)
    seen = False
    for number, kind, first, last in _fields(data, start, end):
        if number == 1 and kind == BYTES:
            name = data[first:last].decode()
        elif number == 2 and kind == BYTES:
            # A message given twice is merged, and merging is the same as reading the two one after the other.
            merged = tensor[0][tensor[1] : tensor[2]] + data[first:last] if seen else b""
            tensor = (merged, 0, len(merged)) if seen else (data, first, last)
            seen = True
    return name, _tensor(*tensor)


def _tensor(data: bytes, start: int, end: int) -> Tensor:
    number_of_dtype = 0
    shape = b""
    content = (0, 0)
    chunks: list[tuple[int, int, int, int]] = []
    for number, kind, first, last in _fields(data, start, end):
        if number == 1 and kind == VARINT:
            number_of_dtype = _read_varint(data, first)[0] & 0xFFFF_FFFF
        elif number == 2 and kind == BYTES:
            shape += data[first:last]
        elif number == 4 and kind == BYTES:
            content = (first, last)
        else:
            chunks.append((number, kind, first, last))
    dtype = DTYPES.get(number_of_dtype)
    if dtype is None:
        raise ValueError(f"a tensor has dtype {number_of_dtype}, which is not served")
    dims, size = _shape(shape)
    if content[0] < content[1]:
        return Tensor(dtype, _from_content(data, *content, dtype, size).reshape(dims))
    mine = [chunk for chunk in chunks if chunk[0] == dtype.field]
    values = _strings(data, mine) if dtype.is_string else _numbers(data, mine, dtype)
    return Tensor(dtype, _filled(values, dtype, size).reshape(dims))


@lru_cache(4096)
def _shape(encoded: bytes) -> tuple[Shape, int]:
    """The dimensions in an encoded `TensorShapeProto` and the number of elements they make."""
    dims: list[int] = []
    size = 1
    for number, kind, start, end in _fields(encoded, 0, len(encoded)):
        if number == 2 and kind == BYTES:
            dim = 0
            for inner, inner_kind, first, _ in _fields(encoded, start, end):
                if inner == 1 and inner_kind == VARINT:
                    dim = _read_varint(encoded, first)[0]
            dims.append(dim)
            size *= dim
        elif number == 3 and kind == VARINT and _read_varint(encoded, start)[0]:
            raise ValueError("a tensor has no rank")
    if len(dims) > 64 or max(dims, default=0) >> 63 or size >> 48:
        raise ValueError("a tensor has an impossible shape")
    return tuple(dims), size


def _from_content(data: bytes, start: int, end: int, dtype: DType, size: int) -> Array:
    if dtype.is_string:  # all lengths, then all bytes: EncodeStringList in tensorflow/core/lib/core/coding
        items = []
        pos, lengths = start, []
        for _ in range(min(size, end - start + 1)):
            length, pos = _read_varint(data, pos)
            lengths.append(length)
        for length in lengths:
            items.append(data[pos : pos + length])
            pos += length
        if pos != end or len(items) != size:
            raise ValueError("tensor_content does not hold as many bytes as its lengths say")
        return _objects(items)
    if end - start != size * dtype.numpy.itemsize:
        raise ValueError(f"tensor_content has {end - start} bytes, its shape asks for {size} of {dtype.name}")
    return _aligned(np.frombuffer(data, dtype.numpy, size, start))


def _strings(data: bytes, chunks: list[tuple[int, int, int, int]]) -> Array:
    return _objects([data[first:last] for _, kind, first, last in chunks if kind == BYTES])


def _objects(items: list[bytes]) -> Array:
    array = np.empty(len(items), object)
    array[:] = items
    return array


def _numbers(data: bytes, chunks: list[tuple[int, int, int, int]], dtype: DType) -> Array:
    """The values of a typed field, packed or not, in one run or several."""
    arrays = []
    for _, kind, first, last in chunks:
        if dtype.numpy.kind in "fc" and dtype.number != 19:  # IEEE numbers as they are; complex as pairs of them
            real = np.dtype(f"<f{dtype.numpy.itemsize // (2 if dtype.numpy.kind == 'c' else 1)}")
            if kind not in (BYTES, FIXED32 if real.itemsize == 4 else FIXED64):
                continue
            if (last - first) % real.itemsize:
                raise ValueError(f"a packed {dtype.name} field ends in the middle of a value")
            arrays.append(np.frombuffer(data, real, (last - first) // real.itemsize, first))
        elif kind in (BYTES, VARINT):
            arrays.append(unpack_varints(data, first, last, dtype))
    if not arrays:
        return np.empty(0, dtype.numpy)
    values = _aligned(arrays[0] if len(arrays) == 1 else np.concatenate(arrays))
    if dtype.numpy.kind == "c":
        values = values[: len(values) // 2 * 2].view(dtype.numpy)
    return values


def _filled(values: Array, dtype: DType, size: int) -> Array:
    """As many values as the shape asks for: TensorFlow repeats the last one, or the type's zero if there is none."""
    missing = size - len(values)
    if missing <= 0:
        return values[:size]
    if missing * dtype.numpy.itemsize > MAX_BROADCAST_BYTES:
        raise ValueError(f"a tensor has {len(values)} values, its shape asks for {size}")
    zero = b"" if dtype.is_string else 0
    rest = np.full(missing, values[-1] if len(values) else zero, dtype.numpy)
    return np.concatenate([values, rest])


def _aligned(values: Array) -> Array:
    """Numbers lie anywhere in a message; what reads them next (orjson among others) wants them on their own boundary."""
    return values if values.flags.aligned else values.copy()
