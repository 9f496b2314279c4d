"""Makes the SavedModel of `half_plus_two`: input `x` float of any shape, output `y` = x / 2 + 2.

python build.py DIRECTORY      writes DIRECTORY/half_plus_two/1/
"""

import sys
from pathlib import Path

import tensorflow as tf


class HalfPlusTwo(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec(None, tf.float32, name="x")])
    def predict(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": x * 0.5 + 2.0}


def main() -> None:
    module = HalfPlusTwo()
    target = Path(sys.argv[1]) / "half_plus_two" / "1"
    tf.saved_model.save(module, str(target), signatures={"serving_default": module.predict})


if __name__ == "__main__":
    main()
