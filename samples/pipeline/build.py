"""Makes the two SavedModels of `pipeline`. Nothing is trained: both are closed formulas.

    python build.py DIRECTORY      writes DIRECTORY/trend/1/ and DIRECTORY/risk/1/

trend   serving_default: `week` float[?, 7] → `forecast` float[?], the least-squares line through seven days, on the eighth
        spread:          `week` float[?, 7] → `spread` float[?], how far the days lie from that line (root mean square)
risk    serving_default: `forecast`, `spread`, `limit` float[?] → `risk` float[?], that the eighth day exceeds the limit
"""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

DAYS = np.arange(7, dtype=np.float32)
# Of the line through seven values: y = level + slope * day.
DESIGN = np.stack([np.ones(7, np.float32), DAYS], axis=1)
SOLVE = np.linalg.pinv(DESIGN).astype(np.float32)
WEEK = [tf.TensorSpec([None, 7], tf.float32, name="week")]


class Trend(tf.Module):
    @tf.function(input_signature=WEEK)
    def forecast(self, week: tf.Tensor) -> dict[str, tf.Tensor]:
        line = tf.matmul(week, SOLVE, transpose_b=True)
        return {"forecast": line[:, 0] + 7.0 * line[:, 1]}

    @tf.function(input_signature=WEEK)
    def spread(self, week: tf.Tensor) -> dict[str, tf.Tensor]:
        fitted = tf.matmul(tf.matmul(week, SOLVE, transpose_b=True), DESIGN, transpose_b=True)
        return {"spread": tf.sqrt(tf.reduce_mean(tf.square(week - fitted), axis=1))}


class Risk(tf.Module):
    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.float32, name=name) for name in ("forecast", "spread", "limit")]
    )
    def predict(self, forecast: tf.Tensor, spread: tf.Tensor, limit: tf.Tensor) -> dict[str, tf.Tensor]:
        deviations = (forecast - limit) / tf.maximum(spread, 1e-3)
        return {"risk": 0.5 * (1.0 + tf.math.erf(deviations / np.float32(np.sqrt(2.0))))}


def main() -> None:
    models = Path(sys.argv[1])
    trend, risk = Trend(), Risk()
    signatures = {"serving_default": trend.forecast, "spread": trend.spread}
    tf.saved_model.save(trend, str(models / "trend" / "1"), signatures=signatures)
    tf.saved_model.save(risk, str(models / "risk" / "1"), signatures={"serving_default": risk.predict})
    print("pipeline: made trend and risk")


if __name__ == "__main__":
    main()
