"""What a SavedModel says it takes and gives, read from `saved_model.pb` without TensorFlow.

The file may hold a graph of up to 2 GiB, weights included. It is mapped, not read: of every meta graph only the fields
that our slim proto knows are looked at, the others are stepped over (https://protobuf.dev/programming-guides/encoding).
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError

from adapter.bundle.manifest import BundleError
from adapter.inference.varints import read_varint
from adapter.pb import tensorflow_pb2, tensorflow_saved_model_pb2

SERVE = "serve"  # the tag of the meta graph that TensorFlow Serving loads
_INIT = "__saved_model_init_op"  # a signature that TensorFlow 2 writes for itself

_META_GRAPHS = tensorflow_saved_model_pb2.SavedModel.DESCRIPTOR.fields_by_name["meta_graphs"].number
_KNOWN = {field.number for field in tensorflow_saved_model_pb2.MetaGraphDef.DESCRIPTOR.fields}


@dataclass(frozen=True)
class Tensor:
    """An input or output: `dtype` as in "float", `shape` None for an unknown rank, a dimension None for any size."""

    dtype: str
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.dtype}[…]"
        return f"{self.dtype}[{', '.join('?' if size is None else str(size) for size in self.shape)}]"


@dataclass(frozen=True)
class Signature:
    """One way to call the model."""

    method: str
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


@dataclass(frozen=True)
class SavedModel:
    """The meta graph that is served."""

    tensorflow: str
    signatures: dict[str, Signature]


def read(path: Path) -> SavedModel:
    """The model whose `saved_model.pb` is at `path`.

    Raises:
        BundleError: it is none, or has nothing to serve.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            graphs = [_meta_graph(data, start, end) for start, end in _meta_graphs(data)]
    except (OSError, ValueError, IndexError, DecodeError) as error:
        raise BundleError(f"{path}: not a SavedModel: {error}") from None
    found = next((graph for graph in graphs if SERVE in graph.meta_info_def.tags), None)
    if found is None:
        tags = "; ".join(", ".join(graph.meta_info_def.tags) or "none" for graph in graphs) or "no graphs"
        raise BundleError(f"{path}: no graph has the tag {SERVE!r} (found: {tags})")
    signatures = {name: _signature(found.signature_def[name]) for name in sorted(found.signature_def) if name != _INIT}
    if not signatures:
        raise BundleError(f"{path}: has no signature, so nothing of it can be called")
    return SavedModel(found.meta_info_def.tensorflow_version, signatures)


def _meta_graphs(data: mmap.mmap) -> Iterator[tuple[int, int]]:
    for number, _, start, end in _fields(data, 0, len(data)):
        if number == _META_GRAPHS:
            yield start, end


def _meta_graph(data: mmap.mmap, start: int, end: int) -> tensorflow_saved_model_pb2.MetaGraphDef:
    known = b"".join(data[at:stop] for number, at, _, stop in _fields(data, start, end) if number in _KNOWN)
    return tensorflow_saved_model_pb2.MetaGraphDef.FromString(known)


def _fields(data: mmap.mmap, pos: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Of every field of a message: its number, where its tag starts, and where its content starts and ends."""
    while pos < end:
        at = pos
        tag, pos = _varint(data, pos)
        match tag & 7:
            case 0:
                start, (_, stop) = pos, _varint(data, pos)
            case 1:
                start, stop = pos, pos + 8
            case 2:
                length, start = _varint(data, pos)
                stop = start + length
            case 5:
                start, stop = pos, pos + 4
            case other:
                raise ValueError(f"wire type {other} at byte {at}")
        if stop > end:
            raise ValueError("it ends in the middle of a field")
        yield tag >> 3, at, start, stop
        pos = stop


def _varint(data: mmap.mmap, pos: int) -> tuple[int, int]:
    """`read_varint` on a mapping: ten bytes are all it may need."""
    value, length = read_varint(data[pos : pos + 10], 0)
    return value, pos + length


def _signature(found: tensorflow_pb2.SignatureDef) -> Signature:
    inputs = {name: _tensor(found.inputs[name]) for name in sorted(found.inputs)}
    return Signature(found.method_name, inputs, {name: _tensor(found.outputs[name]) for name in sorted(found.outputs)})


def _tensor(info: tensorflow_pb2.TensorInfo) -> Tensor:
    try:
        dtype = tensorflow_pb2.DataType.Name(info.dtype).removeprefix("DT_").lower()
    except ValueError:
        dtype = f"dtype {info.dtype}"
    if info.tensor_shape.unknown_rank:
        return Tensor(dtype, None)
    return Tensor(dtype, tuple(None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim))
