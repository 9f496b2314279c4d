"""Two JSON answers, one expected and one given: where they differ, in lines that a person can read. Pure."""

import math
from collections.abc import Iterator
from typing import Any

# Lines shown of one answer; the rest is counted.
MOST = 12


def differences(expected: Any, given: Any, tolerance: float) -> list[str]:
    """One line for each place that differs; numbers may by `tolerance`, relative to the expected one or absolute."""
    found = list(_differences(expected, given, tolerance, ""))
    return [*found[:MOST], f"… and {len(found) - MOST} more"] if len(found) > MOST else found


def _differences(expected: Any, given: Any, tolerance: float, place: str) -> Iterator[str]:
    if isinstance(expected, dict) and isinstance(given, dict):
        yield from _of_objects(expected, given, tolerance, place)
    elif isinstance(expected, list) and isinstance(given, list):
        if len(expected) != len(given):
            yield f"{place or 'the answer'}: expected {len(expected)} values, got {len(given)}"
        for i, (one, other) in enumerate(zip(expected, given, strict=False)):
            yield from _differences(one, other, tolerance, f"{place}[{i}]")
    elif _is_number(expected) and _is_number(given):
        if not close(expected, given, tolerance):
            off = f"(off by {abs(given - expected):.3g})"
            yield f"{place or 'the answer'}: expected {expected:.9g}, got {given:.9g} {off}"
    elif expected != given or type(expected) is not type(given):
        yield f"{place or 'the answer'}: expected {_shown(expected)}, got {_shown(given)}"


def _of_objects(expected: dict[str, Any], given: dict[str, Any], tolerance: float, place: str) -> Iterator[str]:
    for name in [*expected, *(name for name in given if name not in expected)]:
        inside = f"{place}.{name}" if place else str(name)
        if name not in given:
            yield f"{inside}: expected {_shown(expected[name])}, missing"
        elif name not in expected:
            yield f"{inside}: {_shown(given[name])}, not expected"
        else:
            yield from _differences(expected[name], given[name], tolerance, inside)


def close(expected: float, given: float, tolerance: float) -> bool:
    """Within `tolerance`, relative or absolute; NaN is NaN."""
    if math.isnan(expected) or math.isnan(given):
        return math.isnan(expected) and math.isnan(given)
    return math.isclose(expected, given, rel_tol=tolerance, abs_tol=tolerance)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
