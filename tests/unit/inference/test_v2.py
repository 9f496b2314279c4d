"""`/v2`, the Open Inference Protocol: what a request means as tensors, and tensors as a response; no server involved."""

import json
import struct
import tracemalloc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from adapter import joining
from adapter.errors import Refused
from adapter.inference import json_lists, json_out, json_outline, json_strings, v2_document, v2_in, v2_out
from adapter.inference.signatures import Servable
from adapter.inference.tensor import (
    BFLOAT16,
    BOOL,
    COMPLEX64,
    DOUBLE,
    FLOAT,
    HALF,
    INT8,
    INT32,
    INT64,
    STRING,
    UINT8,
    UINT64,
    V2_DTYPES,
    Array,
    BadInput,
    DType,
    Shape,
    Signature,
    Tensor,
    TensorSpec,
)
from adapter.inference.turns import at_once
from adapter.inference.v2 import parse as parse_path
from adapter.inference.v2_out import response_in_steps
from tests.unit.steps import run

Object = dict[str, Any]


def signature(**dtypes: DType) -> Signature:
    """serving_default of inputs with these dtypes and any shape, and of outputs y (float), s (string) and c (complex)."""
    inputs = {name: TensorSpec(name, dtype, None) for name, dtype in dtypes.items()}
    outputs = {"y": FLOAT, "s": STRING, "c": COMPLEX64}
    return Signature(
        "serving_default",
        "tensorflow/serving/predict",
        inputs,
        {name: TensorSpec(name, dtype, None) for name, dtype in outputs.items()},
    )


def tensors(
    document: Object | bytes, binary: bytes = b"", header: str | None = "", **dtypes: DType
) -> dict[str, Tensor]:
    """The inputs of a request; `header` is right unless it is given."""
    head = document if isinstance(document, bytes) else orjson.dumps(document)
    if header == "":
        header = str(len(head)) if binary else None
    return at_once(parsed(head + binary, header).tensors_in_steps(signature(**dtypes)))


def parsed(body: bytes, header: str | None) -> v2_in.InferRequest:
    return at_once(v2_in.parse(body, header))


@pytest.fixture(params=["in one go", "in pieces of 8 bytes"])
def pieces(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every request is read as small ones are, and as large ones are."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param != "in one go":
            patch.setattr(v2_document, "LARGE", 0)
            patch.setattr(json_lists, "LARGE", 0)
            patch.setattr(json_outline, "CHUNK", 8)
            patch.setattr(json_strings, "PIECE", 32)
        yield


def x(data: Any = None, shape: list[Any] | None = None, datatype: str = "FP32", **members: Any) -> Object:
    """A request with one input, called x."""
    given_shape = [len(data)] if shape is None else shape
    tensor = {
        "name": "x",
        "shape": given_shape,
        "datatype": datatype,
        **({} if data is None else {"data": data}),
        **members,
    }
    return {"inputs": [tensor]}


def refusal(document: Object | bytes, binary: bytes = b"", header: str | None = "", **dtypes: DType) -> str:
    with pytest.raises(BadInput) as caught:
        tensors(document, binary, header, **(dtypes or {"x": FLOAT}))
    return str(caught.value)


def outcome(document: Object | bytes, **dtypes: DType) -> str | dict[str, list[Any]]:
    """The values, or why there are none."""
    try:
        return {name: tensor.data.tolist() for name, tensor in tensors(document, **dtypes).items()}
    except BadInput as error:
        return str(error)


# Values of every datatype.

FLOATS = {"FP16": 16, "FP32": 32, "FP64": 64}
SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)


def values_of(dtype: DType, size: int, finite: bool) -> st.SearchStrategy[list[Any]]:
    kind = dtype.numpy.kind
    if dtype.is_string:
        value: st.SearchStrategy[Any] = st.text(max_size=8) if finite else st.binary(max_size=8)
    elif dtype is BOOL:
        value = st.booleans()
    elif dtype is BFLOAT16:
        value = st.integers(0, 0xFFFF).filter(lambda bits: not finite or bits & 0x7F80 != 0x7F80)
    elif kind == "f":
        value = st.floats(width=FLOATS[dtype.v2], allow_nan=not finite, allow_infinity=not finite)  # type: ignore[arg-type]
    else:
        limits = np.iinfo(dtype.numpy)
        value = st.integers(int(limits.min), int(limits.max))
    return st.lists(value, min_size=size, max_size=size)


