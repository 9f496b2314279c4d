"""Fields that are arrays, read straight from the JSON of a request where they are long. No I/O.

msgspec would make Python's floats of them first: 3.5 times the work, in one go that keeps everybody waiting. So it gets
the text without them (`json_lists`), and a hook that puts each array where its name is. Where anything does not fit,
the request is read in msgspec's way from the beginning, which finds the words.
"""

from collections.abc import Generator, Mapping
from typing import Any, NamedTuple

import msgspec

from adapter.bundle import arrays
from adapter.bundle.arrays import ArrayField
from adapter.inference.json_lists import without_long_lists
from adapter.inference.json_numbers import numbers
from adapter.inference.tensor import DOUBLE, FLOAT, INT32, INT64, Array, DType

# Text of arrays that is read in one go: about 2 ms.
_TOGETHER = 1 << 18
# None of these loses what is beyond the field's own type.
_READ_AS: Mapping[str, DType] = {"float32": FLOAT, "float64": DOUBLE, "int32": INT32, "int64": INT64, "uint8": INT32}


class Taken(NamedTuple):
    """A JSON text with names in place of long arrays, and these, until they have found their places."""

    text: bytes
    arrays: dict[str, Array]


class LongArrays:
    """Takes them from the texts of requests whose fields have these types."""

    def __init__(self, fields: Mapping[str, frozenset[Any]]) -> None:
        self.keys = {
            msgspec.json.encode(name): dtype
            for name, types in fields.items()
            if types.isdisjoint((list, tuple, set)) and (dtype := _dtype(types)) is not None
        }
        """The fields' names as they stand in a text, and what their arrays are read as."""

    def taken(self, text: bytes) -> Generator[None, None, Taken | None]:
        """The text without its long arrays, None if there are none; yields every few milliseconds.

        To be run on the event loop, whose the parser of `json_numbers` is.
        """
        cut = yield from without_long_lists(text, len(text), list(self.keys))
        if cut is None:
            return None
        found: dict[str, Array] = {}
        looked_at = 0
        for name, (start, end, key) in cut.lists.items():
            array = yield from numbers(text, start, end, self.keys[key])
            if array is None:
                return None
            found[name] = array
            looked_at += end - start
            if looked_at >= _TOGETHER:
                looked_at = 0
                yield
        return Taken(cut.text, found)


def decoded(taken: Taken | None, kind: Any) -> Any:
    """A value of this type, once; None if nothing was taken, or that takes more care."""
    if taken is None:
        return None
    waiting = taken.arrays

    def placed(expected: type, value: Any) -> Any:
        array = waiting.pop(value, None) if type(value) is str else None
        return arrays.decode(expected, value) if array is None else arrays.fitting(expected, array)

    try:
        found = msgspec.json.decode(taken.text, type=kind, dec_hook=placed)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return None if waiting else found


def _dtype(types: frozenset[Any]) -> DType | None:
    """What the arrays are read as of a field that may have these types."""
    found = [_READ_AS.get(kind.dtype) for kind in types if isinstance(kind, type) and issubclass(kind, ArrayField)]
    return found[0] if len(found) == 1 else None
