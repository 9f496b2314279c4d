"""Bytes in JSON: `{"b64": "..."}`, as TensorFlow Serving reads it."""

import re
from binascii import Error as Base64Error
from binascii import a2b_base64
from typing import Any

import msgspec

from adapter.inference.tensor import BadInput

_BASE64 = re.compile(r"[A-Za-z0-9+/]*+={0,2}")
_BASE64_SPACE = str.maketrans("", "", " \t\r\n\f\v")


def is_base64(value: Any) -> bool:
    """Whether a value is `{"b64": "..."}`, which stands for a string of bytes."""
    return type(value) is dict and len(value) == 1 and type(value.get("b64")) is str


def decode_base64(text: str) -> bytes:
    """Standard base64, as `absl::Base64Unescape` takes it: padding may be missing, white space is skipped."""
    try:
        # Four times as fast as binascii, and as strict.
        return msgspec.convert(text, bytes)
    except msgspec.ValidationError:
        text = text.translate(_BASE64_SPACE)
        try:
            if _BASE64.fullmatch(text):
                digits = text.rstrip("=")
                padded = digits + "=" * (-len(digits) % 4)
                if len(text) in (len(digits), len(padded)):
                    return a2b_base64(padded, strict_mode=True)
        except Base64Error:
            pass
        raise BadInput("Unable to base64 decode") from None