@st.composite
def any_tensor(draw: st.DrawFn, finite: bool) -> Tensor:
    """A tensor of any datatype; `finite`: of values that JSON has."""
    dtype = draw(st.sampled_from(sorted(V2_DTYPES.values(), key=lambda dtype: dtype.number)))
    shape: Shape = draw(SHAPES)
    leaves = draw(values_of(dtype, int(np.prod(shape)), finite))
    if not dtype.is_string:
        return Tensor(dtype, np.array(leaves, dtype.numpy).reshape(shape))
    data = np.empty(len(leaves), object)
    data[:] = [leaf.encode() if isinstance(leaf, str) else leaf for leaf in leaves]
    return Tensor(dtype, data.reshape(shape))


def as_json(tensor: Tensor) -> Any:
    """The tensor as nested lists, written by other means than the adapter's."""
    if tensor.dtype is BFLOAT16:
        wide = tensor.data.astype(np.uint32) << 16
        return wide.view(np.float32).tolist()
    if tensor.dtype.is_string:
        return (
            np.vectorize(bytes.decode, otypes=[object])(tensor.data).tolist()
            if tensor.data.size
            else tensor.data.tolist()
        )
    return tensor.data.tolist()


def as_binary(tensor: Tensor) -> bytes:
    if tensor.dtype.is_string:
        return b"".join(struct.pack("<I", len(item)) + item for item in tensor.data.ravel())
    return tensor.data.tobytes()


def same(ours: Tensor, theirs: Tensor) -> bool:
    """Equal to the bit; strings equal."""
    if (ours.dtype, ours.shape) != (theirs.dtype, theirs.shape) or ours.data.dtype != theirs.data.dtype:
        return False
    return as_binary(ours) == as_binary(theirs)


@given(any_tensor(finite=True))
@pytest.mark.usefixtures("pieces")
def test_json_values_nested_as_the_shape_says_or_flat_become_the_tensor(tensor: Tensor) -> None:
    for data in (as_json(tensor), as_json(Tensor(tensor.dtype, tensor.data.ravel()))):
        data = data if isinstance(data, list) else [data]
        document = x(data, list(tensor.shape), tensor.dtype.v2)
        assert same(tensors(document, x=tensor.dtype)["x"], tensor)


@given(any_tensor(finite=False))
def test_binary_values_become_the_tensor_to_the_bit(tensor: Tensor) -> None:
    binary = as_binary(tensor)
    document = x(None, list(tensor.shape), tensor.dtype.v2, parameters={"binary_data_size": len(binary)})
    assert same(tensors(document, binary, x=tensor.dtype)["x"], tensor)


@given(st.lists(st.tuples(any_tensor(finite=True), st.booleans()), min_size=1, max_size=4))
@pytest.mark.usefixtures("pieces")
def test_json_and_binary_inputs_mix_in_the_order_of_the_inputs(given_tensors: list[tuple[Tensor, bool]]) -> None:
    inputs, binary = [], b""
    for index, (tensor, is_binary) in enumerate(given_tensors):
        described: Object = {"name": f"i{index}", "shape": list(tensor.shape), "datatype": tensor.dtype.v2}
        if is_binary:
            described["parameters"] = {"binary_data_size": len(as_binary(tensor))}
            binary += as_binary(tensor)
        else:
            described["data"] = as_json(Tensor(tensor.dtype, tensor.data.ravel()))
        inputs.append(described)
    dtypes = {f"i{index}": tensor.dtype for index, (tensor, _) in enumerate(given_tensors)}
    found = tensors({"inputs": inputs}, binary, **dtypes)
    assert all(same(found[f"i{index}"], tensor) for index, (tensor, _) in enumerate(given_tensors))


LONG = st.lists(st.integers(-(10**6), 10**6), min_size=300, max_size=400)


@given(LONG, st.sampled_from([dtype for dtype in V2_DTYPES.values() if not dtype.is_string and dtype is not BOOL]))
def test_long_lists_read_from_the_text_are_what_the_way_of_care_makes_of_them(leaves: list[int], dtype: DType) -> None:
    body = orjson.dumps(x(leaves, datatype=dtype.v2))
    assert at_once(v2_document._cut(body, len(body))) is not None
    careful = {"inputs": [{**x(leaves, datatype=dtype.v2)["inputs"][0], "na\\me": ""}]}  # no backslash on the fast way
    assert at_once(v2_document._cut(orjson.dumps(careful), len(orjson.dumps(careful)))) is None
    assert outcome(body, x=dtype) == outcome(careful, x=dtype)


MANY = [float(value) for value in range(400)]
NAMED_DATA = {"name": "data", "shape": [400], "datatype": "FP32", "data": MANY}
SCALAR = {"name": "x", "shape": [1], "datatype": "FP32", "data": 0}


