"""`multipart/form-data` (RFC 7578) that is here in full → its fields. No I/O; BadInput says what is wrong."""

import re
from collections.abc import Iterator

from adapter.inference.tensor import BadInput

MOST_PARTS = 256
_BOUNDARY = re.compile(r';\s*boundary=(?:"([^"\r\n]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
_DISPOSITION = re.compile(
    rb"^content-disposition[ \t]*:[ \t]*form-data[ \t]*(;[^\r\n]*)$", re.IGNORECASE | re.MULTILINE
)
_NAME = re.compile(rb';[ \t]*name=(?:"([^"\r\n]*)"|([^\s;"]+))', re.IGNORECASE)
_ENCODING = re.compile(
    rb"^content-transfer-encoding[ \t]*:[ \t]*(?!(?:binary|8bit|7bit)[ \t]*$)", re.IGNORECASE | re.MULTILINE
)


def parts(content_type: str, body: bytes) -> Iterator[tuple[str, bytes]]:
    """Name and content of every field, in order."""
    match = _BOUNDARY.search(content_type)
    if match is None:
        raise BadInput("multipart/form-data: its Content-Type names no boundary")
    delimiter = b"--" + (match[1] or match[2]).encode("latin-1", "replace")
    # A delimiter begins a line; what comes before the first one counts for nothing (RFC 2046 §5.1.1).
    start = 0 if body.startswith(delimiter) else body.find(b"\r\n" + delimiter) + 2
    if start == 1:
        raise BadInput("multipart/form-data: the boundary that Content-Type names does not occur")
    for _ in range(MOST_PARTS):
        start += len(delimiter)
        if body.startswith(b"--", start):
            return
        head = body.find(b"\r\n", start)
        content = body.find(b"\r\n\r\n", head)
        end = body.find(b"\r\n" + delimiter, content)
        if head < 0 or content < 0 or end < 0:
            raise BadInput("multipart/form-data: it ends in the middle of a field")
        yield _name(body[head + 2 : content]), body[content + 4 : max(end, content + 4)]
        start = end + 2
    raise BadInput(f"multipart/form-data: at most {MOST_PARTS} fields are accepted")


def _name(head: bytes) -> str:
    head = head.replace(b"\r\n", b"\n")
    disposition = _DISPOSITION.search(head)
    name = _NAME.search(disposition[1]) if disposition else None
    if name is None:
        raise BadInput("multipart/form-data: a part has no name")
    if _ENCODING.search(head):
        raise BadInput("multipart/form-data: Content-Transfer-Encoding is not used in HTTP (RFC 7578 §4.7)")
    return (name[1] if name[1] is not None else name[2]).decode("utf-8", "replace")
