"""TensorFlow Serving's messages, generated from `protos/` by grpcio-tools when the package is built (`make protos`)."""
