"""`POST /predict` of pipeline: will tomorrow exceed the limit? `{"week": [… 7], "limit": 30}` → `{"forecast": …, "risk": …}`.

Two models: two signatures of `trend` run at the same time, `risk` needs what they say and comes after them.
"""

import asyncio
from typing import Annotated

import numpy as np

from adapter.handler import Handler, Meta, Struct


class Request(Struct):
    week: Annotated[list[float], Meta(min_length=7, max_length=7, description="Seven days, the last is today.")]
    limit: float


class Answer(Struct):
    forecast: float
    spread: float
    risk: float


class Pipeline(Handler[Request, Answer]):
    async def predict(self, ctx, batch):
        week = np.array([request.week for request in batch], np.float32)
        trend, around = await asyncio.gather(
            ctx.infer("trend", {"week": week}),
            ctx.infer("trend", {"week": week}, signature="spread"),
        )
        forecast, spread = trend["forecast"], around["spread"]
        limit = np.array([request.limit for request in batch], np.float32)
        risk = (await ctx.infer("risk", {"forecast": forecast, "spread": spread, "limit": limit}))["risk"]
        return [Answer(*row) for row in zip(forecast.tolist(), spread.tolist(), risk.tolist(), strict=True)]