@pytest.mark.usefixtures("pieces")
def test_an_input_may_be_called_data() -> None:
    assert tensors({"inputs": [NAMED_DATA]}, data=FLOAT)["data"].data.tolist() == MANY


@pytest.mark.usefixtures("pieces")
def test_a_number_is_never_taken_for_a_list_that_stands_elsewhere() -> None:
    document = {"parameters": {"data": MANY}, "inputs": [SCALAR]}
    assert refusal(document) == 'inputs[0] "x": data: expected a list, got 0'
    escaped = orjson.dumps(document).replace(b'"data":0', b'"d\\u0061ta":0')
    assert refusal(escaped) == 'inputs[0] "x": data: expected a list, got 0'
    in_an_object = {**SCALAR, "data": [{"data": MANY}]}
    assert refusal({"inputs": [in_an_object]}).startswith(
        'inputs[0] "x": data[0]: expected a number (FP32), got {"data":'
    )


@pytest.mark.usefixtures("pieces")
def test_of_a_key_given_twice_the_last_counts_however_long_the_lists_are() -> None:
    for many in (MANY, MANY[:3]):
        body = orjson.dumps(x(many)).replace(b'"data":', b'"data":[1,2,3],"data":')
        assert tensors(body, x=FLOAT)["x"].data.tolist() == many


@pytest.mark.usefixtures("pieces")
def test_a_mistake_in_a_long_list_is_named() -> None:
    body = orjson.dumps(x([*MANY, 1e39]))
    assert refusal(body) == 'inputs[0] "x": data[400]: 1e+39 is beyond FP32'
    assert refusal(x(MANY, [401])) == 'inputs[0] "x": expected FP32[401] = 401 values, got 400'
    assert refusal(body.replace(b"]}]", b"]]}]")).startswith("The body: expected JSON, ")


# Numbers that JSON does not have.


@pytest.mark.usefixtures("pieces")
def test_nan_and_infinities_are_strings_and_bare_tokens_are_taken_too() -> None:
    for text in ('["NaN","Infinity","-Infinity",1.5]', "[NaN,Infinity,-Infinity,1.5]"):
        body = (
            f'{{"id":"NaN \\"Infinity","inputs":[{{"name":"x","shape":[4],"datatype":"FP32","data":{text}}}]}}'.encode()
        )
        np.testing.assert_array_equal(tensors(body, x=FLOAT)["x"].data, [np.nan, np.inf, -np.inf, 1.5])
        assert at_once(v2_in.parse(body, None)).id == 'NaN "Infinity'


@pytest.mark.usefixtures("pieces")
def test_a_string_is_no_integer_however_it_reads() -> None:
    assert refusal(x(["NaN"], datatype="INT32"), x=INT32) == (
        'inputs[0] "x": data[0]: expected an integer from -2147483648 to 2147483647 (INT32), got "NaN"'
    )


# What is refused, and how the client is told.

