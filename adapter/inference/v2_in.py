"""An inference request of the Open Inference Protocol to tensors: JSON, binary data, or both. No I/O.

The request is the specification's (kserve/open-inference-protocol, specification/protocol/inference_rest.md), with the
binary tensor data extension (triton-inference-server, docs/protocol/extension_binary_data.md): the body begins with a
JSON object, and what the inputs that have a `binary_data_size` hold follows it, one after the other.

Three ways lead from an input to its tensor. Binary numbers are used where they lie in the body. Long lists of numbers
are cut out of the JSON before it is parsed and read by `json_numbers`. Everything else, and every list in which that
finds a mistake, is parsed into Python objects and converted with care; this way also words the errors.
"""

import re
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from adapter.inference import v2_document, v2_raw
from adapter.inference.json_lists import Span
from adapter.inference.json_parts import Large
from adapter.inference.json_scan import echo
from adapter.inference.json_tree import MAX_RANK
from adapter.inference.tensor import V2_DTYPES, Array, BadInput, DType, Shape, Signature, Tensor, quoted
from adapter.inference.turns import LARGE
from adapter.inference.v2_document import Object
from adapter.inference.v2_values import Given, from_binary, from_list, from_text

Steps = Generator[None, None, dict[str, Tensor]]

HEADER_LENGTH = "Inference-Header-Content-Length"
_JSON = "application/json"
_WHERE_JSON_ENDS = f"{HEADER_LENGTH} says where the JSON ends"

# Parameters that change what an answer means; to ignore them would be to answer another question.
_REFUSED = ("classification", "shared_memory_region", "sequence_id")
# These say that there is none (triton-inference-server, docs/protocol/extension_sequence.md).
_NO_SEQUENCE = (None, 0, "")
_KINDS: Mapping[type, str] = {
    bool: "true or false",
    int: "an integer",
    str: "a string",
    list: "a list",
    dict: "an object",
}


@dataclass(slots=True, eq=False)
class _Wanted:
    """An output as the request asks for it; `binary` is None where it leaves that to the request."""

    name: str
    binary: bool | None


@dataclass(slots=True, eq=False)
class _Input(Given):
    """One input: its values lie in the body from `start` to `end`, `binary` or as text, or else, parsed, in `data`."""

    binary: bool
    start: int
    end: int
    data: list[Any] | None


@dataclass(slots=True, eq=False)
class InferRequest:
    """A request whose signature's name is known; its tensors are made once the caller has the signature.

    The first `json_length` bytes of `body` are the JSON.
    """

    id: str | None
    signature_name: str
    inputs: list[_Input]
    wanted: list[_Wanted]
    binary_output: bool
    body: bytes
    json_length: int
    raw: bool = False
    """Whether the body is nothing but the bytes of the one input."""

    @property
    def text_size(self) -> int:
        """Bytes that are read element by element."""
        strings = [given.end - given.start for given in self.inputs if given.binary and given.dtype.is_string]
        return self.json_length + sum(strings)

    def tensors_in_steps(self, signature: Signature) -> Steps:
        """The signature's inputs as tensors; yields every few milliseconds, so that others get their turn.

        Raises:
            BadInput: naming the input, and the element where there is one.
        """
        if self.raw:
            return (yield from v2_raw.tensors(self.body, signature))
        found: dict[str, Tensor] = {}
        for given in self.inputs:
            spec = signature.inputs.get(given.name)
            if spec is None:
                raise BadInput(f"{given.where}: {_no_such('input', signature.name, signature.inputs)}")
            if given.name in found:
                raise BadInput(f"{given.where}: given twice")
            if spec.dtype is not given.dtype:
                raise BadInput(f"{given.where}: the model takes {name_of(spec.dtype)}, got {given.dtype.v2}")
            found[given.name] = Tensor(given.dtype, (yield from self._array(given)))
        if len(found) != len(signature.inputs):
            missing = next(name for name in signature.inputs if name not in found)
            raise BadInput(f'inputs: "{missing}" is missing, which signature "{signature.name}" takes')
        return {name: found[name] for name in signature.inputs} if len(found) > 1 else found

    def outputs(self, signature: Signature) -> list[tuple[str, bool]]:
        """The outputs to answer with, in order, and whether each is wanted as binary data.

        Raises:
            BadInput: one is not the signature's, or of a type that the protocol does not have.
        """
        wanted = self.wanted or [_Wanted(name, None) for name in signature.outputs]
        for position, want in enumerate(wanted):
            where = f'outputs[{position}] "{want.name[:64]}"'
            spec = signature.outputs.get(want.name)
            if spec is None:
                raise BadInput(f"{where}: {_no_such('output', signature.name, signature.outputs)}")
            if not spec.dtype.v2:
                raise BadInput(f"{where}: {spec.dtype.name} is no datatype of this protocol; ask for other outputs")
        return [(want.name, self.binary_output if want.binary is None else want.binary) for want in wanted]

    def _array(self, given: _Input) -> Generator[None, None, Array]:
        if given.binary:
            return (yield from from_binary(self.body, given.start, given.end, given))
        if given.data is not None:
            return (yield from from_list(given.data, given))
        array = yield from from_text(self.body, given.start, given.end, given)
        if array is None:
            tree = yield from v2_document.loaded(self.body, self.json_length)
            return (yield from from_list(tree["inputs"][given.position]["data"], given))
        return array


