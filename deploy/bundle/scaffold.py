"""`tandem new`: the source directory of a bundle that builds, runs, and passes its tests."""

from pathlib import Path

from adapter.bundle.manifest import BundleError

FILES = {
    "bundle.toml": """\
# {name}: say here what it answers.
name = "{name}"
version = "0.1.0"
handler = "handler.py"

[[models]]
name = "{name}"
version = 1
coalesce = true   # the answer to a row does not depend on the other rows; `tandem pack` tries it

[[examples]]
name = "one"
request = "examples/one.json"
response = "examples/one.answer.json"
warmup = true

[[examples]]
name = "two"
request = "examples/two.json"
response = "examples/two.answer.json"
""",
    "build.py": '''\
"""Makes the SavedModel: put your training here.

python build.py DIRECTORY      writes DIRECTORY/{name}/1/
"""

import sys
from pathlib import Path

import tensorflow as tf


class Model(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def predict(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {{"y": 2.0 * x + 1.0}}


if __name__ == "__main__":
    model = Model()
    target = Path(sys.argv[1]) / "{name}" / "1"
    tf.saved_model.save(model, str(target), signatures={{"serving_default": model.predict}})
''',
    "handler.py": '''\
"""`POST /predict`: from the question to the model's tensors, and from its outputs to the answer."""

import numpy as np

from adapter.handler import Handler, Struct


class Request(Struct):
    x: float


class Answer(Struct):
    y: float


class Service(Handler[Request, Answer]):
    inputs = {{"x": "float32[?]"}}
    outputs = {{"y": "float32[?]"}}

    def preprocess(self, batch):
        return {{"x": np.array([request.x for request in batch], np.float32)}}

    def postprocess(self, outputs, batch):
        return [Answer(y) for y in outputs["y"].tolist()]
''',
    "test_handler.py": '''\
"""The handler by itself, without a server: `pytest`."""

from adapter.handler import Trial
from handler import Service


def test_an_answer_is_what_the_model_makes_of_the_question():
    trial = Trial(Service, models={{"{name}": lambda inputs: {{"y": 2 * inputs["x"] + 1}}}})
    assert trial.predict({{"x": 3.0}}) == {{"y": 7.0}}
''',
    "examples/one.json": '{{"x": 3.0}}\n',
    "examples/one.answer.json": '{{"y": 7.0}}\n',
    "examples/two.json": '{{"instances": [{{"x": 0.0}}, {{"x": -1.5}}]}}\n',
    "examples/two.answer.json": '{{"predictions": [{{"y": 1.0}}, {{"y": -2.0}}]}}\n',
    ".gitignore": "models/\nvendor/\n.vendor-made-from\n__pycache__/\n",
}


def scaffold(directory: Path) -> list[str]:
    """Write the files of a new bundle, named as its directory; returns their names.

    Raises:
        BundleError: the directory exists and is not empty, or its name cannot be a bundle's.
    """
    name = directory.resolve().name
    if not name.replace("_", "").replace("-", "").isalnum() or name != name.lower() or not name.isascii():
        raise BundleError(f"{name!r} cannot be a bundle's name: lower-case letters, digits, - and _")
    try:
        if directory.exists() and any(directory.iterdir()):
            raise BundleError(f"{directory} is not empty")
        for file, text in FILES.items():
            path = directory / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.format(name=name))
    except OSError as error:
        raise BundleError(f"{directory}: {error}") from None
    return list(FILES)
