"""Requests whose head cannot be read: what is told to the client, and what their first line still tells of them.

The parser's own words quote what came; a stranger's bytes go no further than this module.
"""

import re
from typing import NamedTuple

from aiohttp.http import HttpProcessingError
from aiohttp.http_exceptions import BadStatusLine, InvalidHeader, InvalidURLError, LineTooLong
from multidict import CIMultiDict, CIMultiDictProxy

from adapter.errors import Refused, no_such_method
from adapter.http.request import Head

LONGEST_LINE = 8190
MOST_HEADERS = 128
# As much of a head as may be needed to say which line of it was too long.
KEPT = LONGEST_LINE + 64

_FIRST_LINE = re.compile(
    rb"(?:(GET|HEAD|POST|PUT|DELETE|OPTIONS|PATCH) )?(?:[!-.0-~]* ?(/[!-~]*)( HTTP/[01]\.[0-9]+\r?\n)?)?"
)
_NOTHING: CIMultiDictProxy[str] = CIMultiDictProxy(CIMultiDict())
_TLS = b"\x16\x03"


class Unread(NamedTuple):
    """`head` is what is known of it: the method ("_OTHER" if it is not) and the path (""), no header."""

    head: Head
    refusal: Refused

    @classmethod
    def of(cls, error: HttpProcessingError, text: bytes) -> "Unread":
        """What the parser raised; `text` is what came since the head began, empty where that is not known."""
        method, target, version = _FIRST_LINE.match(text).groups()  # type: ignore[union-attr]  # it matches everything
        path = (target or b"").partition(b"?")[0].decode()
        head = Head((method or b"_OTHER").decode(), path, path, _NOTHING, False, False)
        # TensorFlow Serving reads the request line of any method, and looks at the method last (libevent's http.c).
        read_there = isinstance(error, BadStatusLine | InvalidURLError) and version is not None
        if read_there and method is None and path[:4].lower() == "/v1/":
            return cls(head, no_such_method())
        return cls(head, _refusal(error, text))


def _refusal(error: HttpProcessingError, text: bytes) -> Refused:
    if isinstance(error, LineTooLong):
        end = text.find(b"\r\n")
        if text and not 0 <= end <= LONGEST_LINE:
            return Refused(414, f"The request line is too long: at most {LONGEST_LINE} bytes are accepted")
        return Refused(431, f"A header is too long: name and value may have {LONGEST_LINE} bytes, send less")
    if isinstance(error, InvalidURLError):
        return Refused(
            400, "The path has bytes that no URL has: percent-encode all but ASCII, control bytes and spaces too"
        )
    if isinstance(error, InvalidHeader):
        return Refused(400, "A header has a value that HTTP does not allow")
    said = reason(error)
    if said.startswith("Too many headers"):
        return Refused(431, f"Too many headers: at most {MOST_HEADERS} are accepted")
    if said.startswith("Missing 'Host'"):
        return Refused(400, "The Host header is missing: HTTP/1.1 asks for one (RFC 9112 §3.2)")
    if text.startswith(_TLS):
        return Refused(400, "This port speaks HTTP without TLS: call it by http://")
    return Refused(400, f"What came is not an HTTP/1.1 request: {said}")


def reason(error: HttpProcessingError) -> str:
    """What the parser says, without the bytes that it quotes."""
    lines = [line.strip().rstrip(":") for line in error.message.removeprefix("Bad status line:").strip().split("\n")]
    return re.sub("[^ -~]", "?", lines[0])[:128]
