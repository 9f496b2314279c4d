"""The hand-written protobuf codec against the generated classes, in both directions and for bytes that mean nothing."""

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from adapter.inference import wire
from adapter.inference.tensor import BFLOAT16, BOOL, DTYPES, FLOAT, HALF, INT32, INT64, STRING, UINT8, DType, Tensor
from adapter.inference.tensor_proto import MAX_BROADCAST_BYTES
from adapter.inference.turns import at_once
from adapter.pb import serving_pb2, tensorflow_pb2

FIELDS = {
    5: "float_val", 6: "double_val", 7: "int_val", 8: "string_val", 9: "scomplex_val", 10: "int64_val",
    11: "bool_val", 12: "dcomplex_val", 13: "half_val", 16: "uint32_val", 17: "uint64_val",
}  # fmt: skip

SHAPES = npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)


@st.composite
def tensors(draw: st.DrawFn, dtypes: tuple[DType, ...] = tuple(DTYPES.values())) -> Tensor:
    dtype = draw(st.sampled_from(dtypes))
    shape = draw(SHAPES)
    if dtype.is_string:
        items = draw(st.lists(st.binary(max_size=20), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
        data = np.empty(len(items), object)
        data[:] = items
        return Tensor(dtype, data.reshape(shape))
    return Tensor(dtype, draw(npst.arrays(dtype.numpy, shape)))


def same(left: Tensor, right: Tensor) -> bool:
    """Equal to the last bit, NaN included."""
    if left.dtype is not right.dtype or left.shape != right.shape or left.data.dtype != right.data.dtype:
        return False
    return (
        left.data.tolist() == right.data.tolist()
        if left.dtype.is_string
        else left.data.tobytes() == right.data.tobytes()
    )


def typed_proto(tensor: Tensor) -> tensorflow_pb2.TensorProto:
    """What TensorFlow Serving answers with: values in the field of their type."""
    proto = tensorflow_pb2.TensorProto(dtype=tensor.dtype.number)
    proto.tensor_shape.SetInParent()
    for size in tensor.shape:
        proto.tensor_shape.dim.add(size=size)
    flat = tensor.data.ravel()
    if tensor.dtype.numpy.kind == "c":
        flat = flat.view(f"<f{tensor.dtype.numpy.itemsize // 2}")
    if tensor.dtype is HALF:
        flat = flat.view("<u2")
    getattr(proto, FIELDS[tensor.dtype.field]).extend(flat.tolist())
    return proto


def answer(outputs: dict[str, tensorflow_pb2.TensorProto], version: int = 7) -> bytes:
    response = serving_pb2.PredictResponse()
    response.model_spec.name = "digits"
    response.model_spec.version.value = version
    response.model_spec.signature_name = "serving_default"
    for name, proto in outputs.items():
        response.outputs[name].CopyFrom(proto)
    return response.SerializeToString()


def only(data: bytes) -> Tensor:
    (tensor,) = wire.predict_response(data)[0].values()
    return tensor


def one_output(proto: bytes) -> bytes:
    """A response whose output `y` is an encoded tensor, put together by hand."""
    assert len(proto) < 120
    return b"\x0a%c\x0a\x01y\x12%c%b" % (len(proto) + 5, len(proto), proto)


@given(st.dictionaries(st.text(max_size=8), tensors(), max_size=3))
def test_a_request_reads_back_through_the_generated_classes(inputs: dict[str, Tensor]) -> None:
    encoded = wire.predict_request(wire.model_spec("digits", 3, None, "serving_default"), inputs)
    request = serving_pb2.PredictRequest.FromString(encoded)
    assert request.model_spec.name == "digits"
    assert request.model_spec.signature_name == "serving_default"
    assert request.inputs.keys() == inputs.keys()
    for name, tensor in inputs.items():
        proto = request.inputs[name]
        assert proto.dtype == tensor.dtype.number
        assert [dim.size for dim in proto.tensor_shape.dim] == list(tensor.shape)
        if tensor.dtype.is_string:
            assert list(proto.string_val) == tensor.data.ravel().tolist()
        else:
            assert proto.tensor_content == tensor.data.tobytes()


@given(
    st.text(max_size=300), st.none() | st.integers(0, 2**63 - 1), st.none() | st.text(max_size=9), st.text(max_size=9)
)
def test_a_model_spec_names_the_servable(name: str, version: int | None, label: str | None, signature: str) -> None:
    if version is not None:
        label = None
    spec = serving_pb2.ModelSpec.FromString(wire.model_spec(name, version, label, signature))
    expected = serving_pb2.ModelSpec(name=name, signature_name=signature)
    if version is not None:
        expected.version.value = version
    elif label is not None:
        expected.version_label = label
    assert spec == expected


@given(st.dictionaries(st.text(max_size=8), tensors(), max_size=3), st.integers(-(2**63), 2**63 - 1))
def test_an_answer_with_typed_values_is_read_exactly(outputs: dict[str, Tensor], version: int) -> None:
    encoded = answer({name: typed_proto(tensor) for name, tensor in outputs.items()}, version)
    found, found_version = wire.predict_response(encoded)
    assert found_version == version
    assert found.keys() == outputs.keys()
    assert all(same(found[name], outputs[name]) for name in outputs)


@pytest.mark.parametrize("name", ["y", "yy", "yyy", "yyyy"])
@pytest.mark.parametrize("times", ["first", "again"])
def test_numbers_are_used_where_they_lie_even_off_their_boundary(name: str, times: str) -> None:
    content = np.arange(6, dtype=np.float32)
    proto = tensorflow_pb2.TensorProto(dtype=FLOAT.number, tensor_content=content.tobytes())
    proto.tensor_shape.dim.add(size=6)
    message = answer({name: proto})
    if times == "again":
        only(message)
    found = only(message).data
    assert np.shares_memory(found, np.frombuffer(message, np.uint8))
    np.testing.assert_array_equal(found, content)


@given(tensors())
def test_an_answer_with_tensor_content_is_read_exactly(tensor: Tensor) -> None:
    proto = typed_proto(tensor)
    proto.ClearField(FIELDS[tensor.dtype.field])
    if tensor.dtype.is_string:
        items = tensor.data.ravel().tolist()
        proto.tensor_content = bytes(map(len, items)) + b"".join(items)
    else:
        proto.tensor_content = tensor.data.tobytes()
    assert same(only(answer({"y": proto})), tensor)


@given(tensors(), st.integers(0, 2))
def test_what_we_send_we_can_read(tensor: Tensor, repeat: int) -> None:
    request = wire.predict_request(b"", {"y": tensor})
    # PredictRequest.inputs is field 2 where PredictResponse.outputs is field 1: an entry differs in its tag alone.
    encoded = b"\x0a" + request[3:]
    for _ in range(repeat + 1):
        assert same(only(encoded), tensor)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=200))
