"""The adapter: the thin half of the group that speaks REST to the world and gRPC to TensorFlow Serving."""

__version__ = "0.1.0"
