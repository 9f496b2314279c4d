"""What a bundle's `handler.py` imports: the public API of handlers, and nothing of the service around them.

    from adapter.handler import BadInput, Context, Float32, Handler, Struct

`docs/model-author.md` is its guide; `Trial` answers requests with a handler without a server.
"""

from msgspec import Meta, Struct, field

from adapter.bundle.api import BadInput, Context, Handler
from adapter.bundle.arrays import Bool, Float32, Float64, Int32, Int64, UInt8
from adapter.bundle.trial import Trial

__all__ = [
    "BadInput",
    "Bool",
    "Context",
    "Float32",
    "Float64",
    "Handler",
    "Int32",
    "Int64",
    "Meta",
    "Struct",
    "Trial",
    "UInt8",
    "field",
]
