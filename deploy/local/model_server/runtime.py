"""Real TensorFlow through its C API: load a SavedModel, run it, close it.

The C API (tensorflow/c/c_api.h) is used instead of the Python package because it runs the very C++ code that TensorFlow
Serving runs (`LoadSavedModel`, `DirectSession::Run`): the same log lines, the same error messages, deadlines as run
options, the GIL released while a model computes; and because it starts in half a second.
"""

import ctypes
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from deploy.local.model_server.protos import TENSORFLOW_DIRECTORY, MetaGraphDef, RunOptions
from deploy.local.model_server.status import StatusError, from_number

DT_STRING = 7
_TSTRING_SIZE = 24  # sizeof(TF_TString), tensorflow/core/platform/ctstring_internal.h


@dataclass(frozen=True)
class Tensor:
    """A value on its way in or out: raw little-endian bytes, or a list of byte strings for DT_STRING."""

    dtype: int
    shape: tuple[int, ...]
    data: bytes | list[bytes]


class Session:
    """One loaded SavedModel."""

    def __init__(self, path: Path, tags: Sequence[str], config: bytes) -> None:
        c = _library()
        self._graph = c.TF_NewGraph()
        options, meta_graph = c.TF_NewSessionOptions(), c.TF_NewBuffer()
        try:
            _checked(c.TF_SetConfig, options, config, len(config))
            tag_array = (ctypes.c_char_p * len(tags))(*(tag.encode() for tag in tags))
            self._session = _checked(
                c.TF_LoadSessionFromSavedModel,
                options, None, str(path).encode(), tag_array, len(tags), self._graph, meta_graph,
            )  # fmt: skip
            self.meta_graph = MetaGraphDef.FromString(
                ctypes.string_at(meta_graph.contents.data, meta_graph.contents.length)
            )
        except StatusError:
            c.TF_DeleteGraph(self._graph)
            raise
        finally:
            c.TF_DeleteSessionOptions(options)
            c.TF_DeleteBuffer(meta_graph)

    def run(self, feeds: dict[str, Tensor], fetches: Sequence[str], timeout_ms: int | None) -> list[Tensor]:
        """Feeds and fetches are graph tensor names (`x:0`), as signatures have them."""
        c = _library()
        run_options = _buffer(RunOptions(timeout_in_ms=timeout_ms).SerializeToString() if timeout_ms else b"")
        results = (ctypes.c_void_p * len(fetches))()
        tensors = [_to_c(tensor) for tensor in feeds.values()]
        try:
            _checked(
                c.TF_SessionRun, self._session, run_options,
                self._outputs(feeds), (ctypes.c_void_p * len(tensors))(*tensors), len(tensors),
                self._outputs(fetches), results, len(fetches), None, 0, None,
            )  # fmt: skip
            return [_from_c(result) for result in results]
        finally:
            for tensor in itertools.chain(tensors, filter(None, results)):
                c.TF_DeleteTensor(tensor)
            c.TF_DeleteBuffer(run_options)

    def close(self) -> None:
        c = _library()
        _checked(c.TF_CloseSession, self._session)
        _checked(c.TF_DeleteSession, self._session)
        c.TF_DeleteGraph(self._graph)

    def _outputs(self, names: Any) -> Any:
        array = (_Output * len(names))()
        for slot, name in zip(array, names, strict=True):
            operation, _, index = name.partition(":")
            slot.operation = _library().TF_GraphOperationByName(self._graph, operation.encode())
            slot.index = int(index or 0)
            if not slot.operation:
                raise from_number(5, f"FeedInputs: unable to find feed output {name}")
        return array


def version() -> str:
    return str(_library().TF_Version().decode())


class _Output(ctypes.Structure):
    _fields_ = (("operation", ctypes.c_void_p), ("index", ctypes.c_int))


class _Buffer(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("length", ctypes.c_size_t), ("deallocator", ctypes.c_void_p))


