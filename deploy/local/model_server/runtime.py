"""Real TensorFlow through its C API: load a SavedModel, run it, close it.

The C API (tensorflow/c/c_api.h) is used instead of the Python package because it runs the very C++ code that TensorFlow
Serving runs (`LoadSavedModel`, `DirectSession::Run`): the same log lines, the same error messages, deadlines as run
options, the GIL released while a model computes; and because it starts in half a second.
"""

import ctypes
import itertools
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from grpc import StatusCode

from deploy.local.model_server import protos as pb
from deploy.local.model_server.status import StatusError, require

DT_STRING = pb.DataType.DT_STRING
_TSTRING_SIZE = 24  # sizeof(TF_TString), tensorflow/core/platform/ctstring_internal.h


class Tensor(NamedTuple):
    """A value on its way in or out: raw little-endian bytes, or a list of byte strings for DT_STRING."""

    dtype: int
    shape: tuple[int, ...]
    data: bytes | list[bytes]


class Session:
    """One loaded SavedModel."""

    def __init__(self, path: Path, tags: Sequence[str], config: bytes) -> None:
        c = _library()
        self._graph = c.TF_NewGraph()
        options, meta = c.TF_NewSessionOptions(), c.TF_NewBuffer()
        tag_array = (ctypes.c_char_p * len(tags))(*(tag.encode() for tag in tags))
        try:
            _checked(c.TF_SetConfig, options, config, len(config))
            loading = (options, None, str(path).encode(), tag_array, len(tags), self._graph, meta)
            self._session = _checked(c.TF_LoadSessionFromSavedModel, *loading)
            content = ctypes.string_at(meta.contents.data, meta.contents.length)
            self.signatures = dict(pb.MetaGraphDef.FromString(content).signature_def)
        except StatusError:
            c.TF_DeleteGraph(self._graph)
            raise
        finally:
            c.TF_DeleteSessionOptions(options)
            c.TF_DeleteBuffer(meta)

    def run(self, feeds: dict[str, Tensor], fetches: Sequence[str], timeout_ms: int | None) -> list[Tensor]:
        """Feeds and fetches are graph tensor names (`x:0`), as signatures have them."""
        c = _library()
        run_options = pb.RunOptions(timeout_in_ms=timeout_ms or 0).SerializeToString()
        buffer = c.TF_NewBufferFromString(run_options, len(run_options))
        inputs, results = [_to_c(tensor) for tensor in feeds.values()], (ctypes.c_void_p * len(fetches))()
        try:
            given = (self._outputs(feeds), (ctypes.c_void_p * len(inputs))(*inputs), len(inputs))
            wanted = (self._outputs(fetches), results, len(fetches))
            _checked(c.TF_SessionRun, self._session, buffer, *given, *wanted, None, 0, None)
            return [_from_c(result) for result in results]
        finally:
            for tensor in itertools.chain(inputs, filter(None, results)):
                c.TF_DeleteTensor(tensor)
            c.TF_DeleteBuffer(buffer)

    def close(self) -> None:
        c = _library()
        _checked(c.TF_CloseSession, self._session)
        _checked(c.TF_DeleteSession, self._session)
        c.TF_DeleteGraph(self._graph)

    def _outputs(self, names: Collection[str]) -> Any:
        array = (_Output * len(names))()
        for slot, name in zip(array, names, strict=True):
            operation, _, index = name.partition(":")
            slot.operation = _library().TF_GraphOperationByName(self._graph, operation.encode())
            slot.index = int(index or 0)
            require(slot.operation, f"FetchOutputs node {name}: not found", StatusCode.NOT_FOUND)  # not a segfault
        return array


def version() -> str:
    return str(_library().TF_Version().decode())


class _Output(ctypes.Structure):
    _fields_ = (("operation", ctypes.c_void_p), ("index", ctypes.c_int))


class _Buffer(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("length", ctypes.c_size_t), ("deallocator", ctypes.c_void_p))


_DEALLOCATOR = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
_C_TYPES = {
    "-": None,
    "p": ctypes.c_void_p,
    "s": ctypes.c_char_p,
    "b": ctypes.POINTER(_Buffer),
    "i": ctypes.c_int,
    "q": ctypes.c_int64,
    "z": ctypes.c_size_t,
    "d": _DEALLOCATOR,
}
_PROTOTYPES = {  # result, then arguments
    "TF_AllocateTensor": "pipiz",
    "TF_CloseSession": "-pp",
    "TF_DeleteBuffer": "-b",
    "TF_DeleteGraph": "-p",
    "TF_DeleteSession": "-pp",
    "TF_DeleteSessionOptions": "-p",
    "TF_DeleteStatus": "-p",
    "TF_DeleteTensor": "-p",
    "TF_Dim": "qpi",
    "TF_GetCode": "ip",
    "TF_GraphOperationByName": "pps",
    "TF_LoadSessionFromSavedModel": "pppspipbp",
    "TF_Message": "sp",
    "TF_NewBuffer": "b",
    "TF_NewBufferFromString": "bsz",
    "TF_NewGraph": "p",
    "TF_NewSessionOptions": "p",
    "TF_NewStatus": "p",
    "TF_NewTensor": "pipipzdp",
    "TF_NumDims": "ip",
    "TF_SessionRun": "-pbppippipipp",
    "TF_SetConfig": "-pszp",
    "TF_StringAssignView": "-psz",
    "TF_StringGetDataPointer": "pp",
    "TF_StringGetSize": "zp",
    "TF_StringInit": "-p",
    "TF_TensorByteSize": "zp",
    "TF_TensorData": "pp",
    "TF_TensorType": "ip",
    "TF_Version": "s",
}


@cache
def _library() -> Any:
    library = ctypes.CDLL(str(pb.TENSORFLOW_DIRECTORY / "libtensorflow_cc.so.2"))
    for name, codes in _PROTOTYPES.items():
        function = getattr(library, name)
        function.restype, *function.argtypes = (_C_TYPES[code] for code in codes)
    return library


def _checked(function: Any, *arguments: Any) -> Any:
    """Call a function whose last argument is a TF_Status; raise what it says."""
    c = _library()
    status = c.TF_NewStatus()
    try:
        result = function(*arguments, status)
        if code := c.TF_GetCode(status):
            raise StatusError(code, c.TF_Message(status).decode(errors="replace"))
        return result
    finally:
        c.TF_DeleteStatus(status)


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
    for at, value in zip(range(address, address + size, _TSTRING_SIZE), tensor.data, strict=True):
        c.TF_StringInit(at)
        c.TF_StringAssignView(at, value, len(value))
    key = next(_keys)
    _kept[key] = (strings, tensor.data)
    return c.TF_NewTensor(tensor.dtype, dims, len(dims), address, size, _release, key)


_keys = itertools.count(1)
_kept: dict[int, object] = {}
_release = _DEALLOCATOR(lambda _data, _size, key: _kept.pop(key, None) and None)


def _from_c(tensor: Any) -> Tensor:
    c = _library()
    dtype, data, size = c.TF_TensorType(tensor), c.TF_TensorData(tensor), c.TF_TensorByteSize(tensor)
    shape = tuple(c.TF_Dim(tensor, index) for index in range(c.TF_NumDims(tensor)))
    if dtype != DT_STRING:
        return Tensor(dtype, shape, ctypes.string_at(data, size) if size else b"")
    strings = range(data or 0, (data or 0) + size, _TSTRING_SIZE)
    texts = [ctypes.string_at(c.TF_StringGetDataPointer(at), c.TF_StringGetSize(at)) for at in strings]
    return Tensor(dtype, shape, texts)
