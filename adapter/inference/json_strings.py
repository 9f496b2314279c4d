"""One long string in a JSON text, read in pieces: an image in base64 is often all there is in a body. No I/O.

A string is cut between two characters. Where the places before a cut hold a backslash, it may lie in the middle of an
escape, or of two that stand for one character (`\\ud83d\\ude00`): so the cut goes before that escape, or behind it.
"""

import re

# Text that is parsed in one go: a millisecond. A string up to this long is a plain `str`.
PIECE = 1 << 18

# More than errors tell of a string.
_BEGINNING = 1 << 12
# Two escapes of one character take 12 bytes, a character without escapes up to 4.
_NEAR = 16
_LOW = re.compile(rb"\\u[dD][c-fC-F]")
_HIGH = re.compile(rb"\\u[dD][89abAB]")


class LongText(str):
    """A string that was read in pieces. As a `str` it is no more than its beginning, which is what errors tell of it."""

    __slots__ = ("_utf8", "decoded")

    _utf8: bytes
    # What the string is in base64: known where it is all of a `{"b64": ...}`; None too where it is no base64.
    decoded: bytes | None

    def __new__(cls, utf8: bytes) -> "LongText":
        text = super().__new__(cls, utf8[:_BEGINNING].decode(errors="ignore"))
        text._utf8 = utf8
        text.decoded = None
        return text

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:  # noqa: ARG002 - nobody asks for others
        """All of it in UTF-8, without a copy."""
        return self._utf8

    def whole(self) -> str:
        """All of it, in one go: for where it has no right to be so long."""
        return self._utf8.decode()


def cut(text: bytes, start: int, end: int) -> int:
    """Where the first piece ends of what stands in quotes between two offsets."""
    near = start + PIECE
    if near >= end:
        return end
    last = text.rfind(b"\\", near - _NEAR, near)
    if last < 0:
        # More than three such bytes in a row are no UTF-8, wherever they are cut.
        return next((place for place in range(near, near - 4, -1) if text[place] & 0xC0 != 0x80), near)
    if not _begins_escape(text, start, last):
        return last + 1
    high = last - 6
    pair = _LOW.match(text, last) and _HIGH.match(text, high) and _begins_escape(text, start, high)
    return high if pair else last


def _begins_escape(text: bytes, start: int, backslash: int) -> bool:
    """Whether it is the first, third, … of the backslashes that stand together; each second one is an escaped one."""
    before = text[start : backslash + 1]
    return (len(before) - len(before.rstrip(b"\\"))) % 2 == 1