def name_of(dtype: DType) -> str:
    """The protocol's name of a dtype; TensorFlow's, in capitals, where it has none (complex numbers)."""
    return dtype.v2 or dtype.name.upper()


def _no_such(what: str, signature: str, known: Mapping[str, object]) -> str:
    return f'signature "{signature}" has no such {what}; it has {quoted(known)}'


def parse(body: bytes, header_length: str | None, content_type: str = "") -> Generator[None, None, InferRequest]:
    """The structure of a request; `header_length` is the header `Inference-Header-Content-Length`, if there is one.

    Where that is 0 there is no JSON, but in a body that says it is JSON. Yields every few milliseconds where the body is large.

    Raises:
        BadInput: the body is no inference request; the message says what was expected where.
    """
    end = _json_length(body, header_length)
    if not end and body and not content_type.lower().startswith(_JSON):
        return InferRequest(
            id=None, signature_name="", inputs=[], wanted=[], binary_output=True, body=body, json_length=0, raw=True
        )
    try:
        tree, lists = yield from v2_document.read(body, end)
    except BadInput as error:
        if header_length is None and b'"binary_data_size"' in body[:LARGE]:
            raise BadInput(f"{error}; {_WHERE_JSON_ENDS}") from None
        raise
    return _request(tree, lists, body, end)


def _json_length(body: bytes, header_length: str | None) -> int:
    if header_length is None:
        return len(body)
    end = int(header_length) if re.fullmatch("[0-9]{1,12}", header_length) else -1
    if not 0 <= end <= len(body):
        raise BadInput(
            f"{HEADER_LENGTH}: expected the length of the JSON, at most the body's {len(body)}, got {header_length[:32]!r}"
        )
    return end


def _request(tree: Object, lists: Mapping[str, Span], body: bytes, end: int) -> InferRequest:
    parameters = _parameters(tree, "")
    return InferRequest(
        id=_member(tree, "id", str, "", None),
        signature_name=_member(parameters, "signature_name", str, "parameters.", ""),
        inputs=list(_inputs(_member(tree, "inputs", list, ""), lists, body, end)),
        wanted=[_wanted(position, output) for position, output in enumerate(_member(tree, "outputs", list, "", ()))],
        binary_output=_member(parameters, "binary_data_output", bool, "parameters.", False),
        body=body,
        json_length=end,
    )


