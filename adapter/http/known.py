"""A head that was parsed once and is recognized when it comes again, whatever the length of the body behind it."""

import re
from typing import NamedTuple

from aiohttp.http import RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy

from adapter.http.request import Head

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,9})[ \t]*(?=\r\n)", re.IGNORECASE)
# Headers that are about this one request's body or connection, beyond its length.
_ITS_OWN = ("Expect", "Transfer-Encoding", "Content-Encoding", "Upgrade")
# Longer ones are not worth their memory on thousands of connections.
_LONGEST = 4096


class Known(NamedTuple):
    """The head, and its bytes on either side of the digits of Content-Length; without one, all are before."""

    head: Head
    before: bytes
    after: bytes

    @classmethod
    def of(cls, text: bytes, message: RawRequestMessage) -> "Known | None":
        """From the text of a head and what the parser read in it; None if one like it may mean something else."""
        headers = message.headers
        if len(text) > _LONGEST or any(name in headers for name in _ITS_OWN):
            return None
        head = Head.of(message)
        place = _LENGTH.search(text)
        if place is None:
            return None if "Content-Length" in headers else cls(head, text, b"")
        if _LENGTH.search(text, place.end()) is not None:
            return None
        others = CIMultiDict(headers)
        del others["Content-Length"]
        return cls(head._replace(headers=CIMultiDictProxy(others)), text[: place.start(1)], text[place.end(1) :])

    def match(self, data: bytes) -> tuple[bytes, int | None] | None:
        """The body and the announced length of a request that has this head, if `data` is that and nothing else."""
        before, after = self.before, self.after
        if not data.startswith(before):
            return None
        if not after:
            return (b"", None) if len(data) == len(before) else None
        start = len(before)
        end = data.find(b"\r", start, start + 10)
        digits = data[start : max(end, start)]
        if not digits.isdigit() or not data.startswith(after, end):
            return None
        body = data[end + len(after) :]
        length = int(digits)
        return (body, length) if len(body) == length else None


def end_of_head(data: bytes) -> int:
    """Where a head ends that data begins with; 0 if that is not plain to see."""
    end = data.find(b"\r\n\r\n") + 4
    if end < 4 or not data[:1].isalpha():
        return 0
    lines = data.count(b"\n", 0, end)
    return end if lines == data.count(b"\r\n", 0, end) == data.count(b"\r", 0, end) else 0
