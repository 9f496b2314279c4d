"""`POST /predict` of sentiment: `{"text": "the film was not bad"}` → `{"sentiment": "positive", …}`.

The tokeniser is here and its vocabulary in `assets/`, so both change together with the network that was trained on them.
"""

import re
from typing import Annotated

import numpy as np

from adapter.handler import BadInput, Handler, Meta, Struct

LENGTH = 24
UNKNOWN = 1


class Request(Struct):
    text: Annotated[str, Meta(min_length=1, max_length=2000, description="English, a sentence or two.")]


class Answer(Struct):
    sentiment: str
    positive: float
    unknown: list[str]


class Sentiment(Handler[Request, Answer]):
    inputs = {"ids": "int32[?, 24]"}
    outputs = {"positive": "float32[?]"}

    def startup(self):
        words = (self.files / "assets" / "vocabulary.txt").read_text().split("\n")
        self.places = {word: i for i, word in enumerate(words) if word}

    def preprocess(self, batch):
        rows = np.zeros((len(batch), LENGTH), np.int32)
        for i, request in enumerate(batch):
            words = tokens(request.text)
            if not words:
                raise BadInput("expected at least one word", field="text", index=i)
            known = [self.places.get(word, UNKNOWN) for word in words][-LENGTH:]
            rows[i, LENGTH - len(known) :] = known
        return {"ids": rows}

    def postprocess(self, outputs, batch):
        return [
            Answer(
                sentiment="positive" if positive > 0.5 else "negative",
                positive=positive,
                unknown=sorted({word for word in tokens(request.text) if word not in self.places}),
            )
            for positive, request in zip(outputs["positive"].tolist(), batch, strict=True)
        ]


def tokens(text):
    """Words in lower case; what is between them does not matter."""
    return re.findall(r"[a-z]+", text.lower())
