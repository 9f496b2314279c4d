"""Where lists stop being like the first one: said of a skeleton (`json_skeleton`), however long, without parsing it."""

from collections.abc import Generator

import numpy as np

from adapter.inference.json_skeleton import MAX_RANK, depth_of, end_of_like
from adapter.inference.tensor import Shape


def irregularity_in_steps(skeleton: bytes) -> Generator[None, None, tuple[Shape, str]]:
    """The index of the first list that is not like those before it, and what is wrong with it.

    The skeleton consists of brackets and commas and is that of no shape. Yields every millisecond or so where it is long.
    """
    depth = depth_of(skeleton)
    if not 0 < depth <= MAX_RANK:
        return (), f"lists are nested more than {MAX_RANK} deep" if depth else "JSON Parse error: expected a list"
    characters = np.frombuffer(skeleton, np.uint8)
    # Whatever stands last is taken for the bracket that closes the outermost list.
    last = len(skeleton) - 1
    # The characters of one element of each level with its comma and the size of the list that it is, from the inside out.
    periods, sizes = [1], [0]
    for level in reversed(range(depth)):
        # What is inside the first list of a level must be a number of elements like the first of them.
        inside = level + 1
        # A list without comma has one value or none: one is what it is taken for, even where nothing follows its bracket.
        end = max(inside, min((yield from end_of_like(characters, inside, periods[-1])), last))
        found = skeleton[end : min(end + 1, last)]
        size, rest = divmod(end + 1 - inside, periods[-1])
        if rest or found not in (b"]", b""):
            return _described(found, end - inside, periods, sizes, (0,) * level)
        sizes.append(size)
        periods.append(end + 2 - level)
    return (), "JSON Parse error: there is more after the end of the list"


def _described(found: bytes, position: int, periods: list[int], sizes: list[int], index: Shape) -> tuple[Shape, str]:
    """The same for a list where this is found at a position inside, first of all that is not as in a list of such elements."""
    size = 0
    while True:
        period = periods.pop()
        place, offset = divmod(position, period)
        if offset == period - 1:  # at the comma after an element, or the end
            break
        index = (*index, place)
        size = sizes.pop()
        if not offset:
            return index, f"expected a list of {count(size)} as in the lists before it, got a number"
        position = offset - 1
    if not found:
        return index, "JSON Parse error: the list has no end"
    if found == b"[":
        what = "expected a number as before it, got a list" if period == 1 else "JSON Parse error: no comma"
        return (*index, place), what
    got = f"one of {count(place + 1)}" if found == b"]" else "more"
    return index, f"expected a list of {count(size)} as in the lists before it, got {got}"


def count(size: int) -> str:
    """`1 value`, `2 values`."""
    return f"{size} value" + ("" if size == 1 else "s")