def test_runs_of_varints_of_every_length_are_read(values: list[int]) -> None:
    proto = tensorflow_pb2.TensorProto(dtype=INT64.number, int64_val=values)
    proto.tensor_shape.dim.add(size=len(values))
    assert only(answer({"y": proto})).data.tolist() == values


@given(st.lists(st.lists(st.floats(width=32), max_size=4), max_size=5), st.data())
def test_packed_and_unpacked_runs_of_one_field_are_one_list(runs: list[list[float]], data: st.DataObject) -> None:
    arrays = [np.array(run, "<f4") for run in runs]
    body = b"".join(
        b"\x2a%c%b" % (array.nbytes, array.tobytes())
        if data.draw(st.booleans())
        else b"".join(b"\x2d" + value.tobytes() for value in array)
        for array in arrays
    )
    count = sum(map(len, runs))
    encoded = one_output(b"\x08\x01\x12\x04\x12\x02\x08%c" % count + body) if len(body) < 100 else None
    if encoded is not None:
        assert only(encoded).data.tobytes() == b"".join(array.tobytes() for array in arrays)


def test_an_empty_run_at_the_very_end_of_an_answer_is_no_value() -> None:
    encoded = one_output(b"\x08\x01\x12\x02\x12\x00\x2a\x00")
    for _ in range(2):
        assert only(encoded).data.shape == (0,)


def test_unpacked_varints_are_read() -> None:
    assert only(one_output(b"\x08\x09\x12\x04\x12\x02\x08\x03\x50\x01\x50\x7f\x52\x01\x05")).data.tolist() == [
        1,
        127,
        5,
    ]


def test_negative_int32_values_take_ten_bytes_and_come_back() -> None:
    proto = typed_proto(Tensor(INT32, np.array([-1, -(2**31), 2**31 - 1, 0], "<i4")))
    assert only(answer({"y": proto})).data.tolist() == [-1, -(2**31), 2**31 - 1, 0]


def test_narrow_integers_are_cut_to_their_width() -> None:
    proto = tensorflow_pb2.TensorProto(dtype=UINT8.number, int_val=[300, -1])
    proto.tensor_shape.dim.add(size=2)
    assert only(answer({"y": proto})).data.tolist() == [44, 255]


