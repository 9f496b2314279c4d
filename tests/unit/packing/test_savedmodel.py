"""SavedModels read without TensorFlow say what TensorFlow says; anything else is refused."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapter.bundle.manifest import BundleError
from adapter.pb import tensorflow_pb2, tensorflow_saved_model_pb2
from deploy.bundle import savedmodel
from deploy.bundle.savedmodel import Tensor
from tests.golden.conftest import DATA

HALF_PLUS_TWO = DATA / "models" / "half_plus_two" / "1" / "saved_model.pb"
MULTI = DATA / "models" / "multi" / "7" / "saved_model.pb"


def test_a_signature_is_read_as_the_model_has_it() -> None:
    model = savedmodel.read(HALF_PLUS_TWO)
    signature = model.signatures["serving_default"]
    assert signature.method == "tensorflow/serving/predict"
    assert (list(signature.inputs), list(signature.outputs)) == (["x"], ["y"])
    assert str(signature.inputs["x"]) == "float[?]"


# In a process of its own: one descriptor pool cannot hold both their messages and ours.
THEIRS = """
import json, sys
from pathlib import Path
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import saved_model_pb2

def tensors(infos):
    return {name: [types_pb2.DataType.Name(info.dtype)[3:].lower(), None if info.tensor_shape.unknown_rank else
                   [None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim]] for name, info in infos.items()}

for path in sys.argv[1:]:
    (meta,) = saved_model_pb2.SavedModel.FromString(Path(path).read_bytes()).meta_graphs
    found = {name: [s.method_name, tensors(s.inputs), tensors(s.outputs)] for name, s in meta.signature_def.items()}
    print(json.dumps([meta.meta_info_def.tensorflow_version, found]))
"""


def test_tensorflow_reads_the_same() -> None:
    paths = [HALF_PLUS_TWO, MULTI]
    done = subprocess.run([sys.executable, "-c", THEIRS, *paths], capture_output=True, text=True, check=True)
    for path, line in zip(paths, done.stdout.splitlines(), strict=True):
        version, theirs = json.loads(line)
        ours = savedmodel.read(path)
        assert ours.tensorflow == version
        assert set(ours.signatures) == set(theirs) - {"__saved_model_init_op"}
        for name, mine in ours.signatures.items():
            assert json.loads(json.dumps([mine.method, tensors(mine.inputs), tensors(mine.outputs)])) == theirs[name]


def tensors(found: dict[str, Tensor]) -> dict[str, list[object]]:
    return {name: [tensor.dtype, tensor.shape] for name, tensor in found.items()}


def test_tensorflow_is_not_needed() -> None:
    check = "import sys; import deploy.bundle.savedmodel; assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True)


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def model(tags: list[str], signatures: list[str], graph: bytes = b"") -> bytes:
    """A saved_model.pb; `graph` goes into field 2 of its meta graph, which our proto leaves out."""
    meta = tensorflow_saved_model_pb2.MetaGraphDef()
    meta.meta_info_def.tags.extend(tags)
    for name in signatures:
        meta.signature_def[name].inputs["x"].dtype = tensorflow_pb2.DT_STRING
    body = bytes([2 << 3 | 2]) + varint(len(graph)) + graph + meta.SerializeToString()
    return bytes([1 << 3, 1, 2 << 3 | 2]) + varint(len(body)) + body


def test_a_graph_of_any_size_is_stepped_over(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(model(["serve"], ["s"], bytes(10_000_000)))
    assert savedmodel.read(tmp_path / "saved_model.pb").signatures["s"].inputs == {"x": Tensor("string", ())}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a SavedModel"),
        (b"hello, I am a text", "not a SavedModel"),
        (model(["serve"], ["s"])[:-1], "not a SavedModel: it ends in the middle"),
        (model(["train"], ["s"]), "no graph has the tag 'serve' .found: train"),
        (b"\x08\x01", "no graph has the tag 'serve' .found: no graphs"),
        (model(["serve"], []), "has no signature"),
    ],
)
def test_what_cannot_be_served_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(content)
    with pytest.raises(BundleError, match=said):
        savedmodel.read(tmp_path / "saved_model.pb")


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_file_is_refused_or_read_but_never_breaks_anything(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(model(["serve"], ["a", "b"], b"graph"))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "saved_model.pb"
    path.write_bytes(content)
    try:
        savedmodel.read(path)
    except BundleError as error:
        assert str(path) in str(error)
