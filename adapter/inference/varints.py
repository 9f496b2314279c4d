"""Runs of protobuf varints to numpy arrays: how integers, bools and half-width floats travel in typed fields."""

import numpy as np

from adapter.inference.tensor import Array, DType

# Below this many bytes a Python loop is faster than twenty numpy calls.
SHORT = 64


def unpack_varints(data: bytes, start: int, end: int, dtype: DType) -> Array:
    """All varints between two offsets, each cut to the width of `dtype`, as protobuf and TensorFlow cut them."""
    values = (
        _in_a_loop(data[start:end])
        if end - start <= SHORT
        else _at_once(np.frombuffer(data, np.uint8, end - start, start))
    )
    if dtype.numpy.kind == "b":
        return np.not_equal(values, 0)
    if dtype.numpy.kind == "f":  # bit patterns
        return np.asarray(values.astype(np.uint16)).view(dtype.numpy)
    cut: Array = values.astype(dtype.numpy)
    return cut


def _in_a_loop(text: bytes) -> Array:
    values = []
    value = shift = 0
    for byte in text:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            values.append(value & 0xFFFF_FFFF_FFFF_FFFF)
            value = shift = 0
        elif shift >= 70:
            raise ValueError("a varint is longer than ten bytes")
    if shift:
        raise ValueError("a packed field ends in the middle of a varint")
    return np.array(values, np.uint64)


def _at_once(text: Array) -> Array:
    """Byte k of every varint that has one, for k in 0..9."""
    last = np.flatnonzero(text < 0x80)
    if len(last) == len(text):
        return text
    if not len(last) or last[-1] != len(text) - 1:
        raise ValueError("a packed field ends in the middle of a varint")
    first = np.concatenate([[0], last[:-1] + 1])
    length = last - first + 1
    if length.max() > 10:
        raise ValueError("a varint is longer than ten bytes")
    values: Array = (text[first] & 0x7F).astype(np.uint64)
    for k in range(1, int(length.max())):
        longer = np.flatnonzero(length > k)
        values[longer] |= (text[first[longer] + k] & np.uint8(0x7F)).astype(np.uint64) << np.uint64(7 * k)
    return values