def test_half_and_bfloat16_are_bit_patterns() -> None:
    for dtype, one in ((HALF, 1.0), (BFLOAT16, 0x3C00)):
        proto = tensorflow_pb2.TensorProto(dtype=dtype.number, half_val=[0x3C00])
        assert only(answer({"y": proto})).data.tolist() == one


def test_a_single_value_fills_the_shape_and_the_last_of_several_the_rest() -> None:
    proto = tensorflow_pb2.TensorProto(dtype=FLOAT.number, float_val=[1.5])
    proto.tensor_shape.dim.add(size=2)
    proto.tensor_shape.dim.add(size=2)
    assert only(answer({"y": proto})).data.tolist() == [[1.5, 1.5], [1.5, 1.5]]
    proto.float_val.append(2.5)
    assert only(answer({"y": proto})).data.tolist() == [[1.5, 2.5], [2.5, 2.5]]


def test_values_beyond_the_shape_are_dropped_and_missing_ones_are_zero() -> None:
    proto = tensorflow_pb2.TensorProto(dtype=BOOL.number, bool_val=[True, False, True])
    proto.tensor_shape.dim.add(size=2)
    assert only(answer({"y": proto})).data.tolist() == [True, False]
    proto = tensorflow_pb2.TensorProto(dtype=STRING.number)
    proto.tensor_shape.dim.add(size=2)
    assert only(answer({"y": proto})).data.tolist() == [b"", b""]


def test_a_shape_that_asks_for_far_more_than_is_there_is_refused() -> None:
    proto = tensorflow_pb2.TensorProto(dtype=FLOAT.number, float_val=[1.5])
    proto.tensor_shape.dim.add(size=MAX_BROADCAST_BYTES)
    with pytest.raises(ValueError, match="its shape asks for"):
        wire.predict_response(answer({"y": proto}))


def test_messages_given_twice_are_merged_and_the_later_map_entry_wins() -> None:
    first = answer({"y": typed_proto(Tensor(FLOAT, np.array([1.0], "<f4")))}, version=1)
    second = answer({"y": typed_proto(Tensor(FLOAT, np.array([2.0, 3.0], "<f4")))}, version=2)
    outputs, version = wire.predict_response(first + second)
    assert (outputs["y"].data.tolist(), version) == ([2.0, 3.0], 2)
    half = b"\x08\x01\x12\x04\x12\x02\x08\x02"
    rest = b"\x2a\x08" + np.array([4.0, 5.0], "<f4").tobytes()
    merged = b"\x0a%c\x0a\x01y\x12%c%b\x12%c%b" % (len(half) + len(rest) + 7, len(half), half, len(rest), rest)
    assert only(merged).data.tolist() == [4.0, 5.0]


def test_a_label_takes_the_place_of_a_version() -> None:
    assert wire.predict_response(b"\x12\x04\x12\x02\x08\x05")[1] == 5
    assert wire.predict_response(b"\x12\x06\x12\x02\x08\x05\x22\x00")[1] == 0


def test_answers_of_one_length_but_other_frames_are_told_apart() -> None:
    """The frame of the last answer of a length is kept; here all answers have the same length."""
    values = np.array([1.0, 2.0], "<f4")
    answers = {
        name: answer({name: typed_proto(Tensor(FLOAT, values + shift))}, version)
        for shift, (name, version) in enumerate([("aa", 1), ("bb", 1), ("aa", 2)])
    }
    assert len({len(encoded) for encoded in answers.values()}) == 1
    for _ in range(3):
        for name, encoded in answers.items():
            outputs, _ = wire.predict_response(encoded)
            assert outputs.keys() == {name}
            assert (
                outputs[name].data.tolist() == serving_pb2.PredictResponse.FromString(encoded).outputs[name].float_val
            )


def test_frames_of_many_lengths_are_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_MOST_FRAMES", 4)
    for size in [*range(1, 12), *range(1, 12)]:
        tensor = Tensor(FLOAT, np.arange(size, dtype="<f4"))
        assert same(only(answer({"y": typed_proto(tensor)})), tensor)
        assert len(wire._FRAMES) <= 4


