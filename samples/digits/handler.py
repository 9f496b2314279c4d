"""`POST /predict` of digits: a PNG or JPEG of one handwritten digit → which it is, and how sure the network is of each.

Dark ink on light paper or light on dark, of any size; a square picture fares best.
"""

import io

import numpy as np
from PIL import Image

from adapter.handler import BadInput, Handler, Struct

MOST_PIXELS = 16_000_000


class Request(Struct):
    image: bytes
    """PNG or JPEG."""


class Answer(Struct):
    digit: int
    probabilities: list[float]


class Digits(Handler[Request, Answer]):
    inputs = {"image": "float32[?, 8, 8]"}
    outputs = {"digit": "int64[?]", "probabilities": "float32[?, 10]"}

    def preprocess(self, batch):
        return {"image": np.stack([ink(request.image, index) for index, request in enumerate(batch)])}

    def postprocess(self, outputs, batch):
        digits, probabilities = outputs["digit"].tolist(), outputs["probabilities"].tolist()
        return [Answer(digit, row) for digit, row in zip(digits, probabilities, strict=True)]


def ink(data: bytes, index: int) -> np.ndarray:
    """The picture as 8x8 pixels of ink, from 0 (none) to 1 (full)."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                raise BadInput(f"at most {MOST_PIXELS} pixels are accepted", field="image", index=index)
            paper = Image.new("RGBA", picture.size, "white")
            grey = Image.alpha_composite(paper, picture.convert("RGBA")).convert("L")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise BadInput("no PNG or JPEG that can be read", field="image", index=index) from None
    small = np.asarray(grey.resize((8, 8), Image.Resampling.BOX), np.float32) / 255
    return 1 - small if np.median(small) > 0.5 else small
