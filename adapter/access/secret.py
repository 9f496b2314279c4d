"""Values that nobody may read in a log, an error, a page or a dump: they show themselves only to who asks by name."""

import hmac
from collections.abc import Callable
from typing import Any, NoReturn

HIDDEN = "Secret(…)"


class Secret:
    """Bytes that `reveal` alone gives out. It prints as `Secret(…)`, and can neither be pickled nor made JSON of."""

    __slots__ = ("_reveal",)

    def __init__(self, value: bytes) -> None:
        # A closure and not an attribute: what walks over attributes (dumps, debuggers' summaries) finds no value.
        self._reveal: Callable[[], bytes] = lambda: value

    def reveal(self) -> bytes:
        """The value."""
        return self._reveal()

    def __len__(self) -> int:
        return len(self._reveal())

    def __repr__(self) -> str:
        return HIDDEN

    __str__ = __repr__

    def __format__(self, _: str) -> str:
        return HIDDEN

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._reveal(), other._reveal())

    def __hash__(self) -> int:
        return hash((Secret, self._reveal()))

    def __copy__(self) -> "Secret":
        return self

    def __deepcopy__(self, _: dict[int, Any]) -> "Secret":
        return self

    def __reduce_ex__(self, _: Any) -> NoReturn:
        raise TypeError("a secret cannot be pickled")
