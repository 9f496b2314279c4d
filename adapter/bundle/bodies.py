"""The body of a `/predict` → requests, as the handler's struct has them. No I/O; BadInput says what is wrong, and where.

JSON                        {"x": 1}  one request;  {"instances": [{"x": 1}, {"x": 2}]}  a batch of them
multipart/form-data         one request: each part is the field of its name
image/*, audio/*, video/*,  one request: the body is the one field of bytes
application/octet-stream
"""

import re
from collections.abc import Generator, Sequence
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

import msgspec

from adapter.bundle import arrays, multipart
from adapter.bundle.long_arrays import LongArrays, Taken, decoded
from adapter.bundle.mistakes import lowered
from adapter.errors import Refused
from adapter.inference.tensor import BadInput

BATCH = "instances"
_BATCH = re.compile(rb'[ \t\r\n]*\{[ \t\r\n]*"instances"[ \t\r\n]*:')
_FORM = "multipart/form-data"
_RAW = ("image/", "audio/", "video/", "application/octet-stream")
# Shorter texts are read sooner by msgspec alone.
_WORTH = 1 << 12
_PLACE = re.compile(r" - at `[$][.]?(.*)`$")


class Body(NamedTuple):
    """The body of a `/predict`; `taken`, if its JSON had long arrays that have been read already."""

    content_type: str
    data: bytes
    taken: Taken | None = None


class Batch(NamedTuple):
    """`requests` of one HTTP request; `many` unless it was a single one, which is answered likewise."""

    requests: Sequence[Any]
    many: bool


class Bodies:
    """Reads bodies for handlers that take `request`, `max_batch` of them at most. Raises TypeError for what cannot be read."""

    def __init__(self, request: type[msgspec.Struct], max_batch: int) -> None:
        fields = {field.encode_name: field for field in msgspec.structs.fields(request)}
        if BATCH in fields:
            raise TypeError(f"{request.__name__} has a field {BATCH!r}, which is the name for a batch of requests")
        self._request = request
        self._max_batch = max_batch
        self._types = {name: _plain(field.type) for name, field in fields.items()}
        self.bytes_fields = [name for name, expected in self._types.items() if bytes in expected]
        several: Any = list[request]  # type: ignore[valid-type] # a type that is known when the handler is
        batch = msgspec.defstruct("Batch", [(BATCH, several)], forbid_unknown_fields=True)
        self._one = msgspec.json.Decoder(request, dec_hook=arrays.decode)
        self._many = msgspec.json.Decoder(batch, dec_hook=arrays.decode)
        self._arrays = LongArrays(self._types)

    def taking(self, content_type: str, data: bytes) -> Generator[None, None, Taken | None] | None:
        """What takes the long arrays out of a body of JSON, on the event loop, in steps; None where there is none to take."""
        if not self._arrays.keys or len(data) < _WORTH or _kind(content_type).startswith((_FORM, *_RAW)):
            return None
        return self._arrays.taken(data)

    def read(self, body: Body) -> Batch:
        """The requests in `body`.

        Raises:
            BadInput: the body is not what the request's struct asks for.
            Refused: 415 for a content type that this handler does not take, 413 for too many instances.
        """
        content_type, data, taken = body
        kind = _kind(content_type)
        try:
            if kind == _FORM:
                return Batch([self._form(content_type, data)], False)
            if kind.startswith(_RAW):
                return Batch([self._raw(kind, data)], False)
            if not data:
                raise BadInput("the body is empty")
            if _BATCH.match(data) is None:
                return Batch([_value(self._one, data, taken)], False)
            requests = getattr(_value(self._many, data, taken), BATCH)
        except msgspec.ValidationError as error:
            raise BadInput(_told(error)) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadInput(f"the body is no JSON: {error}") from None
        except RecursionError:
            raise BadInput("the body is nested too deeply") from None
        if not requests:
            raise BadInput(f"{BATCH}: expected at least one request")
        if len(requests) > self._max_batch:
            raise Refused(
                413, f"{BATCH}: at most {self._max_batch} requests are accepted at one time, got {len(requests)}"
            )
        return Batch(requests, True)

    def _raw(self, kind: str, body: bytes) -> Any:
        if len(self.bytes_fields) != 1:
            raise Refused(415, f"{kind}: this service takes JSON; no single field of its requests is bytes")
        return self._converted({self.bytes_fields[0]: body})

    def _form(self, content_type: str, body: bytes) -> Any:
        if not self.bytes_fields:
            raise Refused(415, "multipart/form-data: this service takes JSON; no field of its requests is bytes")
        found: dict[str, Any] = {}
        for name, value in multipart.parts(content_type, body):
            if name not in self._types:
                raise BadInput(f"{name}: no such field; expected {', '.join(self._types)}")
            expected = self._types[name]
            values = found.setdefault(name, [])
            values.append(value if bytes in expected else _text(name, value, str in expected))
        single = {
            name: values[0] if len(values) == 1 and not self._is_list(name) else values
            for name, values in found.items()
        }
        return self._converted(single)

    def _is_list(self, name: str) -> bool:
        return any(get_origin(kind) in (list, tuple, set) or kind in (list, tuple, set) for kind in self._types[name])

    def _converted(self, fields: dict[str, Any]) -> Any:
        return msgspec.convert(fields, self._request, strict=False, dec_hook=arrays.decode)


def _value(decoder: "msgspec.json.Decoder[Any]", data: bytes, taken: Taken | None) -> Any:
    found = decoded(taken, decoder.type)
    return decoder.decode(data) if found is None else found


def _kind(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower() if content_type else ""


def _text(name: str, value: bytes, is_text: bool) -> Any:
    """What a form's field says: text where text is asked for, else a number or JSON."""
    try:
        text = value.decode()
        return text if is_text else msgspec.json.decode(value)
    except UnicodeDecodeError:
        raise BadInput(f"{name}: not UTF-8") from None
    except msgspec.DecodeError:
        return text  # whatever it is, the struct's own words refuse it


def _plain(expected: Any) -> frozenset[Any]:
    """The types that a field may have, without what annotates them; of a list's, its items' too."""
    if get_origin(expected) is Annotated:
        return _plain(get_args(expected)[0])
    if get_origin(expected) is Union or type(expected).__name__ == "UnionType":
        return frozenset().union(*(_plain(arm) for arm in get_args(expected)))
    if get_origin(expected) in (list, tuple, set):
        return frozenset({get_origin(expected)}).union(*(_plain(arm) for arm in get_args(expected)))
    return frozenset({expected})


def _told(error: msgspec.ValidationError) -> str:
    """`instances[3].x: expected float, got str`."""
    place = _PLACE.search(str(error))
    said = lowered(error)
    return f"{place[1]}: {said}" if place is not None and place[1] else said