REFUSED: list[tuple[Object | bytes, Mapping[str, DType], str]] = [
    (b"[1]", {}, "The body: expected an object, got [1]"),
    ({}, {}, "inputs: expected a list"),
    ({"inputs": {"x": [1]}}, {}, 'inputs: expected a list, got {"x": [1]}'),
    ({"inputs": [1]}, {}, "inputs[0]: expected an object, got 1"),
    ({"inputs": []}, {"x": FLOAT}, 'inputs: "x" is missing, which signature "serving_default" takes'),
    ({"inputs": [{}]}, {}, "inputs[0].name: expected a string"),
    ({"inputs": [{"name": 5}]}, {}, "inputs[0].name: expected a string, got 5"),
    ({"id": 7, **x([1])}, {}, "id: expected a string, got 7"),
    ({"parameters": [], **x([1])}, {}, "parameters: expected an object, got []"),
    ({"parameters": {"signature_name": 1}, **x([1])}, {}, "parameters.signature_name: expected a string, got 1"),
    (
        {"parameters": {"binary_data_output": 1}, **x([1])},
        {},
        "parameters.binary_data_output: expected true or false, got 1",
    ),
    (
        x([1], datatype="float32"),
        {},
        f'inputs[0] "x": datatype: expected one of {", ".join(sorted(V2_DTYPES))}, got "float32"',
    ),
    (x([1], ["1"]), {}, 'inputs[0] "x": shape[0]: expected a whole number, 0 or more, got "1"'),
    (x([1], [True]), {}, 'inputs[0] "x": shape[0]: expected a whole number, 0 or more, got true'),
    (x([1], [2, -1]), {}, 'inputs[0] "x": shape[1]: expected a whole number, 0 or more, got -1'),
    (x([1], [1] * 65), {}, 'inputs[0] "x": shape: expected at most 64 dimensions, got 65'),
    (x([], [0, 2**63]), {}, 'inputs[0] "x": shape: [0, 9223372036854775808] has more elements than a tensor can have'),
    (x(None, [1]), {}, 'inputs[0] "x": data: expected a list'),
    (x(5, [1]), {}, 'inputs[0] "x": data: expected a list, got 5'),
    (x([1, 2, 3, 4, 5], [2, 3]), {}, 'inputs[0] "x": expected FP32[2,3] = 6 values, got 5'),
    (x([], []), {}, 'inputs[0] "x": expected FP32[] = 1 value, got 0'),
    (
        x([[1, 2], [3]], [2, 2]),
        {},
        'inputs[0] "x": data[1]: expected a list of 2 values as in the lists before it, got one of 1 value',
    ),
    (x([[1, 2]], [2]), {}, 'inputs[0] "x": expected FP32[2], flat or so nested, got lists nested as [1,2]'),
    (x([[1, 2], [3, None]], [2, 2]), {}, 'inputs[0] "x": data[1][1]: expected a number (FP32), got null'),
    (x([1, True]), {}, 'inputs[0] "x": data[1]: expected a number (FP32), got true'),
    (x([1e300], datatype="FP16"), {"x": HALF}, 'inputs[0] "x": data[0]: 1e+300 is beyond FP16'),
    (x([0, 3.3e38, 3.4e38], datatype="BF16"), {"x": BFLOAT16}, 'inputs[0] "x": data[2]: 3.4e+38 is beyond BF16'),
    (
        x([1, 256], datatype="UINT8"),
        {"x": UINT8},
        'inputs[0] "x": data[1]: expected an integer from 0 to 255 (UINT8), got 256',
    ),
    (
        x([1.0], datatype="INT8"),
        {"x": INT8},
        'inputs[0] "x": data[0]: expected an integer from -128 to 127 (INT8), got 1.0',
    ),
    (x([0, 1], datatype="BOOL"), {"x": BOOL}, 'inputs[0] "x": data[0]: expected true or false, got 0'),
    (x(["a", 1], datatype="BYTES"), {"x": STRING}, 'inputs[0] "x": data[1]: expected a string, got 1'),
    (x([1], datatype="FP64"), {"x": FLOAT}, 'inputs[0] "x": the model takes FP32, got FP64'),
    (x([1]), {"x": COMPLEX64}, 'inputs[0] "x": the model takes COMPLEX64, got FP32'),
    (x([1]), {"z": FLOAT, "w": FLOAT}, 'inputs[0] "x": signature "serving_default" has no such input; it has "z", "w"'),
    (x([1]), {"x": FLOAT, "z": FLOAT}, 'inputs: "z" is missing, which signature "serving_default" takes'),
    ({"inputs": x([1])["inputs"] * 2}, {"x": FLOAT}, 'inputs[1] "x": given twice'),
    (
        x([1], parameters={"shared_memory_region": "r"}),
        {},
        'inputs[0] "x": parameters.shared_memory_region: not served here',
    ),
    ({**x([1]), "parameters": {"sequence_id": 1}}, {}, "parameters.sequence_id: not served here"),
    ({**x([1]), "outputs": ["y"]}, {}, 'outputs[0]: expected an object, got "y"'),
    (
        {**x([1]), "outputs": [{"name": "y", "parameters": {"classification": 3}}]},
        {},
        "outputs[0].parameters.classification: not served here",
    ),
    (
        {**x([1]), "outputs": [{"name": "y", "parameters": {"binary_data": 1}}]},
        {},
        "outputs[0].parameters.binary_data: expected true or false, got 1",
    ),
]


@pytest.mark.parametrize(("document", "dtypes", "message"), REFUSED, ids=[message[:60] for _, _, message in REFUSED])
@pytest.mark.usefixtures("pieces")
def test_a_mistake_is_named_with_its_place(document: Object | bytes, dtypes: dict[str, DType], message: str) -> None:
    assert refusal(document, **(dtypes or {"x": FLOAT})) == message


@pytest.mark.parametrize(
    "body", [b"", b"[" * 100_000, b'{"inputs":[]}{}', b"{'inputs':[]}", b'{"inputs":[NaN}', b"\xff"]
)
@pytest.mark.usefixtures("pieces")
def test_a_body_that_is_not_json_is_refused_in_the_words_of_the_parser(body: bytes) -> None:
    assert refusal(body).startswith("The body: expected JSON, ")
    if body:
        assert refusal(body, b" ").startswith(f"The first {len(body)} bytes of the body: expected JSON, ")


