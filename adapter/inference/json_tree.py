"""Parsed predict bodies to tensors, with care and in words: strings, bools, mixed inputs and every mistake.

The rules of tensorflow_serving/util/json_tensor.cc, one level of nesting at a time instead of one value at a time; the
path to the first value that is wrong stands before what is wrong with it (`instances[3].x[1]: ...`).
"""

from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

import numpy as np

from adapter.inference import json_scan
from adapter.inference.base64 import decode_base64, is_base64
from adapter.inference.conversion import converted, out_of_range, range_of, unpaired
from adapter.inference.json_numbers import unravelled
from adapter.inference.json_ragged import count
from adapter.inference.json_scan import Object, echo, type_name
from adapter.inference.json_strings import LongText
from adapter.inference.tensor import BFLOAT16, BOOL, Array, BadInput, DType, Shape, Tensor, TensorSpec

MAX_RANK = 64
Path = Callable[[Shape], str]


def signature_name(tree: Object) -> str:
    """The signature a body asks for, "" if it doesn't say."""
    name = tree.get("signature_name", "")
    if not isinstance(name, str):
        raise BadInput(
            f"JSON Value: {echo(tree)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return name.whole() if isinstance(name, LongText) else name


def tensors(tree: Object, inputs: Mapping[str, TensorSpec]) -> dict[str, Tensor]:
    """The tensors of a body in row (`instances`) or columnar (`inputs`) format."""
    if "instances" in tree:
        if "inputs" in tree:
            raise BadInput(
                f"JSON Value: {echo(tree)} Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "
            )
        instances = tree["instances"]
        if type(instances) is not list:
            raise BadInput(f"JSON Value: {echo(tree)} Expecting 'instances' to be an list/array")
        if not instances:
            raise BadInput(f"JSON Value: {echo(tree)} No values in 'instances' array")
        return _from_rows(instances, inputs)
    if "inputs" in tree:
        return _from_columns(tree["inputs"], inputs)
    raise BadInput("Missing 'inputs' or 'instances' key")


def _from_rows(rows: list[Any], inputs: Mapping[str, TensorSpec]) -> dict[str, Tensor]:
    objects = is_object(rows[0])
    check_rows(rows, 0, objects, inputs)
    if not objects:
        ((name, spec),) = inputs.items()
        return {name: _rows(rows, spec.dtype, path_from("instances"))}
    return {name: _rows([row[name] for row in rows], spec.dtype, path_in_rows(name)) for name, spec in inputs.items()}


def _rows(rows: list[Any], dtype: DType, path: Path) -> Tensor:
    found = tensor(rows, dtype, path)
    if not found.data.ndim:  # two rows, each a bare number, look like one pair
        index, what = unpaired((2,), rows[0], dtype)
        raise BadInput(f"{path(index)}: {what}")
    return found


def check_rows(rows: list[Any], first: int, objects: bool, inputs: Mapping[str, TensorSpec]) -> None:
    """That rows, from number `first` on, are objects with a value for each input; or, without `objects`, that none is one."""
    if not objects:
        if len(inputs) > 1:
            raise BadInput(
                "instances is a plain list, but expecting list of objects as multiple input tensors required "
                "as per tensorinfo_map"
            )
        for index, row in enumerate(rows, first):
            if is_object(row):
                raise BadInput(f"Expecting value/list but got object at item {index} of input list")
        return
    for index, row in enumerate(rows, first):
        if not is_object(row):
            raise BadInput(f"Expecting object but got list at item {index} of input list")
        if row.keys() != inputs.keys():
            raise BadInput(_wrong_keys(index, row, inputs))


def _wrong_keys(index: int, row: Object, inputs: Mapping[str, TensorSpec]) -> str:
    unknown = next((key for key in row if key not in inputs), None)
    if unknown is not None:
        return f"instances[{index}]: JSON object: does not have named input: {unknown[:256]}"
    return f"instances[{index}]: JSON object: {echo(row)} keys must be equal to: {','.join(sorted(inputs))}"


def _from_columns(value: Any, inputs: Mapping[str, TensorSpec]) -> dict[str, Tensor]:
    check_columns(value, inputs)
    if not is_object(value):
        ((name, spec),) = inputs.items()
        return {name: tensor(value, spec.dtype, path_from("inputs"))}
    return {name: tensor(value[name], spec.dtype, path_from(f"inputs.{name}")) for name, spec in inputs.items()}


def check_columns(value: Any, inputs: Mapping[str, TensorSpec]) -> None:
    """That `inputs` has a value for each input; or is one, if there is only one."""
    if not is_object(value):
        if len(inputs) > 1:
            raise BadInput(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required "
                "as per tensorinfo_map"
            )
        return
    missing = [name for name in inputs if name not in value]
    if missing:
        raise BadInput(f"Missing named input: {missing[0]} in 'inputs' object.")


def path_from(prefix: str) -> Path:
    """Paths to what stands in lists under `prefix`."""
    return lambda index: prefix + "".join([f"[{position}]" for position in index])


def path_in_rows(name: str) -> Path:
    """Paths to what an input has in all rows."""
    return lambda index: path_from(f"instances[{index[0]}].{name}")(index[1:]) if index else f"instances: {name}"


def is_object(value: Any) -> bool:
    """Whether it is an object, and not a string of bytes."""
    return isinstance(value, dict) and not (len(value) == 1 and is_base64(value))


def tensor(value: Any, dtype: DType, path: Path) -> Tensor:
    """A value, or lists of values nested regularly."""
    shape, leaves = flattened(value, path)
    return Tensor(dtype, array(leaves, shape, dtype, path))


def array(leaves: list[Any], shape: Shape, dtype: DType, path: Path) -> Array:
    """What `flattened` found, as the dtype has it."""
    values = _array(leaves, dtype, lambda position: path(unravelled(position, shape))).reshape(shape)
    if dtype.is_string or dtype is BOOL:
        return values
    found = converted(values, dtype)
    if found is None:
        index, what = unpaired(shape, leaves[0], dtype)
        raise BadInput(f"{path(index)}: {what}")
    return found


class Piecewise:
    """The careful reader of one large input that `json_numbers` calls on; it never parses more than a piece."""

    def __init__(self, dtype: DType, path: Path) -> None:
        self._dtype = dtype
        self._path = path

    def values(self, text: bytes, first: int, shape: Shape) -> Array:
        """The values of a piece whose first value is at this place among all."""
        try:
            leaves = [json_scan.value(text)]
        except BadInput as error:
            what = str(error).partition(" at offset")[0]
            raise BadInput(f"{self._path(())}: {what} after {self._path(unravelled(first, shape))}") from None
        while type(leaves[0]) is list:
            leaves = list(chain.from_iterable(leaves))
        return _array(leaves, self._dtype, lambda position: self._path(unravelled(first + position, shape)))

    def mistake(self, index: Shape, what: str) -> BadInput:
        """What is wrong at an index of the lists."""
        return BadInput(f"{self._path(index)}: {what}")


def flattened(value: Any, path: Path) -> tuple[Shape, list[Any]]:
    """The shape that the first values have, and all values in a row once every list fits it."""
    shape: list[int] = []
    first = value
    while type(first) is list:
        shape.append(len(first))
        if len(shape) > MAX_RANK:
            raise BadInput(f"{path(())}: lists are nested more than {MAX_RANK} deep")
        if not first:
            break
        first = first[0]
    leaves = [value]
    for level, size in enumerate(shape):
        if set(map(type, leaves)) - {list} or set(map(len, leaves)) - {size}:
            position = next(i for i, leaf in enumerate(leaves) if type(leaf) is not list or len(leaf) != size)
            where = path(unravelled(position, tuple(shape[:level])))
            raise BadInput(
                f"{where}: expected a list of {count(size)} as in the lists before it, got {_kind(leaves[position])}"
            )
        leaves = list(chain.from_iterable(leaves))
    return tuple(shape), leaves


def _kind(value: Any) -> str:
    return f"one of {count(len(value))}" if type(value) is list else f"{type_name(value)} {echo(value)}"


def _array(leaves: list[Any], dtype: DType, where: Callable[[int], str]) -> Array:
    """The values as a flat array, all of them being of the JSON type that the dtype asks for."""
    kind = dtype.numpy.kind
    if dtype.is_string:
        return _strings(leaves, dtype, where)
    types: set[type] = {bool} if kind == "b" else {int} if kind in "iu" and dtype is not BFLOAT16 else {int, float}
    if set(map(type, leaves)) - types:
        position = next(i for i, leaf in enumerate(leaves) if type(leaf) not in types)
        raise BadInput(f"{where(position)}: {_type_error(leaves[position], dtype)}")
    if types != {int}:
        return np.array(leaves, np.bool_ if types == {bool} else np.float64)
    low, high = range_of(dtype)
    if leaves and (min(leaves) < low or max(leaves) > high):
        position = next(i for i, leaf in enumerate(leaves) if not low <= leaf <= high)
        raise BadInput(f"{where(position)}: {out_of_range(leaves[position], dtype)}")
    return np.array(leaves, np.uint64 if high >> 63 else np.int64)


def _type_error(value: Any, dtype: DType) -> str:
    return f"JSON Value: {echo(value)} Type: {type_name(value)} is not of expected type: {dtype.name}"


def _strings(leaves: list[Any], dtype: DType, where: Callable[[int], str]) -> Array:
    array = np.empty(len(leaves), object)
    if set(map(type, leaves)) == {str}:
        array[:] = [leaf.encode() for leaf in leaves]
        return array
    for position, leaf in enumerate(leaves):
        if isinstance(leaf, str):
            array[position] = leaf.encode()
        elif is_base64(leaf):
            try:
                array[position] = decode_base64(leaf["b64"])
            except BadInput as error:
                raise BadInput(f"{where(position)}: {error}") from None
        elif isinstance(leaf, dict):
            raise BadInput(f"{where(position)}: JSON Value: {echo(leaf)} not formatted correctly for base64 data")
        else:
            raise BadInput(f"{where(position)}: {_type_error(leaf, dtype)}")
    return array
