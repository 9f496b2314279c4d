"""TensorProto to Tensor and back, by the rules of TensorFlow's `Tensor::FromProto` and `AsProtoField`."""

import math
from array import array
from dataclasses import dataclass
from typing import Any

from deploy.local.model_server.protos import TensorProto
from deploy.local.model_server.runtime import DT_STRING, Tensor


@dataclass(frozen=True)
class _Type:
    """Where a TensorProto keeps the values of a dtype: the field, its items, and an element of the tensor itself
    (as `array` type codes), and how many items make an element (two for a complex number)."""

    field: str
    item: str
    element: str
    items: int = 1

    @property
    def size(self) -> int:
        return array(self.element).itemsize * self.items


_TYPES = {
    1: _Type("float_val", "f", "f"),
    2: _Type("double_val", "d", "d"),
    3: _Type("int_val", "i", "i"),
    4: _Type("int_val", "i", "B"),
    5: _Type("int_val", "i", "h"),
    6: _Type("int_val", "i", "b"),
    8: _Type("scomplex_val", "f", "f", items=2),
    9: _Type("int64_val", "q", "q"),
    10: _Type("bool_val", "B", "B"),
    14: _Type("half_val", "i", "H"),  # bfloat16
    17: _Type("int_val", "i", "H"),
    18: _Type("dcomplex_val", "d", "d", items=2),
    19: _Type("half_val", "i", "H"),
    22: _Type("uint32_val", "I", "I"),
    23: _Type("uint64_val", "Q", "Q"),
}


def from_proto(proto: TensorProto) -> Tensor | None:
    """None where the message is not a tensor (unknown shape or type, content of the wrong size)."""
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if proto.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        return None
    count = math.prod(shape)
    if proto.dtype == DT_STRING:
        strings = list(proto.string_val[:count])
        return Tensor(DT_STRING, shape, strings + (strings[-1:] or [b""]) * (count - len(strings)))
    kind = _TYPES.get(proto.dtype)
    if kind is None:
        return None
    if proto.tensor_content:
        return Tensor(proto.dtype, shape, proto.tensor_content) if len(proto.tensor_content) == count * kind.size else None
    data = _narrow(array(kind.item, getattr(proto, kind.field)), kind)[: count * kind.size]
    # Fewer values than elements: the last one fills the rest; none at all means zeros.
    fill = data[-kind.size :] or bytes(kind.size)
    return Tensor(proto.dtype, shape, data + fill * (count - len(data) // kind.size))


def to_proto(tensor: Tensor, as_content: bool = False) -> TensorProto:
    proto = TensorProto(dtype=tensor.dtype)
    proto.tensor_shape.SetInParent()
    for size in tensor.shape:
        proto.tensor_shape.dim.add(size=size)
    if isinstance(tensor.data, list):
        proto.string_val.extend(tensor.data)
    elif as_content or tensor.dtype not in _TYPES:
        proto.tensor_content = tensor.data
    else:
        getattr(proto, _TYPES[tensor.dtype].field).extend(values(tensor))
    return proto


def values(tensor: Tensor) -> list[Any]:
    """The elements of a numeric tensor, flat."""
    assert isinstance(tensor.data, bytes)
    return memoryview(tensor.data).cast(_TYPES[tensor.dtype].element).tolist() if tensor.data else []


def _narrow(items: "array[Any]", kind: _Type) -> bytes:
    """Wrap 32-bit items into the smaller elements some types have, as a C cast does."""
    data = items.tobytes()
    match items.itemsize // array(kind.element).itemsize:
        case 4:
            return data[::4]
        case 2:
            return array("H", data)[::2].tobytes()
        case _:
            return data
