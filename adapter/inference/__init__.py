"""Tensors, codecs and the call to TensorFlow Serving; knows nothing of HTTP but in `v1.py`."""
