"""Where lists stop being like the first one: said of a skeleton (`json_skeleton`), however long, without parsing it."""

import numpy as np

from adapter.inference.tensor import Shape

_MAX_RANK = 64


def irregularity(skeleton: bytes) -> tuple[Shape, str]:
    """The index of the first list that is not like those before it, and what is wrong with it.

    The skeleton consists of brackets and commas and is that of no shape.
    """
    depth = len(skeleton) - len(skeleton.lstrip(b"["))
    if not 0 < depth <= _MAX_RANK:
        return (), f"lists are nested more than {_MAX_RANK} deep" if depth else "JSON Parse error: expected a list"
    # The text of one element of each level and the size of the list that it is, from the inside out.
    elements, sizes = [b""], [0]
    closed = 0
    for level in reversed(range(depth)):
        # What is inside the first list of a level must be a number of elements like the first of them.
        closed = skeleton.find(b"]" * (depth - level), max(closed, 0))
        inside = skeleton[level + 1 : closed + depth - level - 1] if closed >= 0 else skeleton[level + 1 : -1]
        size, rest = divmod(len(inside) + 1, len(elements[-1]) + 1)
        expected = ((elements[-1] + b",") * (size + 1))[: len(inside)]
        if rest or inside != expected:
            return _described(inside, _first_difference(inside, expected), elements, sizes, (0,) * level)
        elements.append(b"[%b]" % inside)
        sizes.append(size)
    return (), "JSON Parse error: there is more after the end of the list"


def _described(
    inside: bytes, position: int, elements: list[bytes], sizes: list[int], index: Shape
) -> tuple[Shape, str]:
    """The same for a list with this inside, which differs at this position from a list of such elements."""
    found = inside[position : position + 1]
    size = 0
    while True:
        element = elements.pop()
        place, offset = divmod(position, len(element) + 1)
        if offset == len(element):  # at the comma after an element, or the end
            break
        index = (*index, place)
        size = sizes.pop()
        if not offset:
            return index, f"expected a list of {count(size)} as in the lists before it, got a number"
        position = offset - 1
    if not found:
        return index, "JSON Parse error: the list has no end"
    if found == b"[":
        return (
            *index,
            place,
        ), "expected a number as before it, got a list" if not element else "JSON Parse error: no comma"
    got = f"one of {count(place + 1)}" if found == b"]" else "more"
    return index, f"expected a list of {count(size)} as in the lists before it, got {got}"


def _first_difference(left: bytes, right: bytes) -> int:
    length = min(len(left), len(right))
    different = np.frombuffer(left, np.uint8, length) != np.frombuffer(right, np.uint8, length)
    place = int(different.argmax()) if length else 0
    return place if length and different[place] else length


def count(size: int) -> str:
    """`1 value`, `2 values`."""
    return f"{size} value" + ("" if size == 1 else "s")
