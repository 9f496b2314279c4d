"""Trains the SavedModel of `digits` on scikit-learn's bundled data (1,797 handwritten digits of 8x8 pixels, 0..16).

    python build.py DIRECTORY      writes DIRECTORY/digits/1/ and prints the held-out accuracy

Input `image` float[?, 8, 8], ink from 0 (none) to 1 (full). Outputs `probabilities` float[?, 10] and `digit` int64[?].
Seeded: the same machine trains the same network. Fails if the held-out accuracy is below 97 %.
"""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

SEED = 7
EPOCHS = 30
BATCH = 64
LEAST_ACCURACY = 0.97


def shifted(images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A third of the images moved by up to a pixel: people do not write in the middle."""
    moved = images.copy()
    for row in np.flatnonzero(generator.random(len(images)) < 1 / 3):
        dy, dx = generator.integers(0, 3, size=2)
        moved[row] = np.pad(images[row], 1)[dy : dy + 8, dx : dx + 8]
    return moved


class Digits(tf.Module):
    """Two convolutions and two dense layers, by hand: a SavedModel without Keras' baggage."""

    def __init__(self) -> None:
        super().__init__()
        normal = tf.random.stateless_normal
        shapes = {"c1": (3, 3, 1, 16), "c2": (3, 3, 16, 32), "d1": (4 * 4 * 32, 64), "d2": (64, 10)}
        self.w = {
            name: tf.Variable(normal(shape, (SEED, i)) * np.sqrt(2 / np.prod(shape[:-1])), name=f"{name}_w")
            for i, (name, shape) in enumerate(shapes.items())
        }
        self.b = {name: tf.Variable(tf.zeros(shape[-1]), name=f"{name}_b") for name, shape in shapes.items()}

    def logits(self, image: tf.Tensor) -> tf.Tensor:
        x = image[..., None]
        x = tf.nn.relu(tf.nn.conv2d(x, self.w["c1"], 1, "SAME") + self.b["c1"])
        x = tf.nn.relu(tf.nn.conv2d(x, self.w["c2"], 2, "SAME") + self.b["c2"])
        x = tf.nn.relu(tf.reshape(x, (-1, 4 * 4 * 32)) @ self.w["d1"] + self.b["d1"])
        return x @ self.w["d2"] + self.b["d2"]

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8], tf.float32, name="image")])
    def predict(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = self.logits(image)
        return {"probabilities": tf.nn.softmax(logits), "digit": tf.argmax(logits, axis=1)}


def train(model: Digits, images: np.ndarray, labels: np.ndarray) -> None:
    """Adam (Kingma and Ba, 2015, algorithm 1) over shuffled, shifted batches."""
    generator = np.random.default_rng(SEED)
    variables = [*model.w.values(), *model.b.values()]
    first = [tf.Variable(tf.zeros_like(v)) for v in variables]
    second = [tf.Variable(tf.zeros_like(v)) for v in variables]

    @tf.function(reduce_retracing=True)
    def step(x: tf.Tensor, y: tf.Tensor, t: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, model.logits(x)))
        rate = 2e-3 * tf.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        for v, m, s, g in zip(variables, first, second, tape.gradient(loss, variables), strict=True):
            m.assign(0.9 * m + 0.1 * g)
            s.assign(0.999 * s + 0.001 * g * g)
            v.assign_sub(rate * m / (tf.sqrt(s) + 1e-7))

    time = 0
    for _ in range(EPOCHS):
        order = generator.permutation(len(images))
        x, y = shifted(images[order], generator), labels[order]
        for start in range(0, len(x) - BATCH + 1, BATCH):
            time += 1
            step(x[start : start + BATCH], y[start : start + BATCH], tf.constant(float(time)))


def main() -> None:
    tf.config.experimental.enable_op_determinism()
    data = load_digits()
    images = (data.images / 16.0).astype(np.float32)
    split = train_test_split(images, data.target, test_size=0.2, random_state=SEED, stratify=data.target)
    train_images, test_images, train_labels, test_labels = split
    model = Digits()
    train(model, train_images, train_labels)
    accuracy = float(np.mean(model.predict(test_images)["digit"].numpy() == test_labels))
    print(f"digits: held-out accuracy {accuracy:.2%} on {len(test_labels)} images")
    if accuracy < LEAST_ACCURACY:
        sys.exit(f"digits: below the {LEAST_ACCURACY:.0%} that this sample promises")
    tf.saved_model.save(model, str(Path(sys.argv[1]) / "digits" / "1"), signatures={"serving_default": model.predict})


if __name__ == "__main__":
    tf.random.set_seed(SEED)
    main()
