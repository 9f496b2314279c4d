"""An inference request that is nothing but the bytes of its one input. No I/O.

Triton's extension has it so: the header `Inference-Header-Content-Length` is 0, and name, datatype and shape are the
model's own (triton-inference-server, docs/protocol/extension_binary_data.md, "Raw Binary Request"). One dimension that
the model leaves open is found from the number of bytes; where the first is open too, it is one row. A string is the
whole body, without its length before it.
"""

import math
from collections.abc import Generator

import numpy as np

from adapter.inference.tensor import BadInput, Shape, Signature, Tensor, TensorSpec, quoted
from adapter.inference.v2_values import Given, from_binary


def tensors(body: bytes, signature: Signature) -> Generator[None, None, dict[str, Tensor]]:
    """The signature's one input.

    Raises:
        BadInput: it has none or several, its shape can't be found from the bytes, or they are too many or too few for it.
    """
    if len(signature.inputs) != 1:
        raise BadInput(
            f'The body: bytes alone are for a model of one input; signature "{signature.name}" has {quoted(signature.inputs)}'
        )
    (spec,) = signature.inputs.values()
    if spec.dtype.is_string:
        array = np.empty(1, object)
        array[0] = body
        return {spec.name: Tensor(spec.dtype, array.reshape(_of_one(spec)))}
    shape = _shape(spec, len(body))
    given = Given(0, spec.name, spec.dtype, shape, math.prod(shape))
    return {spec.name: Tensor(spec.dtype, (yield from from_binary(body, 0, len(body), given)))}


def _of_one(spec: TensorSpec) -> Shape:
    """A string's shape."""
    if spec.shape is None or any(size not in (-1, 1) for size in spec.shape):
        raise BadInput(f'The body: bytes alone are one string; input "{spec.name}" takes others than one')
    return (1,) * len(spec.shape)


def _shape(spec: TensorSpec, length: int) -> Shape:
    """What numbers of so many bytes are for an input, as far as that can be told: `from_binary` counts them."""
    if not spec.dtype.v2:
        raise BadInput(f"The body: {spec.dtype.name} is no datatype of this protocol")
    sizes = list(spec.shape or ())
    if sizes.count(-1) > 1 and sizes[0] == -1:
        sizes[0] = 1
    if spec.shape is None or sizes.count(-1) > 1:
        raise BadInput(
            f'The body: bytes alone do not tell the shape of input "{spec.name}", which leaves more than one size open'
        )
    if -1 in sizes:
        row = math.prod(size for size in sizes if size >= 0) * spec.dtype.numpy.itemsize
        sizes[sizes.index(-1)] = length // row if row else 0
    return tuple(sizes)
