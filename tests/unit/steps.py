"""What is offered in steps, done at once."""

from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")


def run(steps: Generator[None, None, T]) -> tuple[int, T]:
    """How many times it gave way to others, and its result."""
    made = 0
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return made, result
        made += 1
