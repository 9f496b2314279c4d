"""Large predict bodies of anything but numbers to tensors: `json_tree`'s rules, some rows at a time.

What has been read (`json_parts`) becomes an array at once, and the arrays are joined when all are there. A mistake is
said as `json_tree` says it: the first row of all is kept, and a piece that does not fit it is looked at behind it.
"""

from collections.abc import Callable, Generator, Mapping
from typing import Any

import numpy as np

from adapter.inference import json_tree
from adapter.inference.json_parts import Large, check
from adapter.inference.json_scan import Object
from adapter.inference.json_tree import MAX_RANK, Path, check_columns, check_rows, flattened, is_object, path_from
from adapter.inference.tensor import Array, BadInput, DType, Shape, Tensor, TensorSpec

Made = Callable[[list[Any], Shape, Path], Array]

# Arrays joined in one go: a megabyte or two.
_TOGETHER = 32


def tensors(tree: Object, inputs: Mapping[str, TensorSpec]) -> Generator[None, None, dict[str, Tensor]]:
    """The tensors of a body that was read in pieces; yields between them."""
    rows, columns = tree.get("instances"), tree.get("inputs")
    if isinstance(rows, Large) and "inputs" not in tree:
        return (yield from _from_rows(rows, inputs))
    if columns is not None and "instances" not in tree:
        return (yield from _from_columns(columns, inputs))
    return json_tree.tensors(tree, inputs)


def _from_rows(rows: Large, inputs: Mapping[str, TensorSpec]) -> Generator[None, None, dict[str, Tensor]]:
    columns: dict[str, Column] = {}
    objects = False
    done = 0
    for piece in rows.pieces():
        values = yield from piece
        if not done:
            objects = is_object(values[0])
            columns = {
                name: Column(_of(spec.dtype), json_tree.path_in_rows(name) if objects else path_from("instances"))
                for name, spec in inputs.items()
            }
        check_rows(values, done, objects, inputs)
        done += len(values)
        for name, column in columns.items():
            yield from column.add([row[name] for row in values] if objects else values)
    found = {}
    for name, column in columns.items():
        found[name] = Tensor(inputs[name].dtype, (yield from column.whole()))
    return found


def _from_columns(value: Any, inputs: Mapping[str, TensorSpec]) -> Generator[None, None, dict[str, Tensor]]:
    check_columns(value, inputs)
    named = is_object(value)
    found = {}
    for name, spec in inputs.items():
        given, path = (value[name], path_from(f"inputs.{name}")) if named else (value, path_from("inputs"))
        if isinstance(given, Large):
            column = Column(_of(spec.dtype), path)
            yield from column.fill(given)
            found[name] = Tensor(spec.dtype, (yield from column.whole()))
        else:
            found[name] = json_tree.tensor(given, spec.dtype, path)
            yield
    if named:
        yield from check(value, wanted=inputs)
    return found


def _of(dtype: DType) -> Made:
    return lambda leaves, shape, path: json_tree.array(leaves, shape, dtype, path)


class Column:
    """An array whose rows come some at a time; `path` leads to its values, `rank` lists being around it.

    `made` makes an array of the values of some rows, given flat, with their shape and the path to them.
    """

    def __init__(self, made: Made, path: Path, rank: int = 0) -> None:
        self._made, self._path, self._rank = made, path, rank
        self._arrays: list[Array] = []
        self._done = 0
        self._inner: Shape | None = None
        self._first: list[Any] = []

    @property
    def shape(self) -> Shape:
        """Of the lists that have come."""
        return (self._done, *(self._inner or ()))

    def fill(self, rows: Large) -> Generator[None, None, None]:
        """Add all rows there are."""
        for piece in rows.pieces():
            yield from self.add((yield from piece))

    def add(self, rows: list[Any]) -> Generator[None, None, None]:
        """The rows that come next. Raises BadInput where they are not like those before them."""
        if isinstance(rows[0], Large):
            yield from self._add_large(rows[0])
        else:
            shape, leaves = self._flattened(rows)
            self._inner = shape[1:]
            self._first = self._first or rows[:1]
            self._arrays.append(self._made(leaves, shape, self._from(0)))
        self._done += len(rows)
        yield

    def whole(self) -> Generator[None, None, Array]:
        """All of it."""
        arrays = self._arrays
        if len(arrays) == 1:
            return arrays[0]
        whole = np.empty((self._done, *arrays[0].shape[1:]), arrays[0].dtype)
        done = 0
        for index, array in enumerate(arrays):
            whole[done : done + len(array)] = array
            done += len(array)
            if index % _TOGETHER == _TOGETHER - 1:
                yield
        return whole

    def _add_large(self, row: Large) -> Generator[None, None, None]:
        if self._rank == MAX_RANK - 2:
            raise BadInput(f"{self._path(())}: lists are nested more than {MAX_RANK} deep")
        column = Column(self._made, self._below(), self._rank + 1)
        yield from column.fill(row)
        if self._inner not in (None, column.shape):
            raise self._misfit(column.shape)
        self._inner = column.shape
        self._arrays.append((yield from column.whole())[np.newaxis])

    def _flattened(self, rows: list[Any]) -> tuple[Shape, list[Any]]:
        try:
            shape, leaves = flattened(rows, self._from(0))
        except BadInput:
            if self._first:
                flattened([*self._first, *rows], self._from(-1))
            raise
        if self._inner not in (None, shape[1:]):
            if self._first:
                flattened([*self._first, *rows], self._from(-1))
            raise self._misfit(shape[1:])
        return shape, leaves

    def _misfit(self, shape: Shape) -> BadInput:
        expected = f"expected shape {list(self._inner or ())} as before it, got {list(shape)}"
        return BadInput(f"{self._path((self._done,))}: {expected}")

    def _from(self, offset: int) -> Path:
        """Paths in the rows that come next, or from so many rows before them on."""
        first, path = self._done + offset, self._path
        return lambda index: path((index[0] + first, *index[1:]) if index else ())

    def _below(self) -> Path:
        """Paths in the row that comes next."""
        row, path = self._done, self._path
        return lambda index: path((row, *index))
