"""Predict requests and answers as protobuf bytes, encoded and read by hand; knows nothing of gRPC.

Generated classes would copy every tensor at least twice and turn each number into a Python object. Here a request is
one `join` over the arrays' own buffers, and an answer's numbers are read where they lie.
Encoding: https://protobuf.dev/programming-guides/encoding/; messages: `protos/serving.proto`, `protos/tensorflow.proto`.
"""

from collections.abc import Generator, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from adapter.inference.tensor import STRING, DType, Shape, Tensor, length_of_strings, memory_of
from adapter.inference.tensor_proto import BYTES, STRINGS, VARINT, Range, fields, in_place, read_tensor
from adapter.inference.turns import at_once
from adapter.inference.varints import read_varint
from adapter.joining import STEP, Piece, joined


def model_spec(name: str, version: int | None, label: str | None, signature: str) -> bytes:
    """An encoded `ModelSpec`: the same for every request to one servable, so callers keep it."""
    parts = [_text(1, name)]
    if version is not None:
        parts.append(field(2, b"\x08" + varint(version)))
    if label is not None:
        parts.append(_text(4, label))
    if signature:
        parts.append(_text(3, signature))
    return b"".join(parts)


def predict_request(spec: bytes, inputs: Mapping[str, Tensor]) -> bytes:
    """An encoded `PredictRequest`; numbers travel as `tensor_content`, copied once from their arrays."""
    parts: list[Any] = [b"\x0a", varint(len(spec)), spec]
    for name, tensor in inputs.items():
        if tensor.dtype.is_string:
            strings = _strings(tensor.data.ravel().tolist())
            parts += (_entry_head(name, tensor.dtype.number, tensor.data.shape, len(strings)), strings)
        else:
            parts += (_numbers_head(name, tensor), tensor.data)
    return b"".join(parts)


def predict_request_in_steps(spec: bytes, inputs: Mapping[str, Tensor]) -> Generator[None, None, bytes]:
    """The same; yields every few milliseconds where inputs are large."""
    parts: list[Piece] = [b"\x0a", varint(len(spec)), spec]
    for name, tensor in inputs.items():
        if tensor.dtype.is_string:
            items = tensor.data.ravel().tolist()
            runs: list[bytes] = []
            for start in range(0, len(items), STRINGS):
                for run in _strings_in_runs(items[start : start + STRINGS]):
                    runs.append(run)
                    yield
            parts += (_entry_head(name, tensor.dtype.number, tensor.data.shape, sum(map(len, runs))), *runs)
        else:
            parts += (_numbers_head(name, tensor), memory_of(tensor.data))
    return (yield from joined(parts))


def is_large(inputs: Mapping[str, Tensor]) -> bool:
    """Whether it takes long to encode these."""
    return any(
        tensor.data.size > STRINGS or length_of_strings(tensor.data) > STEP
        if tensor.dtype is STRING
        else tensor.data.nbytes > STEP
        for tensor in inputs.values()
    )


def _numbers_head(name: str, tensor: Tensor) -> bytes:
    size = tensor.data.nbytes
    content = b"\x22" + varint(size)
    return _entry_head(name, tensor.dtype.number, tensor.data.shape, size + len(content)) + content


def _strings(items: list[bytes]) -> bytes:
    return b"".join([b"\x42%b%b" % (varint(len(item)), item) for item in items])


def _strings_in_runs(items: list[bytes]) -> Iterator[bytes]:
    """The same in runs that are not long; but a string that is long itself comes as it is, to be copied once, in steps."""
    if sum(map(len, items)) <= STEP:
        yield _strings(items)
    elif len(items) == 1:
        yield b"\x42" + varint(len(items[0]))
        yield items[0]
    else:
        half = len(items) // 2
        yield from _strings_in_runs(items[:half])
        yield from _strings_in_runs(items[half:])


@lru_cache(1024)
def _entry_head(name: str, dtype: int, shape: Shape, length: int) -> bytes:
    """All of an entry of `inputs` that comes before the tensor's values, which take `length` bytes with their tags."""
    dims = b"".join([field(2, b"\x08" + varint(size) if size else b"") for size in shape])
    head = b"\x08" + varint(dtype) + field(2, dims)
    key = _text(1, name) + b"\x12" + varint(len(head) + length)
    return b"\x12" + varint(len(key) + len(head) + length) + key + head


def varint(value: int) -> bytes:
    """An integer of any type; a negative one takes ten bytes."""
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


def field(number: int, value: bytes) -> bytes:
    """A field that holds bytes, text or another message."""
    return varint(number << 3 | BYTES) + varint(len(value)) + value


def wrapped(number: int, parts: list[bytes]) -> list[bytes]:
    """The same of what comes in parts, which are not copied."""
    return [varint(number << 3 | BYTES) + varint(sum(map(len, parts))), *parts]


