"""Every mistake in a document that msgspec refuses: it stops at the first, people would rather fix all of them at once.

Asked only once something is wrong, so this may take its time.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec

Where = tuple[str | int, ...]


def mistakes(value: object, expected: type[msgspec.Struct]) -> list[tuple[Where, str]]:
    """Where `value` is not what `expected` asks for, and why."""
    return list(_of_struct(value, expected, ()))


def _of_struct(value: object, expected: type[msgspec.Struct], where: Where) -> Iterator[tuple[Where, str]]:
    if not isinstance(value, Mapping):
        yield where, f"expected a table, got {_kind(value)}"
        return
    fields = {field.encode_name: field for field in msgspec.structs.fields(expected)}
    for key in value:
        if key not in fields:
            close = difflib.get_close_matches(key, fields, n=1)
            yield (*where, key), "no such field" + (f"; did you mean {close[0]}?" if close else "")
    for name, field in fields.items():
        if name in value:
            yield from _of_value(value[name], field.type, (*where, name))
        elif field.required:
            yield (*where, name), "missing"


def _of_value(value: object, expected: Any, where: Where) -> Iterator[tuple[Where, str]]:
    struct = _struct_in(expected)
    item = _item_of(expected)
    if struct is not None:
        yield from _of_struct(value, struct, where)
    elif item is not None and isinstance(value, list):
        yield from _by_itself([], expected, where) if not value else ()
        for i, entry in enumerate(value):
            yield from _of_value(entry, item, (*where, i))
    else:
        yield from _by_itself(value, expected, where)


def _by_itself(value: object, expected: Any, where: Where) -> Iterator[tuple[Where, str]]:
    try:
        msgspec.convert(value, expected)
    except msgspec.ValidationError as error:
        inner = re.search(r" - at `[$](?:\[(?:\.\.\.)?\])?[.]?(.*?)`$", str(error))
        yield where, lowered(error) + (f", in {inner[1]}" if inner and inner[1] else "")


def lowered(error: msgspec.ValidationError) -> str:
    """msgspec's words without their path and back ticks: `expected str, got int`."""
    text = re.sub(r" - at `.*`$", "", str(error)).replace("`", "")
    return text[:1].lower() + text[1:]


def _struct_in(expected: Any) -> type[msgspec.Struct] | None:
    return next((arm for arm in _arms(expected) if isinstance(arm, type) and issubclass(arm, msgspec.Struct)), None)


def _item_of(expected: Any) -> Any:
    """What the entries of a list of tables are, or None for what is not one."""
    for arm in _arms(expected):
        arguments = get_args(arm)
        if get_origin(arm) is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
            return arguments[0]
    return None


def _arms(expected: Any) -> list[Any]:
    """The types that a type stands for, without what annotates them."""
    if get_origin(expected) is Annotated:
        return _arms(get_args(expected)[0])
    if get_origin(expected) is Union or type(expected).__name__ == "UnionType":
        return [inner for arm in get_args(expected) for inner in _arms(arm)]
    return [expected]


def _kind(value: object) -> str:
    names: dict[type, str] = {list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), type(value).__name__)
