"""An encoded `TensorProto` to a tensor, by hand. The rules are those of `Tensor::FromProto`
(tensorflow/core/framework/tensor.cc) and of protobuf: packed fields or not, in one run or several, unknown fields skipped.
"""

from collections.abc import Generator, Iterator
from functools import lru_cache

import numpy as np

from adapter.inference.tensor import BFLOAT16, DTYPES, HALF, STRING, Array, DType, Shape, Tensor, Unserved
from adapter.inference.varints import read_varint, unpack_varints
from adapter.joining import STEP, part
from adapter.pb import tensorflow_pb2

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
# A single value may stand for a whole tensor; no honest server means more than this by it.
MAX_BROADCAST_BYTES = 1 << 26
_MAX_RANK = 64
# Strings, and bytes of varints, that are read or written in one go: 1 to 2 ms.
STRINGS, _VARINTS = 1 << 12, 1 << 16

Range = tuple[int, int]
Field = tuple[int, int, int, int]


def fields(data: bytes, pos: int, end: int) -> Iterator[Field]:
    """Every field between two offsets: its number, its wire type, and where its value starts and ends."""
    while pos < end:
        tag, pos = (data[pos], pos + 1) if data[pos] < 0x80 else read_varint(data, pos)
        kind = tag & 7
        if kind == BYTES:
            length, start = (data[pos], pos + 1) if data[pos] < 0x80 else read_varint(data, pos)
            pos = start + length
        elif kind == VARINT:
            start, pos = pos, read_varint(data, pos)[1]
        elif kind in (FIXED32, FIXED64):
            start, pos = pos, pos + (4 if kind == FIXED32 else 8)
        else:
            raise ValueError(f"wire type {kind} is not used by this API")
        if pos > end:
            raise ValueError("a field is longer than the message that holds it")
        if not 8 <= tag < 1 << 32:
            raise ValueError("a field has an impossible number")
        yield tag >> 3, kind, start, pos


def read_tensor(data: bytes, start: int, end: int) -> Generator[None, None, tuple[Tensor, Range | None]]:
    """The tensor between two offsets, and where its numbers lie if they lie there as in memory.

    Yields every few milliseconds where there are many values that don't.

    Raises:
        Unserved: it has values, and their type is none of `DTYPES`.
        ValueError: it is malformed.
    """
    number_of_dtype = 0
    shape = b""
    content: Field = (4, BYTES, 0, 0)
    chunks: list[Field] = []
    strings: list[bytes] = []
    copied = 0
    for field in fields(data, start, end):
        number, kind, first, last = field
        if number == 1 and kind == VARINT:
            number_of_dtype = read_varint(data, first)[0] & 0xFFFF_FFFF
        elif number == 2 and kind == BYTES:
            shape += data[first:last]
        elif number == 4 and kind == BYTES:
            content = field
        elif number == STRING.field and kind == BYTES:
            strings.append(data[first:last] if last - first <= STEP else (yield from part(data, first, last)))
            copied += last - first
            if len(strings) % STRINGS == 0 or copied >= STEP:
                copied = 0
                yield
        else:
            chunks.append(field)
    dims, size = _read_shape(shape)
    dtype = DTYPES.get(number_of_dtype)
    if dtype is None:
        return _without_values(number_of_dtype, dims, size), None
    has_content = content[2] < content[3]
    mine = [content] if has_content else [chunk for chunk in chunks if chunk[0] == dtype.field]
    if len(mine) == 1 and (has_content or _is_fixed_width(dtype)) and not dtype.is_string:
        _, kind, first, last = mine[0]
        if kind == BYTES and last - first == size * dtype.numpy.itemsize:
            return Tensor(dtype, in_place(data, dtype, dims, first)), (first, last)
    steps = _content(data, content, dtype, size) if has_content else _field(data, mine, strings, dtype)
    values = yield from steps
    return Tensor(dtype, _filled(values, dtype, size).reshape(dims)), None


def _without_values(number_of_dtype: int, dims: Shape, size: int) -> Tensor:
    """A tensor of a type that is not served: TensorFlow Serving gets as far as its first value."""
    found = tensorflow_pb2.DataType.DESCRIPTOR.values_by_number.get(number_of_dtype)
    name = found.name.removeprefix("DT_").lower() if found is not None else f"dtype {number_of_dtype}"
    if size:  # json_tensor.cc, AddSingleValueAndAdvance
        raise Unserved(f"Failed to write JSON value for tensor type: {name}")
    return Tensor(DType(number_of_dtype, name, "", np.dtype(np.uint8), 0), np.empty(dims, np.uint8))


def _content(data: bytes, content: Field, dtype: DType, size: int) -> Generator[None, None, Array]:
    _, _, first, last = content
    if dtype.is_string:
        return (yield from _string_content(data, first, last, size))
    raise ValueError(f"tensor_content has {last - first} bytes, not {size} {dtype.name} values")


