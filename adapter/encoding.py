"""Compressed answers, for those who really ask (RFC 9110 §12.5.3)."""

import asyncio
import zlib
from collections.abc import Mapping

from multidict import MultiMapping

from adapter.exchange import response
from adapter.http.answer import Answer

# zlib's container formats for the codings of RFC 9110 §8.4.1: gzip's, and zlib's own, which HTTP calls deflate.
_CODINGS = {"gzip": 31, "deflate": 15}
# What goes into one packet anyway gains nothing.
_LEAST = 1400


def worth_encoding(accepted: str, body: bytes) -> bool:
    """Whether `encoded` would compress: seldom, and asking here saves all others a coroutine."""
    return accepted in _CODINGS and len(body) >= _LEAST


async def encoded(asked: MultiMapping[str], body: bytes, headers: Mapping[str, str]) -> Answer:
    """The answer 200, compressed if it is large and the client accepts one single coding (`Accept-Encoding: gzip`).

    `asked` are the request's headers.

    That is how a client says it wants one; lists of codings are what HTTP libraries send by default, and to compress
    tensors takes more time than to send them.
    """
    accepted = asked.get("Accept-Encoding", "")
    if not worth_encoding(accepted, body) or len(asked.getall("Accept-Encoding")) > 1:
        return response(200, body, headers)
    compressed = await asyncio.to_thread(zlib.compress, body, 1, _CODINGS[accepted])
    return response(200, compressed, {**headers, "Content-Encoding": accepted, "Vary": "Accept-Encoding"})