def _text(number: int, value: str) -> bytes:
    return field(number, value.encode())


class _Frame(NamedTuple):
    """All of an answer but its numbers: the bytes around them, and what they say."""

    around: tuple[tuple[int, int, bytes], ...]
    outputs: tuple[tuple[str, DType, Shape, int], ...]
    version: int


# Answers of one signature and one size differ in nothing but their numbers. Comparing the rest with that of the last
# answer of the same length takes a quarter of the time that reading it again takes, and is as exact.
_FRAMES: dict[int, _Frame] = {}
_MOST_FRAMES = 1024


def predict_response(data: bytes) -> tuple[dict[str, Tensor], int]:
    """The outputs of an encoded `PredictResponse` and the model version that made them; ValueError if malformed.

    Numbers are not copied where they lie as in memory; such arrays are read-only, and may be off their boundary.
    """
    return _as_before(data) or at_once(_read_response(data))


def predict_response_in_steps(data: bytes) -> Generator[None, None, tuple[dict[str, Tensor], int]]:
    """The same; yields every few milliseconds where there are many values that do not lie there as in memory."""
    return _as_before(data) or (yield from _read_response(data))


def _as_before(data: bytes) -> tuple[dict[str, Tensor], int] | None:
    """What an answer holds that is like one before it."""
    frame = _FRAMES.get(len(data))
    if frame is not None:
        for start, end, expected in frame.around:
            if data[start:end] != expected:
                break
        else:
            outputs = {
                name: Tensor(dtype, in_place(data, dtype, shape, start)) for name, dtype, shape, start in frame.outputs
            }
            return outputs, frame.version
    return None


def _read_response(data: bytes) -> Generator[None, None, tuple[dict[str, Tensor], int]]:
    try:
        return (yield from _read_fields(data))
    except IndexError:
        raise ValueError("the answer ends in the middle of a field") from None


def _read_fields(data: bytes) -> Generator[None, None, tuple[dict[str, Tensor], int]]:
    outputs: dict[str, Tensor] = {}
    places: list[Range | None] = []
    spec = b""
    for number, kind, start, end in fields(data, 0, len(data)):
        if number == 1 and kind == BYTES:
            name, tensor, place = yield from _read_entry(data, start, end)
            outputs[name] = tensor
            places.append(place)
        elif number == 2 and kind == BYTES:
            spec += data[start:end]
    version = _spec_version(spec)
    known = [place for place in places if place is not None]
    if len(places) == len(known) == len(outputs):
        _remember(data, outputs, known, version)
    return outputs, version


def _remember(data: bytes, outputs: Mapping[str, Tensor], places: list[Range], version: int) -> None:
    if len(_FRAMES) >= _MOST_FRAMES:
        _FRAMES.clear()
    starts = [0, *[end for _, end in places]]
    ends = [*[start for start, _ in places], len(data)]
    _FRAMES[len(data)] = _Frame(
        tuple((start, end, data[start:end]) for start, end in zip(starts, ends, strict=True)),
        tuple(
            (name, tensor.dtype, tensor.shape, start)
            for (name, tensor), (start, _) in zip(outputs.items(), places, strict=True)
        ),
        version,
    )


@lru_cache(256)
def _spec_version(spec: bytes) -> int:
    version = b""
    for number, kind, start, end in fields(spec, 0, len(spec)):
        if kind == BYTES and number == 2:
            version += spec[start:end]
        elif kind == BYTES and number == 4:  # the other arm of the oneof takes the first one's place
            version = b""
    value = 0
    for number, kind, start, _ in fields(version, 0, len(version)):
        if number == 1 and kind == VARINT:
            value = read_varint(version, start)[0]
    return value - (1 << 64) if value >> 63 else value


def _read_entry(data: bytes, start: int, end: int) -> Generator[None, None, tuple[str, Tensor, Range | None]]:
    """One entry of a map from name to tensor, and where its numbers lie in memory order, if they do."""
    name = ""
    ranges: list[Range] = []
    for number, kind, first, last in fields(data, start, end):
        if number == 1 and kind == BYTES:
            name = data[first:last].decode()
        elif number == 2 and kind == BYTES:
            ranges.append((first, last))
        else:  # protobuf keeps such an entry out of the map
            raise ValueError("an entry of a map has a field that is neither its key nor its value")
    if len(ranges) == 1:
        tensor, place = yield from read_tensor(data, *ranges[0])
        return name, tensor, place
    # A message given twice is merged, which is the same as reading the two one after the other.
    merged = b"".join([data[first:last] for first, last in ranges])
    return name, (yield from read_tensor(merged, 0, len(merged)))[0], None
