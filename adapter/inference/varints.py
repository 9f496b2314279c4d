"""Protobuf varints, one by one and whole runs of them: how integers, bools and half-width floats travel in typed fields."""

import numpy as np

from adapter.inference.tensor import Array

# Up to this many bytes a Python loop is faster than twenty numpy calls.
SHORT = 64
_TOO_LONG = "a varint is longer than ten bytes"


def read_varint(data: bytes, pos: int) -> tuple[int, int]:
    """The varint at an offset, and where it ends; IndexError if the data ends first."""
    byte = data[pos]
    pos += 1
    value = byte & 0x7F
    shift = 7
    while byte >= 0x80:
        if shift >= 70:
            raise ValueError(_TOO_LONG)
        byte = data[pos]
        pos += 1
        value |= (byte & 0x7F) << shift
        shift += 7
    return value & 0xFFFF_FFFF_FFFF_FFFF, pos


def unpack_varints(data: bytes, start: int, end: int) -> Array:
    """All varints between two offsets, as 64-bit patterns."""
    if end - start <= SHORT:
        return _one_by_one(data[start:end])
    return _at_once(np.frombuffer(data, np.uint8, end - start, start))


def _one_by_one(text: bytes) -> Array:
    values = []
    pos = 0
    while pos < len(text):
        value, pos = read_varint(text, pos)
        values.append(value)
    return np.array(values, np.uint64)


def _at_once(text: Array) -> Array:
    """The first byte of every varint, then the second of those that have one, and so on to the tenth."""
    last = np.flatnonzero(text < 0x80)
    if len(last) == len(text):
        return text.astype(np.uint64)
    if not len(last) or last[-1] != len(text) - 1:
        raise ValueError("a packed field ends in the middle of a varint")
    first = np.concatenate([[0], last[:-1] + 1])
    longest = last - first + 1
    if longest.max() > 10:
        raise ValueError(_TOO_LONG)
    values: Array = (text[first] & 0x7F).astype(np.uint64)
    for k in range(1, int(longest.max())):
        longer = np.flatnonzero(longest > k)
        values[longer] |= (text[first[longer] + k] & np.uint8(0x7F)).astype(np.uint64) << np.uint64(7 * k)
    return values