def _member(tree: Object, key: str, kind: type, path: str, *default: Any) -> Any:
    """A member of the JSON type that it must have; absent and null mean the default, if there is one."""
    value = tree.get(key)
    if value is None and default:
        return default[0]
    if type(value) is not kind and not (kind is list and type(value) is Large):
        raise BadInput(f"{path}{key}: expected {_KINDS[kind]}" + (f", got {echo(value)}" if key in tree else ""))
    return value


def _parameters(tree: Object, path: str) -> Object:
    parameters: Object = _member(tree, "parameters", dict, path, {})
    for name in _REFUSED:
        if name in parameters and not (name == "sequence_id" and parameters[name] in _NO_SEQUENCE):
            raise BadInput(f"{path}parameters.{name}: not served here")
    return parameters


def _wanted(position: int, output: Any) -> _Wanted:
    path = f"outputs[{position}]"
    if type(output) is not dict:
        raise BadInput(f"{path}: expected an object, got {echo(output)}")
    parameters = _parameters(output, f"{path}.")
    binary = _member(parameters, "binary_data", bool, f"{path}.parameters.", None)
    return _Wanted(_member(output, "name", str, f"{path}."), binary)


def _inputs(inputs: list[Any], lists: Mapping[str, Span], body: bytes, offset: int) -> Iterator[_Input]:
    """The inputs, with binary data taken from the body one after the other, from `offset` on."""
    json_length = offset
    for position, tree in enumerate(inputs):
        given = _input(position, tree, lists, offset)
        if given.binary:
            if given.end > len(body):
                left = len(body) - offset
                hint = f"; {_WHERE_JSON_ENDS}" if json_length == len(body) else ""
                raise BadInput(
                    f"{given.where}: binary_data_size is {given.end - offset}, the body has {left} bytes left{hint}"
                )
            offset = given.end
        yield given
    if offset < len(body):
        raise BadInput(f"The body: its last {len(body) - offset} bytes belong to no input")


def _input(position: int, tree: Any, lists: Mapping[str, Span], offset: int) -> _Input:
    path = f"inputs[{position}]"
    if type(tree) is not dict:
        raise BadInput(f"{path}: expected an object, got {echo(tree)}")
    name = _member(tree, "name", str, f"{path}.")
    path = f'{path} "{name[:64]}": '
    datatype = _member(tree, "datatype", str, path)
    dtype = V2_DTYPES.get(datatype)
    if dtype is None:
        raise BadInput(f"{path}datatype: expected one of {', '.join(sorted(V2_DTYPES))}, got {echo(datatype)}")
    shape, size = _shape(_member(tree, "shape", list, path), path)
    length = _member(_parameters(tree, path), "binary_data_size", int, f"{path}parameters.", None)
    data = tree.get("data")
    if length is not None:
        if data is not None:
            raise BadInput(f"{path}expected data or binary_data_size, got both")
        if length < 0:
            raise BadInput(f"{path}parameters.binary_data_size: expected 0 or more, got {length}")
        return _Input(position, name, dtype, shape, size, True, offset, offset + length, None)
    if type(data) is str and data in lists:
        return _Input(position, name, dtype, shape, size, False, lists[data].start, lists[data].end, None)
    return _Input(position, name, dtype, shape, size, False, 0, 0, _member(tree, "data", list, path))


def _shape(sizes: list[Any], path: str) -> tuple[Shape, int]:
    if len(sizes) > MAX_RANK:
        raise BadInput(f"{path}shape: expected at most {MAX_RANK} dimensions, got {len(sizes)}")
    total = limit = 1
    for index, size in enumerate(sizes):
        if type(size) is not int or size < 0:
            raise BadInput(f"{path}shape[{index}]: expected a whole number, 0 or more, got {echo(size)}")
        total *= size
        limit *= size or 1
    if limit >> 48:  # numpy has arrays without elements up to 2**63 bytes only, too
        raise BadInput(f"{path}shape: {sizes} has more elements than a tensor can have")
    return tuple(sizes), total
