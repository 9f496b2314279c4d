"""Trains the SavedModel of `sentiment` on sentences that a seeded generator makes, and writes the vocabulary beside it.

    python build.py DIRECTORY      writes DIRECTORY/sentiment/1/ and DIRECTORY/../assets/vocabulary.txt

Input `ids` int32[?, 24]: places in the vocabulary, 0 where the sentence is over, 1 for an unknown word. Output `positive`
float[?]. "not" turns the next judgement round, so single words do not tell. Fails if the held-out accuracy is below 97 %.
"""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

SEED = 7
LENGTH = 24
EPOCHS = 8
BATCH = 64
LEAST_ACCURACY = 0.97

GOOD = ["good", "great", "lovely", "excellent", "fine", "brilliant", "charming", "superb", "pleasant", "wonderful"]
BAD = ["bad", "awful", "boring", "terrible", "dull", "poor", "dreadful", "ugly", "annoying", "horrible"]
THINGS = ["film", "book", "meal", "hotel", "service", "song", "story", "plot", "staff", "room", "concert", "phone"]
FILLERS = [
    "the",
    "a",
    "this",
    "that",
    "really",
    "very",
    "quite",
    "so",
    "it",
    "was",
    "is",
    "and",
    "we",
    "found",
    "i",
    "think",
]
NEGATIONS = ["not", "never", "hardly"]
BETWEEN = [*FILLERS, "someone"]  # that one stands for every word that the vocabulary lacks
WORDS = ["", "?", *sorted({*GOOD, *BAD, *THINGS, *FILLERS, *NEGATIONS, "but"})]


def sentences(count: int, generator: np.random.Generator) -> tuple[list[list[str]], np.ndarray]:
    """Sentences, and whether each is positive: what its last judgement says."""
    found, labels = [], []
    for _ in range(count):
        words: list[str] = []
        for part in range(generator.integers(1, 4)):
            positive, negated = generator.random() < 0.5, generator.random() < 0.3
            words += ["but"] if part else []
            words += [*generator.choice(BETWEEN, 2), generator.choice(THINGS), generator.choice(BETWEEN)]
            words += [generator.choice(NEGATIONS)] if negated else []
            words.append(generator.choice(GOOD if positive else BAD))
            words += list(generator.choice(BETWEEN, generator.integers(0, 3)))
        found.append(words)
        labels.append(positive != negated)
    return found, np.array(labels, np.float32)


def ids(texts: list[list[str]]) -> np.ndarray:
    """As the handler makes them."""
    place = {word: i for i, word in enumerate(WORDS)}
    rows = np.zeros((len(texts), LENGTH), np.int32)
    for row, words in zip(rows, texts, strict=True):
        known = [place.get(word, 1) for word in words][-LENGTH:]
        row[LENGTH - len(known) :] = known
    return rows


class Sentiment(tf.Module):
    """The network behind a signature."""

    def __init__(self, network: tf.keras.Model) -> None:
        super().__init__()
        self.network = network
        self.weights = [variable.value for variable in network.variables]  # else the file lacks them: not tf.Variables

    @tf.function(input_signature=[tf.TensorSpec([None, LENGTH], tf.int32, name="ids")])
    def predict(self, ids: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"positive": self.network(ids, training=False)[:, 0]}


def main() -> None:
    tf.keras.utils.set_random_seed(SEED)
    generator = np.random.default_rng(SEED)
    texts, labels = sentences(4000, generator)
    held_out, expected = sentences(1000, generator)
    layers = tf.keras.layers
    network = tf.keras.Sequential(
        [
            layers.Embedding(len(WORDS), 16),
            layers.Conv1D(32, 3, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    network.compile("adam", "binary_crossentropy")
    network.fit(ids(texts), labels, batch_size=BATCH, epochs=EPOCHS, verbose=0)
    model = Sentiment(network)
    found = model.predict(tf.constant(ids(held_out)))["positive"].numpy() > 0.5
    accuracy = float(np.mean(found == (expected > 0.5)))
    print(f"sentiment: held-out accuracy {accuracy:.2%} on {len(expected)} sentences")
    if accuracy < LEAST_ACCURACY:
        sys.exit(f"sentiment: below the {LEAST_ACCURACY:.0%} that this sample promises")
    models = Path(sys.argv[1])
    tf.saved_model.save(model, str(models / "sentiment" / "1"), signatures={"serving_default": model.predict})
    assets = models.parent / "assets"
    assets.mkdir(exist_ok=True)
    (assets / "vocabulary.txt").write_text("\n".join(WORDS) + "\n")


if __name__ == "__main__":
    main()
