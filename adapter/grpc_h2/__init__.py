"""A client for unary gRPC calls over HTTP/2: frames and headers are pure, one connection and one channel do the I/O."""