@pytest.mark.usefixtures("pieces")
def test_binary_data_without_the_header_is_refused_with_its_name() -> None:
    for binary in (b"\xff\xff\xff\xff", b"abcd"):
        message = refusal(orjson.dumps(binary_x(4, [1])) + binary, x=FLOAT)
        assert message.startswith("The body: expected JSON, ")
        assert message.endswith(f"; {NO_HEADER}")


def binary_x(size: Any, shape: list[int], datatype: str = "FP32", data: Any = None) -> Object:
    return x(data, shape, datatype, parameters={"binary_data_size": size})


NO_HEADER = "Inference-Header-Content-Length says where the JSON ends"
LYING_HEADER = "Inference-Header-Content-Length: expected the length of the JSON, at most the body's 66, got"
HALF_A_STRING = 'inputs[0] "x": expected BYTES[2], got bytes that end in the middle of element 1'

REFUSED_BINARY: list[tuple[Object, bytes, str | None, DType, str]] = [
    (binary_x(20, [2, 3]), bytes(20), "", FLOAT, 'inputs[0] "x": expected FP32[2,3] = 24 bytes, got 20'),
    (binary_x(8, [2]), bytes(4), "", FLOAT, 'inputs[0] "x": binary_data_size is 8, the body has 4 bytes left'),
    (binary_x(8, [2]), bytes(12), "", FLOAT, "The body: its last 4 bytes belong to no input"),
    (binary_x(-1, [2]), bytes(4), "", FLOAT, 'inputs[0] "x": parameters.binary_data_size: expected 0 or more, got -1'),
    (
        binary_x("8", [2]),
        bytes(8),
        "",
        FLOAT,
        'inputs[0] "x": parameters.binary_data_size: expected an integer, got "8"',
    ),
    (binary_x(8, [2], data=[1, 2]), bytes(8), "", FLOAT, 'inputs[0] "x": expected data or binary_data_size, got both'),
    (x([1]), b"ab", "", FLOAT, "The body: its last 2 bytes belong to no input"),
    (
        binary_x(4, [1]),
        b"",
        None,
        FLOAT,
        f'inputs[0] "x": binary_data_size is 4, the body has 0 bytes left; {NO_HEADER}',
    ),
    (x([1]), b"", "3000", FLOAT, f"{LYING_HEADER} '3000'"),
    (x([1]), b"", "-1", FLOAT, f"{LYING_HEADER} '-1'"),
    (binary_x(2, [2], "BOOL"), b"\1\2", "", BOOL, 'inputs[0] "x": expected BOOL[2] of bytes 0 and 1, got 2 at byte 1'),
    (binary_x(7, [2], "BYTES"), b"\1\0\0\0a\5\0", "", STRING, HALF_A_STRING),
    (binary_x(9, [2], "BYTES"), b"\1\0\0\0a\5\0\0\0", "", STRING, HALF_A_STRING),
    (binary_x(5, [2], "BYTES"), b"\1\0\0\0a", "", STRING, 'inputs[0] "x": expected BYTES[2] = 2 values, got 1'),
]


@pytest.mark.parametrize(
    ("document", "binary", "header", "dtype", "message"), REFUSED_BINARY, ids=[case[4][:60] for case in REFUSED_BINARY]
)
def test_a_mistake_in_binary_data_is_named(
    document: Object, binary: bytes, header: str | None, dtype: DType, message: str
) -> None:
    assert refusal(document, binary, header, x=dtype) == message


def raw(body: bytes, dtype: DType, shape: tuple[int, ...] | None, *more: str) -> Tensor:
    """The input of a request that is nothing but its bytes, for a model with an input of this shape, and more inputs."""
    request = at_once(v2_in.parse(body, "0"))
    specs = {name: TensorSpec(name, dtype, shape) for name in ("x", *more)}
    of_model = Signature("s", "", specs, {"y": TensorSpec("y", FLOAT, None)})
    assert request.outputs(of_model) == [("y", True)]
    (tensor,) = at_once(request.tensors_in_steps(of_model)).values()
    return tensor