_P, _I, _S, _SIZE = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t
_DEALLOCATOR = ctypes.CFUNCTYPE(None, _P, _SIZE, _P)
_PROTOTYPES: dict[str, tuple[Any, tuple[Any, ...]]] = {  # name: (result, arguments)
    "TF_Version": (_S, ()),
    "TF_NewStatus": (_P, ()),
    "TF_DeleteStatus": (None, (_P,)),
    "TF_GetCode": (_I, (_P,)),
    "TF_Message": (_S, (_P,)),
    "TF_NewBuffer": (ctypes.POINTER(_Buffer), ()),
    "TF_NewBufferFromString": (ctypes.POINTER(_Buffer), (_S, _SIZE)),
    "TF_DeleteBuffer": (None, (ctypes.POINTER(_Buffer),)),
    "TF_NewGraph": (_P, ()),
    "TF_DeleteGraph": (None, (_P,)),
    "TF_GraphOperationByName": (_P, (_P, _S)),
    "TF_NewSessionOptions": (_P, ()),
    "TF_DeleteSessionOptions": (None, (_P,)),
    "TF_SetConfig": (None, (_P, _S, _SIZE, _P)),
    "TF_LoadSessionFromSavedModel": (_P, (_P, _P, _S, _P, _I, _P, ctypes.POINTER(_Buffer), _P)),
    "TF_SessionRun": (None, (_P, ctypes.POINTER(_Buffer), _P, _P, _I, _P, _P, _I, _P, _I, _P, _P)),
    "TF_CloseSession": (None, (_P, _P)),
    "TF_DeleteSession": (None, (_P, _P)),
    "TF_AllocateTensor": (_P, (_I, _P, _I, _SIZE)),
    "TF_NewTensor": (_P, (_I, _P, _I, _P, _SIZE, _DEALLOCATOR, _P)),
    "TF_DeleteTensor": (None, (_P,)),
    "TF_TensorData": (_P, (_P,)),
    "TF_TensorByteSize": (_SIZE, (_P,)),
    "TF_TensorType": (_I, (_P,)),
    "TF_NumDims": (_I, (_P,)),
    "TF_Dim": (ctypes.c_int64, (_P, _I)),
    "TF_StringInit": (None, (_P,)),
    "TF_StringAssignView": (None, (_P, _S, _SIZE)),
    "TF_StringGetDataPointer": (_P, (_P,)),
    "TF_StringGetSize": (_SIZE, (_P,)),
}


@cache
def _library() -> Any:
    library = ctypes.CDLL(str(TENSORFLOW_DIRECTORY / "libtensorflow_cc.so.2"))
    for name, (result, arguments) in _PROTOTYPES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def _checked(function: Any, *arguments: Any) -> Any:
    """Call a function whose last argument is a TF_Status; raise what it says."""
    c = _library()
    status = c.TF_NewStatus()
    try:
        result = function(*arguments, status)
        if code := c.TF_GetCode(status):
            raise from_number(code, c.TF_Message(status).decode(errors="replace"))
        return result
    finally:
        c.TF_DeleteStatus(status)


def _buffer(data: bytes) -> Any:
    return _library().TF_NewBufferFromString(data, len(data))


def _to_c(tensor: Tensor) -> Any:
    c = _library()
    dims = (ctypes.c_int64 * len(tensor.shape))(*tensor.shape)
    if isinstance(tensor.data, bytes):
        result = c.TF_AllocateTensor(tensor.dtype, dims, len(dims), len(tensor.data))
        ctypes.memmove(c.TF_TensorData(result), tensor.data, len(tensor.data))
        return result
    # Strings are views of Python's bytes, kept alive until TensorFlow lets go of the tensor, maybe after the run.
    size = _TSTRING_SIZE * len(tensor.data)
    strings = ctypes.create_string_buffer(size)
    address = ctypes.addressof(strings)
    for index, value in enumerate(tensor.data):
        c.TF_StringInit(address + index * _TSTRING_SIZE)
        c.TF_StringAssignView(address + index * _TSTRING_SIZE, value, len(value))
    key = next(_keys)
    _kept[key] = (strings, tensor.data)
    return c.TF_NewTensor(tensor.dtype, dims, len(dims), address, size, _release, key)


_keys = itertools.count(1)
_kept: dict[int, object] = {}


@_DEALLOCATOR
def _release(_data: int, _size: int, key: int) -> None:
    _kept.pop(key, None)


def _from_c(tensor: Any) -> Tensor:
    c = _library()
    dtype, data, size = c.TF_TensorType(tensor), c.TF_TensorData(tensor), c.TF_TensorByteSize(tensor)
    shape = tuple(c.TF_Dim(tensor, index) for index in range(c.TF_NumDims(tensor)))
    if dtype != DT_STRING:
        return Tensor(dtype, shape, ctypes.string_at(data, size) if size else b"")
    strings = range(data or 0, (data or 0) + size, _TSTRING_SIZE)
    return Tensor(
        dtype, shape, [ctypes.string_at(c.TF_StringGetDataPointer(at), c.TF_StringGetSize(at)) for at in strings]
    )
