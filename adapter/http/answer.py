"""An answer that is complete when it is made: one head, one body, no streaming, no cookies."""

import time
from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus


class Answer:
    """`Connection: close` among the headers, or `close`, ends the connection; `request_id` goes on as X-Request-Id."""

    __slots__ = ("body", "close", "headers", "request_id", "status")

    def __init__(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.status = status
        self.body = body
        self.headers = dict(headers)
        self.request_id = ""
        self.close = headers.get("Connection") == "close"

    def sent_body(self, method: str) -> bytes:
        """What follows the head: nothing to HEAD and in 304 (RFC 9110 §6.4.1)."""
        return b"" if method == "HEAD" or self.status == 304 else self.body

    def head(self, *, close: bool, old: bool = False) -> bytes:
        """Status line and headers. `close`: the connection ends with this answer; `old`: the client speaks HTTP/1.0.

        Raises:
            ValueError: a header has a line break in it.
        """
        connection = b"Connection: close\r\n" if close else b"Connection: keep-alive\r\n" if old else b""
        request_id = f"X-Request-Id: {self.request_id}\r\n".encode() if self.request_id else b""
        fixed = _fixed(old, self.status, tuple(self.headers.items()))
        date = _date(int(time.time()))
        return b"%b%b%bContent-Length: %d\r\nDate: %b\r\n\r\n" % (fixed, request_id, connection, len(self.body), date)


@lru_cache(512)
def _fixed(old: bool, status: int, headers: tuple[tuple[str, str], ...]) -> bytes:
    """What is the same on many answers: all but their length and their date."""
    try:
        reason = HTTPStatus(status).phrase
    except ValueError:
        reason = ""
    lines = [f"HTTP/1.{0 if old else 1} {status} {reason}"]
    lines += [f"{name}: {value}" for name, value in headers if name != "Connection"]
    text = "\r\n".join(lines)
    if not text.count("\r") == text.count("\n") == len(lines) - 1:
        raise ValueError("a header of the answer has a line break in it")
    return text.encode() + b"\r\n"


@lru_cache(1)
def _date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()