@pytest.mark.parametrize(
    ("shape", "found"),
    [
        ((-1,), (12,)),
        ((12,), (12,)),
        ((-1, 3), (4, 3)),
        ((2, -1, 3), (2, 2, 3)),
        ((-1, -1), (1, 12)),
        ((-1, 2, -1), (1, 2, 6)),
        ((-1, 12, 1), (1, 12, 1)),
    ],
)
def test_bytes_alone_are_the_one_input_in_the_shape_that_the_model_leaves(
    shape: tuple[int, ...], found: tuple[int, ...]
) -> None:
    numbers = np.arange(12, dtype=np.float32)
    tensor = raw(numbers.tobytes(), FLOAT, shape)
    assert tensor.data.shape == found
    assert np.array_equal(tensor.data.ravel(), numbers)


def test_a_body_that_says_it_is_json_is_not_taken_for_bytes() -> None:
    with pytest.raises(BadInput, match="The first 0 bytes of the body: expected JSON"):
        at_once(v2_in.parse(b"null", "0", "application/json; charset=utf-8"))


@pytest.mark.parametrize("shape", [(), (1,), (-1,), (-1, 1)])
def test_bytes_alone_are_one_string_without_its_length(shape: tuple[int, ...]) -> None:
    tensor = raw(b"\5\0\0\0abc", STRING, shape)
    assert tensor.data.shape == (1,) * len(shape)
    assert tensor.data.ravel().tolist() == [b"\5\0\0\0abc"]


@pytest.mark.parametrize(
    ("body", "dtype", "shape", "more", "message"),
    [
        (
            b"abcd",
            FLOAT,
            (-1,),
            ["z"],
            'The body: bytes alone are for a model of one input; signature "s" has "x", "z"',
        ),
        (b"abcde", FLOAT, (-1,), [], 'inputs[0] "x": expected FP32[1] = 4 bytes, got 5'),
        (b"abcd", FLOAT, (2,), [], 'inputs[0] "x": expected FP32[2] = 8 bytes, got 4'),
        (b"abcd", FLOAT, (-1, 0), [], 'inputs[0] "x": expected FP32[0,0] = 0 bytes, got 4'),
        (b"abcd", FLOAT, (2, -1, -1), [], "bytes alone do not tell the shape of input"),
        (b"abcd", FLOAT, (-1, -1, -1), [], "bytes alone do not tell the shape of input"),
        (b"abcd", FLOAT, None, [], "bytes alone do not tell the shape of input"),
        (b"abcd", STRING, (2,), [], "bytes alone are one string"),
        (b"abcd", COMPLEX64, (-1,), [], "complex64 is no datatype of this protocol"),
        (b"\2", BOOL, (-1,), [], 'inputs[0] "x": expected BOOL[1] of bytes 0 and 1, got 2 at byte 0'),
    ],
)
def test_bytes_alone_that_are_not_the_model_s_are_refused(
    body: bytes, dtype: DType, shape: tuple[int, ...] | None, more: list[str], message: str
) -> None:
    with pytest.raises(BadInput) as caught:
        raw(body, dtype, shape, *more)
    assert message in str(caught.value)


@pytest.mark.parametrize("number", [0, "", None])
def test_a_sequence_s_number_that_says_there_is_none_is_taken(number: object) -> None:
    assert tensors({**x([1]), "parameters": {"sequence_id": number}}, x=FLOAT)["x"].data == [1]


@st.composite
def mangled(draw: st.DrawFn) -> tuple[bytes, str | None]:
    """A request that was right, with some bytes changed, cut or doubled, and a header that may lie."""
    tensor = draw(any_tensor(finite=True))
    binary = as_binary(tensor)
    if draw(st.booleans()):
        head = orjson.dumps(x(None, list(tensor.shape), tensor.dtype.v2, parameters={"binary_data_size": len(binary)}))
    else:
        data = as_json(tensor)
        head, binary = (
            orjson.dumps(x(data if isinstance(data, list) else [data], list(tensor.shape), tensor.dtype.v2)),
            b"",
        )
    body = bytearray(head + binary)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(body)))
        body[at : at + draw(st.integers(0, 8))] = draw(
            st.binary(max_size=6)
            | st.sampled_from([b"[[", b"]", b"{", b'"data":[1],', b"NaN", b"1e999", b"null", b'"', b"\\u"])
        )
    header = draw(st.none() | st.just(str(len(head))) | st.integers(-9, 999).map(str) | st.text(max_size=4))
    return bytes(body), header


