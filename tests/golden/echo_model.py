"""Makes `echo`, a model with a signature for each datatype of the Open Inference Protocol: output `y` is input `x`.

python echo_model.py DIRECTORY      writes DIRECTORY/1/
"""

import sys

import tensorflow as tf

DTYPES = {
    "BOOL": tf.bool,
    "BYTES": tf.string,
    "BF16": tf.bfloat16,
    "FP16": tf.float16,
    "FP32": tf.float32,
    "FP64": tf.float64,
    **{f"INT{bits}": tf.as_dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": tf.as_dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
    "COMPLEX": tf.complex64,
}


def echo(dtype: tf.DType) -> tf.types.experimental.ConcreteFunction:
    function = tf.function(lambda x: {"y": tf.identity(x)})
    return function.get_concrete_function(tf.TensorSpec(None, dtype, name="x"))


def quantized() -> tf.types.experimental.ConcreteFunction:
    """Output `y` is of a type that REST has no JSON for."""
    function = tf.function(lambda x: {"y": tf.bitcast(x, tf.quint8)})
    return function.get_concrete_function(tf.TensorSpec(None, tf.uint8, name="x"))


def main() -> None:
    signatures = {name: echo(dtype) for name, dtype in DTYPES.items()}
    signatures["QUINT8"] = quantized()
    signatures["serving_default"] = signatures["FP32"]
    tf.saved_model.save(tf.Module(), f"{sys.argv[1]}/1", signatures=signatures)


if __name__ == "__main__":
    main()
