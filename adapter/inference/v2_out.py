"""Tensors to an inference response of the Open Inference Protocol: JSON, binary data, or both. No I/O.

Values in JSON are flat, in row-major order, as in the specification's examples. Numbers that JSON does not have are the
strings of ProtoJSON ("NaN", "Infinity", "-Infinity"), which numpy, too, reads as numbers. Binary data is joined once.
"""

from collections.abc import Generator, Iterable, Iterator
from struct import Struct

import orjson

from adapter.inference import json_out
from adapter.inference.tensor import BadInput, Tensor, memory_of
from adapter.joining import Piece, joined

Steps = Generator[None, None, tuple[bytes, int | None]]

_LENGTH = Struct("<I")
# Bytes of strings written in one go, each counting as so many more: about 2 ms. A longer string is written in pieces.
_RUN, _EACH = 1 << 19, 1 << 7


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
    binary: list[Piece] = []
    for name, tensor, wants_binary in outputs:
        described = orjson.dumps({"name": name, "datatype": tensor.dtype.v2, "shape": tensor.shape})
        parts += (separator, described[:-1])
        separator = b","
        if wants_binary:
            contents = (yield from _strings_as_binary(tensor)) if tensor.dtype.is_string else [memory_of(tensor.data)]
            parts.append(b',"parameters":{"binary_data_size":%d}}' % sum(map(len, contents)))
            binary += contents
        else:
            parts += (b',"data":', *(yield from _as_json(name, tensor)), b"}")
    parts.append(b"]}")
    length = sum(map(len, parts)) if binary else None
    return (yield from joined([*parts, *binary])), length


def _strings_as_binary(tensor: Tensor) -> Generator[None, None, list[Piece]]:
    pack = _LENGTH.pack
    runs: list[Piece] = [b""]  # a tensor without strings is binary data all the same
    for run in _runs(tensor.data.ravel().tolist()):
        if _is_long(run):
            runs += (pack(len(run[0])), run[0])  # as it is, to be copied once, in steps
        else:
            runs.append(b"".join([part for item in run for part in (pack(len(item)), item)]))
        yield
    return runs


def _runs(items: list[bytes]) -> Iterator[list[bytes]]:
    """A list in parts that take a few milliseconds each, but for a string that is long itself: that is a part alone."""
    start = size = 0
    for stop, item in enumerate(items):
        if size and size + len(item) + _EACH > _RUN:
            yield items[start:stop]
            start, size = stop, 0
        size += len(item) + _EACH
    if start < len(items):
        yield items[start:]


def _is_long(run: list[bytes]) -> bool:
    return len(run[0]) > _RUN


def _as_json(name: str, tensor: Tensor) -> Generator[None, None, list[bytes]]:
    if tensor.dtype.is_string:
        return (yield from _strings_as_json(name, tensor))
    flat = Tensor(tensor.dtype, tensor.data.reshape(-1))
    return [(yield from json_out.together(json_out.in_pieces(name, flat, "string")))]


def _strings_as_json(name: str, tensor: Tensor) -> Generator[None, None, list[bytes]]:
    done = 0
    parts = [b"["]
    for run in _runs(tensor.data.ravel().tolist()):
        if done:
            parts.append(b",")
        try:
            for piece in _texts(run):
                parts.append(piece)
                yield
        except UnicodeDecodeError:
            # One of them it is: the last where the others are text, so that a long one is not looked at again.
            others = enumerate(run[:-1])
            index = done + next((index for index, item in others if not _is_text(item)), len(run) - 1)
            problem = (
                f"element {index} is not UTF-8, which JSON can't hold; ask for binary data (parameters.binary_data)"
            )
            raise BadInput(f'output "{name}": {problem}') from None
        done += len(run)
    parts.append(b"]")
    return parts


def _texts(run: list[bytes]) -> Iterator[bytes]:
    """The texts of a run, with commas between them; UnicodeDecodeError if one is not UTF-8."""
    if _is_long(run):
        yield from json_out.long_text(run[0], "strict")
    else:
        yield orjson.dumps([item.decode() for item in run])[1:-1]


def _is_text(item: bytes) -> bool:
    try:
        item.decode()
    except UnicodeDecodeError:
        return False
    return True