@settings(max_examples=500)
@given(mangled())
@example((b'{"inputs":[{"name":"\\ud800","shape":[1],"datatype":"BYTES","data":["\\ud800"]}]}', None))
@example((b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[NaN,"' + b'\\"' * 100, None))
@example((b'{"inputs":[{"name":"x","shape":[1],"datatype":"INT64","data":[' + b"9" * 5000 + b"]}]}", None))
@pytest.mark.usefixtures("pieces")
def test_whatever_is_sent_is_a_tensor_or_bad_input(request_: tuple[bytes, str | None]) -> None:
    for dtype in V2_DTYPES.values():
        try:
            found = at_once(parsed(*request_).tensors_in_steps(signature(x=dtype)))
        except BadInput:
            continue
        assert found["x"].data.dtype == dtype.numpy


# Outputs.


def test_outputs_come_in_the_order_asked_for_and_all_of_them_if_none_is() -> None:
    one = {**x([1]), "outputs": [{"name": "s", "parameters": {"binary_data": False}}, {"name": "y"}]}
    request = at_once(v2_in.parse(orjson.dumps({**one, "parameters": {"binary_data_output": True}}), None))
    assert request.outputs(signature(x=FLOAT)) == [("s", False), ("y", True)]
    plain = Signature("s", "", {}, {name: TensorSpec(name, FLOAT, None) for name in ("a", "b")})
    for document in (x([1]), {**x([1]), "outputs": []}, {**x([1]), "outputs": None}):
        assert at_once(v2_in.parse(orjson.dumps(document), None)).outputs(plain) == [("a", False), ("b", False)]


def test_an_output_that_is_not_there_or_has_no_datatype_is_refused() -> None:
    def asked_for(name: str) -> str:
        request = at_once(v2_in.parse(orjson.dumps({**x([1]), "outputs": [{"name": "y"}, {"name": name}]}), None))
        with pytest.raises(BadInput) as caught:
            request.outputs(signature(x=FLOAT))
        return str(caught.value)

    assert asked_for("z") == 'outputs[1] "z": signature "serving_default" has no such output; it has "y", "s", "c"'
    assert asked_for("c") == 'outputs[1] "c": complex64 is no datatype of this protocol; ask for other outputs'


def response(*outputs: tuple[str, Tensor, bool], request_id: str | None = None) -> tuple[bytes, int | None]:
    return at_once(response_in_steps("m", 3, request_id, outputs))


def decoded(body: bytes, json_length: int | None) -> dict[str, Tensor]:
    """A response as a client reads it, by other means than the adapter's."""
    rest = b"" if json_length is None else body[json_length:]
    found = {}
    for output in json.loads(body[:json_length])["outputs"]:
        dtype, shape = V2_DTYPES[output["datatype"]], output["shape"]
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            data = x(output["data"], shape, dtype.v2)
            found[output["name"]] = tensors(data, x=dtype)["x"]
        else:
            mine, rest = rest[:size], rest[size:]
            described = binary_x(size, shape, dtype.v2)
            found[output["name"]] = tensors(described, mine, header=str(len(orjson.dumps(described))), x=dtype)["x"]
    assert rest == b""
    return found


@given(st.lists(st.tuples(any_tensor(finite=True), st.booleans()), max_size=4))
@example([(Tensor(STRING, np.empty(0, object)), True)])
def test_a_response_holds_the_tensors_in_json_or_as_binary_data(outputs: list[tuple[Tensor, bool]]) -> None:
    named = [(f"o{index}", tensor, binary) for index, (tensor, binary) in enumerate(outputs)]
    body, json_length = response(*named)
    assert (json_length is not None) == any(binary for _, _, binary in named)
    found = decoded(body, json_length)
    assert list(found) == [name for name, _, _ in named]
    assert all(same(found[name], tensor) for name, tensor, _ in named)


def test_a_response_names_model_and_version_and_echoes_the_id() -> None:
    body, _ = response(("y", Tensor(FLOAT, np.array([[1.5, 2]], np.float32)), False), request_id="42")
    assert json.loads(body) == {
        "model_name": "m",
        "model_version": "3",
        "id": "42",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [1.5, 2.0]}],
    }
    assert "id" not in json.loads(response()[0])


def test_numbers_in_json_are_exact_and_those_it_does_not_have_are_strings() -> None:
    floats = Tensor(FLOAT, np.array([0.1, np.nan, np.inf, -np.inf], np.float32))
    doubles = Tensor(DOUBLE, np.array([0.1, 1e300]))
    big = Tensor(UINT64, np.array([2**64 - 1], np.uint64))
    small = Tensor(INT64, np.array(-(2**63), np.int64))
    body, _ = response(*[(str(index), tensor, False) for index, tensor in enumerate((floats, doubles, big, small))])
    assert [output["data"] for output in json.loads(body)["outputs"]] == [
        [0.1, "NaN", "Infinity", "-Infinity"],
        [0.1, 1e300],
        [2**64 - 1],
        [-(2**63)],
    ]


def test_bytes_that_are_not_text_are_answered_as_binary_data_only() -> None:
    data = np.empty(2, object)
    data[:] = [b"a", b"\xff"]
    tensor = Tensor(STRING, data)
    assert same(decoded(*response(("s", tensor, True)))["s"], tensor)
    with pytest.raises(BadInput, match=r'output "s": element 1 is not UTF-8, .*; ask for binary data'):
        response(("s", tensor, False))


@pytest.mark.parametrize("binary", [False, True])
def test_strings_are_written_alike_in_runs_of_any_size(binary: bool) -> None:
    items = [b"", 'a\0"ü中😀'.encode() * 5, b"b", b"c\\", "😀".encode() * 9, b""]
    tensor = Tensor(STRING, np.array(items, object))
    expected = response(("s", tensor, binary))
    for size in (1, 2, 7, 50, 90):
        with runs_of(size):
            assert response(("s", tensor, binary)) == expected


@given(st.lists(st.binary(max_size=9) | st.text(max_size=9).map(str.encode), max_size=4))
def test_the_first_string_that_is_not_text_is_named_however_long_it_is(items: list[bytes]) -> None:
    data = np.empty(len(items), object)
    data[:] = items
    with runs_of(3):
        found = strings_as_json(data)
    assert found == strings_as_json(data)


def strings_as_json(data: Array) -> object:
    """A response with these strings, or why there is none."""
    try:
        return response(("s", Tensor(STRING, data), False))
    except BadInput as error:
        return str(error)


@contextmanager
def runs_of(size: int) -> Iterator[None]:
    """A run of strings has so many bytes, and longer strings are written in pieces of as many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(v2_out, "_RUN", size)
        patch.setattr(v2_out, "_EACH", 1)
        patch.setattr(json_out, "_STRINGS_BYTES", size)
        yield


def test_a_long_string_is_copied_once_as_binary_data_and_in_steps() -> None:
    item = bytes(20_000_000)
    tensor = Tensor(STRING, np.array([b"a", item, b"b"], object))
    tracemalloc.start()
    try:
        steps, (body, _) = run(response_in_steps("m", 1, None, [("s", tensor, True)]))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert steps >= len(item) // joining.STEP
    assert peak < 1.1 * len(body)
    assert body.endswith(b"\1\0\0\0a" + struct.pack("<I", len(item)) + item + b"\1\0\0\0b")


def test_large_responses_are_made_in_steps() -> None:
    tensor = Tensor(FLOAT, np.arange(200_000, dtype=np.float32).reshape(2, -1))
    assert len(list(response_in_steps("m", 1, None, [("y", tensor, False)]))) > 1
    assert same(decoded(*response(("y", tensor, False)))["y"], tensor)


# Paths.


@pytest.mark.parametrize(
    ("path", "verb", "servable", "route"),
    [
        ("/v2", "server", Servable(""), "/v2"),
        ("/v2/health/live", "live", Servable(""), "/v2/health/live"),
        ("/v2/health/ready", "ready", Servable(""), "/v2/health/ready"),
        ("/v2/models/m", "model", Servable("m"), "/v2/models/{model}"),
        ("/v2/models/a%2Fb/versions/3", "model", Servable("a/b", 3), "/v2/models/{model}/versions/{version}"),
        ("/v2/models/m/ready", "model_ready", Servable("m"), "/v2/models/{model}/ready"),
        ("/v2/models/m/infer", "infer", Servable("m"), "/v2/models/{model}/infer"),
        ("/v2/models/m/versions/007/infer", "infer", Servable("m", 7), "/v2/models/{model}/versions/{version}/infer"),
    ],
)
def test_a_path_names_what_it_asks_for_and_a_bounded_route(
    path: str, verb: str, servable: Servable, route: str
) -> None:
    assert tuple(parse_path(path)) == (verb, servable, route)


@pytest.mark.parametrize(
    "path", ["/v2//", "/v2/models", "/v2/models/", "/v2/models/m/", "/v2/models/m/zip", "/v2/health", "/V2/models/m"]
)
def test_other_paths_are_not_there(path: str) -> None:
    with pytest.raises(Refused, match="No such resource") as caught:
        parse_path(path)
    assert caught.value.status == 404


@pytest.mark.parametrize("version", ["one", "-1", "9223372036854775808", "1" * 30, "%31"])
def test_a_version_that_is_no_number_is_refused(version: str) -> None:
    with pytest.raises(Refused, match="Version: expected a number") as caught:
        parse_path(f"/v2/models/m/versions/{version}")
    assert caught.value.status == 400
