"""The values of one input of an inference request to an array: binary data, JSON text, or parsed JSON. No I/O.

All take `given`, which says what was declared, and name it, and the element where there is one, in their complaints.
Nothing is cut or rounded to infinity in silence: a number that its datatype can't hold is refused.
"""

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from struct import Struct
from typing import Any

import numpy as np

from adapter.inference.conversion import converted
from adapter.inference.json_long import Column
from adapter.inference.json_numbers import numbers, unravelled
from adapter.inference.json_parts import Large
from adapter.inference.json_scan import echo
from adapter.inference.json_tree import Path, flattened, path_from
from adapter.inference.tensor import BFLOAT16, BOOL, INT64, STRING, UINT64, Array, BadInput, DType, Shape
from adapter.joining import STEP, part

# Strings taken from binary data in one go: about 2 ms.
_STEP = 1 << 14
_LENGTH = Struct("<I")
# How numbers that JSON does not have are written, as in ProtoJSON (https://protobuf.dev/programming-guides/json/).
_NOT_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

Steps = Generator[None, None, Array]


@dataclass(slots=True, eq=False)
class Given:
    """An input as declared: number `position` among the inputs, of `size` elements."""

    position: int
    name: str
    dtype: DType
    shape: Shape
    size: int

    @property
    def where(self) -> str:
        return f'inputs[{self.position}] "{self.name[:64]}"'

    @property
    def expected(self) -> str:
        return f"{self.where}: expected {self.dtype.v2}[{','.join(map(str, self.shape))}]"


def from_binary(body: bytes, start: int, end: int, given: Given) -> Steps:
    """Numbers as they lie in the body, little-endian; a bool is a byte, a string its length in four bytes and itself."""
    if given.dtype.is_string:
        return (yield from _strings_from_binary(body, start, end, given))
    length = given.size * given.dtype.numpy.itemsize
    if end - start != length:
        raise BadInput(f"{given.expected} = {_counted(length, 'byte')}, got {end - start}")
    if not length:
        return np.empty(given.shape, given.dtype.numpy)
    array = np.frombuffer(body, given.dtype.numpy, given.size, start)
    if given.dtype is BOOL and (bits := array.view(np.uint8)).max() > 1:
        index = int(np.argmax(bits > 1))
        raise BadInput(f"{given.expected} of bytes 0 and 1, got {bits[index]} at byte {index}")
    return array.reshape(given.shape)


def _strings_from_binary(body: bytes, start: int, end: int, given: Given) -> Steps:
    items: list[bytes] = []
    copied = 0
    while start < end:
        first = start + _LENGTH.size
        start = first + _LENGTH.unpack_from(body, start)[0] if first <= end else first
        if start > end:
            raise BadInput(f"{given.expected}, got bytes that end in the middle of element {len(items)}")
        items.append(body[first:start] if start - first <= STEP else (yield from part(body, first, start)))
        copied += start - first
        if not len(items) % _STEP or copied >= STEP:
            copied = 0
            yield
    if len(items) != given.size:
        raise BadInput(f"{given.expected} = {_counted(given.size, 'value')}, got {len(items)}")
    array = np.empty(len(items), object)
    for start in range(0, len(items), 4 * _STEP):
        array[start : start + 4 * _STEP] = items[start : start + 4 * _STEP]
        yield
    return array.reshape(given.shape)


def from_text(text: bytes, start: int, end: int, given: Given) -> Generator[None, None, Array | None]:
    """A list of numbers, or of lists of them, as the text has it; None if anything there takes more care."""
    array = yield from numbers(text, start, end, _widest(given.dtype))
    if array is None or array.shape not in (given.shape, (given.size,)):
        return None
    if _is_float(given.dtype):
        return None if _infinite(array, given.dtype).any() else array.reshape(given.shape)
    if given.dtype is UINT64 or given.dtype is INT64:
        return array.reshape(given.shape)
    low, high = _range(given.dtype)
    if array.size and (array.min() < low or array.max() > high):
        return None
    return array.astype(given.dtype.numpy, copy=False).reshape(given.shape)