@pytest.mark.parametrize(
    ("malformed", "message"),
    [
        (b"\x0a\x05\x0a", "longer than the message"),
        (b"\x0a", "ends in the middle"),
        (b"\x0b\x0c", "wire type 3"),
        (b"\x02\x00", "impossible number"),
        (b"\x08" + b"\xff" * 11, "longer than ten bytes"),
        (one_output(b"\x08\x63"), "dtype 99"),
        (one_output(b"\x08\x01\x12\x02\x18\x01"), "no rank"),
        (one_output(b"\x08\x01\x12\x0d\x12\x0b\x08" + b"\xff" * 9 + b"\x01"), "impossible shape"),
        (one_output(b"\x08\x01\x22\x03abc"), "tensor_content has 3 bytes"),
        (one_output(b"\x08\x07\x22\x02\x09a"), "as its lengths say"),
        (one_output(b"\x08\x07\x12\x04\x12\x02\x08\x09\x22\x01\x00"), "fewer strings"),
        (one_output(b"\x08\x01\x2a\x03abc"), "middle of a value"),
        (one_output(b"\x08\x09\x52\x01\x80"), "middle of a field"),
        (one_output(b"\x08\x09\x52\x42" + b"\x01" * 65 + b"\x80"), "middle of a varint"),
        (one_output(b"\x08\x09\x52\x4c" + b"\x01" * 65 + b"\x80" * 10 + b"\x01"), "longer than ten bytes"),
        (b"\x0a\x04\x0a\x02\xff\xff", "utf-8"),
    ],
)
def test_malformed_bytes_are_a_value_error_that_says_what_is_wrong(malformed: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wire.predict_response(malformed)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """An answer with bytes changed, cut out or put in."""
    outputs = draw(st.dictionaries(st.text(max_size=3), tensors(), max_size=2))
    encoded = answer({name: typed_proto(tensor) for name, tensor in outputs.items()})
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(encoded)))
        stop = draw(st.integers(start, start + 4))
        encoded = encoded[:start] + draw(st.binary(max_size=3)) + encoded[stop:]
    return encoded


@settings(max_examples=500)
@given(damaged())
def test_damaged_bytes_are_refused_or_read_as_protobuf_reads_them(encoded: bytes) -> None:
    try:
        found, version = wire.predict_response(encoded)
    except ValueError:
        return
    try:
        oracle = serving_pb2.PredictResponse.FromString(encoded)
    except DecodeError:  # it is stricter about what both skip
        return
    assert version == oracle.model_spec.version.value
    assert found.keys() == oracle.outputs.keys()
    for name, tensor in found.items():
        assert_reads(oracle.outputs[name], tensor)


def assert_reads(proto: tensorflow_pb2.TensorProto, tensor: Tensor) -> None:
    assert tensor.dtype.number == proto.dtype
    assert list(tensor.shape) == [dim.size for dim in proto.tensor_shape.dim]
    assert tensor.data.flags.c_contiguous
    if not proto.tensor_content:
        values = list(getattr(proto, FIELDS[tensor.dtype.field]))
        assert same(tensor, Tensor(tensor.dtype, filled(values, tensor)))
    elif not tensor.dtype.is_string:
        assert tensor.data.tobytes() == proto.tensor_content


def filled(values: list[object], like: Tensor) -> np.ndarray:
    """`Tensor::FromProto`, the slow and plain way."""
    dtype = like.dtype
    if dtype.numpy.kind == "c":
        parts = np.array(values[: len(values) // 2 * 2], f"<f{dtype.numpy.itemsize // 2}")
        array = parts.view(dtype.numpy)
    elif dtype.is_string:
        array = np.empty(len(values), object)
        array[:] = values
    elif dtype is HALF:
        array = np.array([value & 0xFFFF for value in values], "<u2").view("<f2")  # type: ignore[operator]
    elif dtype.numpy.kind in "iu":
        mask = (1 << 8 * dtype.numpy.itemsize) - 1
        array = np.array([value & mask for value in values], f"<u{dtype.numpy.itemsize}").view(dtype.numpy)  # type: ignore[operator]
    else:
        array = np.array(values, dtype.numpy)
    size = like.data.size
    if len(array) < size:
        last = array[-1:] if len(array) else np.array([b"" if dtype.is_string else 0], dtype.numpy)
        array = np.concatenate([array, np.repeat(last, size - len(array))])
    return array[:size].reshape(like.shape)


def test_long_strings_are_the_same_in_steps_as_in_one_go() -> None:
    items = [b"a" * 3_000_000, b"b", b"", b"c" * 1_500_000, b"d" * 1_500_000, b"e"]
    inputs = {"x": Tensor(STRING, np.array(items, object))}
    assert at_once(wire.predict_request_in_steps(b"spec", inputs)) == wire.predict_request(b"spec", inputs)
    answer = serving_pb2.PredictResponse()
    answer.outputs["y"].dtype = STRING.number
    answer.outputs["y"].string_val.extend(items)
    answer.outputs["y"].tensor_shape.dim.add().size = len(items)
    outputs, _ = wire.predict_response(answer.SerializeToString())
    assert outputs["y"].data.tolist() == items