def _field(data: bytes, chunks: list[Field], strings: list[bytes], dtype: DType) -> Generator[None, None, Array]:
    return _objects(strings) if dtype.is_string else _numbers(data, chunks, dtype)


def _is_fixed_width(dtype: DType) -> bool:
    """Whether the dtype's own field holds its values as memory does, rather than as varints."""
    return dtype.numpy.kind in "fc" and dtype is not HALF


def in_place(data: bytes, dtype: DType, shape: Shape, start: int) -> Array:
    """The numbers that lie in a message as in memory."""
    return np.ndarray(shape, dtype.numpy, data, start)


@lru_cache(4096)
def _read_shape(encoded: bytes) -> tuple[Shape, int]:
    """The dimensions in an encoded `TensorShapeProto` and the number of elements they make."""
    dims: list[int] = []
    size = 1
    for number, kind, start, end in fields(encoded, 0, len(encoded)):
        if number == 2 and kind == BYTES:
            dim = 0
            for inner, inner_kind, first, _ in fields(encoded, start, end):
                if inner == 1 and inner_kind == VARINT:
                    dim = read_varint(encoded, first)[0]
            dims.append(dim)
            size *= dim
        elif number == 3 and kind == VARINT and read_varint(encoded, start)[0]:
            raise ValueError("a tensor has no rank")
    if len(dims) > _MAX_RANK or max(dims, default=0) >> 48 or size >> 48:
        raise ValueError("a tensor has an impossible shape")
    return tuple(dims), size


def _string_content(data: bytes, start: int, end: int, size: int) -> Generator[None, None, Array]:
    """All lengths, then all bytes: `EncodeStringList` in tensorflow/core/platform/coding."""
    if size > end - start:
        raise ValueError("tensor_content holds fewer strings than its shape asks for")
    lengths = []
    for done in range(size):
        length, start = read_varint(data, start)
        lengths.append(length)
        if done % STRINGS == STRINGS - 1:
            yield
    if start + sum(lengths) != end:
        raise ValueError("tensor_content does not hold as many bytes as its lengths say")
    items = []
    copied = 0
    for length in lengths:
        stop = start + length
        items.append(data[start:stop] if length <= STEP else (yield from part(data, start, stop)))
        start = stop
        copied += length
        if len(items) % STRINGS == 0 or copied >= STEP:
            copied = 0
            yield
    return (yield from _objects(items))


def _objects(items: list[bytes]) -> Generator[None, None, Array]:
    array = np.empty(len(items), object)
    for start in range(0, len(items), 8 * STRINGS):
        array[start : start + 8 * STRINGS] = items[start : start + 8 * STRINGS]
        if start:
            yield
    return array


def _numbers(data: bytes, chunks: list[Field], dtype: DType) -> Generator[None, None, Array]:
    """The values of a typed field."""
    if _is_fixed_width(dtype):
        return _fixed(data, chunks, dtype)
    runs = []
    for _, kind, first, last in chunks:
        if kind not in (BYTES, VARINT):
            continue
        while last - first > _VARINTS:
            stop = next((end for end in range(first + _VARINTS, first + _VARINTS + 10) if data[end - 1] < 0x80), last)
            runs.append(_cut(unpack_varints(data, first, stop), dtype))
            first = stop
            yield
        runs.append(_cut(unpack_varints(data, first, last), dtype))
    if len(runs) == 1:
        return runs[0]
    values = np.empty(sum(map(len, runs)), dtype.numpy)
    done = 0
    for run in runs:
        values[done : done + len(run)] = run
        done += len(run)
        if len(run) > STRINGS:
            yield
    return values


def _fixed(data: bytes, chunks: list[Field], dtype: DType) -> Array:
    """The values of a typed field that lie in it as in memory."""
    # Complex numbers are pairs of their parts.
    part = np.dtype(f"<f{dtype.numpy.itemsize // (2 if dtype.numpy.kind == 'c' else 1)}")
    width = part.itemsize
    single = FIXED32 if width == 4 else FIXED64
    ranges = [(first, last) for _, kind, first, last in chunks if kind in (BYTES, single)]
    if any((last - first) % width for first, last in ranges):
        raise ValueError(f"a packed {dtype.name} field ends in the middle of a value")
    values = np.frombuffer(b"".join([data[first:last] for first, last in ranges]), part)
    return values[: len(values) // 2 * 2].view(dtype.numpy) if dtype.numpy.kind == "c" else values


def _cut(values: Array, dtype: DType) -> Array:
    """Varints to the width of the dtype, as protobuf and TensorFlow cut them."""
    if dtype.numpy.kind == "b":
        return np.not_equal(values, 0)
    if dtype is HALF or dtype is BFLOAT16:  # bit patterns
        values = values.astype(np.uint16)
        return values.view(dtype.numpy)
    cut: Array = values.astype(dtype.numpy)
    return cut


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