def from_list(data: list[Any], given: Given) -> Steps:
    """Parsed values, flat in row-major order or nested as the shape says."""
    path = path_from(f"{given.where}: data")

    def made(leaves: list[Any], shape: Shape, path: Path) -> Array:
        return _array(leaves, given.dtype, lambda position: path(unravelled(position, shape))).reshape(shape)

    if isinstance(data, Large):
        column = Column(made, path)
        yield from column.fill(data)
        _check_shape(column.shape, given)
        return (yield from column.whole()).reshape(given.shape)
    shape, leaves = flattened(data, path)
    _check_shape(shape, given)
    return made(leaves, shape, path).reshape(given.shape)


def _check_shape(shape: Shape, given: Given) -> None:
    """That lists of this shape hold the values of an input."""
    if len(shape) == 1 and shape[0] != given.size:
        raise BadInput(f"{given.expected} = {_counted(given.size, 'value')}, got {shape[0]}")
    # Lists without elements can't show the dimensions behind the first that is 0.
    if len(shape) > 1 and shape != (given.shape[: len(shape)] if 0 in shape else given.shape):
        raise BadInput(f"{given.expected}, flat or so nested, got lists nested as [{','.join(map(str, shape))}]")


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")


def _objects(items: list[bytes]) -> Array:
    array = np.empty(len(items), object)
    array[:] = items
    return array


def _array(leaves: list[Any], dtype: DType, where: Callable[[int], str]) -> Array:
    """The values as a flat array, each of the JSON type and in the range that the dtype asks for."""
    types = set(map(type, leaves))
    if dtype.is_string:
        _check(leaves, types <= {str}, lambda leaf: isinstance(leaf, str), "a string", where)
        return _objects([leaf.encode() for leaf in leaves])
    if dtype is BOOL:
        _check(leaves, types <= {bool}, lambda leaf: type(leaf) is bool, "true or false", where)
        return np.array(leaves, np.bool_)
    if not _is_float(dtype):
        low, high = _range(dtype)
        fits = types <= {int} and (not leaves or (min(leaves) >= low and max(leaves) <= high))
        expected = f"an integer from {low} to {high} ({dtype.v2})"
        _check(leaves, fits, lambda leaf: type(leaf) is int and low <= leaf <= high, expected, where)
        return np.array(leaves, dtype.numpy)
    if types - {int, float}:
        leaves = [_NOT_NUMBERS.get(leaf, leaf) if isinstance(leaf, str) else leaf for leaf in leaves]
        _check(leaves, False, lambda leaf: type(leaf) in (int, float), f"a number ({dtype.v2})", where)
    values = np.array(leaves, np.float64)
    array: Array = converted(values, dtype)  # type: ignore[assignment]  # None for integers only
    infinite = _infinite(array, dtype)
    if infinite.any() and (beyond := infinite & np.isfinite(values)).any():
        position = int(np.argmax(beyond))
        raise BadInput(f"{where(position)}: {leaves[position]} is beyond {dtype.v2}")
    return array


def _check(
    leaves: list[Any], fit: bool, fits: Callable[[Any], bool], expected: str, where: Callable[[int], str]
) -> None:
    """Names the first leaf that does not fit, if they do not all fit."""
    if not fit:
        for position, leaf in enumerate(leaves):
            if not fits(leaf):
                raise BadInput(f"{where(position)}: expected {expected}, got {echo(leaf)}")


def _is_float(dtype: DType) -> bool:
    return dtype.numpy.kind == "f" or dtype is BFLOAT16


def _widest(dtype: DType) -> DType:
    """The type to read numbers by; integers by a wide one, so that what is beyond their own is seen."""
    return dtype if _is_float(dtype) or dtype in (UINT64, BOOL, STRING) else INT64


def _range(dtype: DType) -> tuple[int, int]:
    limits = np.iinfo(dtype.numpy)
    return int(limits.min), int(limits.max)


def _infinite(array: Array, dtype: DType) -> Array:
    infinite: Array = (array & 0x7FFF) == 0x7F80 if dtype is BFLOAT16 else np.isinf(array)
    return infinite
