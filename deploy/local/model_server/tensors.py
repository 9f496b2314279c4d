"""TensorProto to Tensor and back, by the rules of TensorFlow's `Tensor::FromProto` and `AsProtoField`."""

import math
from array import array
from typing import Any, NamedTuple

from deploy.local.model_server import protos as pb
from deploy.local.model_server.runtime import DT_STRING, Tensor


class _Type(NamedTuple):
    """Where a TensorProto keeps the values of a dtype: the field, its items and an element of the tensor itself (as
    `array` type codes), and how many items make an element (two for a complex number)."""

    field: str
    item: Any
    element: Any
    items: int = 1

    @property
    def size(self) -> int:
        return array(self.element).itemsize * self.items


_TYPES = {
    pb.DataType.Value(f"DT_{name}"): kind
    for name, kind in {
        "FLOAT": _Type("float_val", "f", "f"),
        "DOUBLE": _Type("double_val", "d", "d"),
        "INT32": _Type("int_val", "i", "i"),
        "UINT8": _Type("int_val", "i", "B"),
        "INT16": _Type("int_val", "i", "h"),
        "INT8": _Type("int_val", "i", "b"),
        "COMPLEX64": _Type("scomplex_val", "f", "f", items=2),
        "INT64": _Type("int64_val", "q", "q"),
        "BOOL": _Type("bool_val", "B", "B"),
        "BFLOAT16": _Type("half_val", "i", "H"),
        "UINT16": _Type("int_val", "i", "H"),
        "COMPLEX128": _Type("dcomplex_val", "d", "d", items=2),
        "HALF": _Type("half_val", "i", "H"),
        "UINT32": _Type("uint32_val", "I", "I"),
        "UINT64": _Type("uint64_val", "Q", "Q"),
    }.items()
}


def from_proto(proto: pb.TensorProto) -> Tensor | None:
    """None where the message is not a tensor (unknown shape or type, content of the wrong size)."""
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    kind, count = _TYPES.get(proto.dtype), math.prod(shape)
    if proto.tensor_shape.unknown_rank or min(shape, default=0) < 0:
        return None
    if proto.dtype == DT_STRING:
        strings = list(proto.string_val[:count])
        return Tensor(DT_STRING, shape, strings + (strings[-1:] or [b""]) * (count - len(strings)))
    if kind is None or (proto.tensor_content and len(proto.tensor_content) != count * kind.size):
        return None
    # Fewer values than elements: the last one fills the rest; none at all means zeros.
    data = proto.tensor_content or _narrowed(array(kind.item, getattr(proto, kind.field)), kind)[: count * kind.size]
    fill = data[-kind.size :] or bytes(kind.size)
    return Tensor(proto.dtype, shape, data + fill * (count - len(data) // kind.size))


def to_proto(tensor: Tensor, as_content: bool = False) -> pb.TensorProto:
    proto = pb.TensorProto(dtype=tensor.dtype)
    proto.tensor_shape.SetInParent()
    for size in tensor.shape:
        proto.tensor_shape.dim.add(size=size)
    if tensor.dtype == DT_STRING:
        proto.string_val.extend(tensor.data)
    elif as_content or tensor.dtype not in _TYPES:
        proto.tensor_content = tensor.data
    else:
        getattr(proto, _TYPES[tensor.dtype].field).extend(elements(tensor))
    return proto


def elements(tensor: Tensor) -> list[Any]:
    """The elements of a tensor, flat."""
    if isinstance(tensor.data, list) or not tensor.data:
        return list(tensor.data)
    return memoryview(tensor.data).cast(_TYPES[tensor.dtype].element).tolist()


def _narrowed(items: "array[Any]", kind: _Type) -> bytes:
    """32-bit items cut down to the smaller elements that some types have, as a C cast does it."""
    width = array(kind.element).itemsize
    return (
        array("BH"[width - 1], items.tobytes())[:: 4 // width].tobytes() if width < items.itemsize else items.tobytes()
    )
