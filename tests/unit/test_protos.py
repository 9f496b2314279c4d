"""Our protos are TensorFlow Serving's, as far as they go: same names, numbers, types, labels, oneofs and service paths."""

import base64
import json
import subprocess
import sys
from typing import Any

import pytest

from adapter.inference import v1

# Theirs, left out on purpose: what we neither send nor read, nor print.
LEFT_OUT = {
    "tensorflow.MetaGraphDef.graph_def",
    "tensorflow.MetaGraphDef.saver_def",
    "tensorflow.MetaGraphDef.collection_def",
    "tensorflow.MetaGraphDef.asset_file_def",
    "tensorflow.MetaGraphDef.object_graph_def",
    "tensorflow.MetaGraphDef.MetaInfoDef.stripped_op_list",
    "tensorflow.MetaGraphDef.MetaInfoDef.any_info",
    "tensorflow.MetaGraphDef.MetaInfoDef.function_aliases",
    "tensorflow.serving.PredictRequest.predict_streamed_options",
    "tensorflow.serving.PredictRequest.client_id",
    "tensorflow.serving.PredictRequest.request_options",
    "tensorflow.serving.ModelConfig.model_type",
    "tensorflow.serving.ModelConfig.logging_config",
    "tensorflow.serving.ModelServerConfig.custom_model_config",
    "tensorflow.serving.FileSystemStoragePathSourceConfig.servables",
    "tensorflow.serving.FileSystemStoragePathSourceConfig.file_system_poll_wait_seconds",
    "tensorflow.serving.FileSystemStoragePathSourceConfig.fail_if_zero_versions_at_startup",
    "tensorflow.serving.FileSystemStoragePathSourceConfig.servable_versions_always_present",
}

# Each side is described in a process of its own: one descriptor pool cannot hold both.
DESCRIBE = """
import json, sys
from google.protobuf.descriptor import FieldDescriptor as F

def fields(message, out):
    for f in message.fields:
        target = f.message_type or f.enum_type
        out[f.full_name] = [f.number, f.type, f.label, target.full_name if target else "", f.json_name,
                            f.containing_oneof.name if f.containing_oneof else "", bool(f.is_packed)]
    for e in message.enum_types:
        enum(e, out)
    for n in message.nested_types:
        fields(n, out)

def enum(e, out):
    for v in e.values:
        out[f"{e.full_name}={v.name}"] = [v.number]

def describe(files):
    out = {}
    for file in files:
        for m in file.message_types_by_name.values():
            fields(m, out)
        for e in file.enum_types_by_name.values():
            enum(e, out)
    return out
"""

OURS = (
    DESCRIBE
    + """
from adapter.pb import serving_pb2, tensorflow_error_pb2, tensorflow_pb2, tensorflow_saved_model_pb2
paths = {}
for service in serving_pb2.DESCRIPTOR.services_by_name.values():
    for m in service.methods:
        paths[f"/{service.full_name}/{m.name}"] = [m.input_type.full_name, m.output_type.full_name]
modules = [serving_pb2, tensorflow_error_pb2, tensorflow_pb2, tensorflow_saved_model_pb2]
print(json.dumps([describe([m.DESCRIPTOR for m in modules]), paths]))
"""
)

# Their service modules are generated for another protobuf; the stubs are asked for the paths they call instead.
THEIRS = (
    DESCRIBE
    + """
from types import SimpleNamespace
from tensorflow.core.example import example_pb2, feature_pb2
from tensorflow.core.framework import resource_handle_pb2, tensor_pb2, tensor_shape_pb2, types_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2, struct_pb2
from tensorflow_serving.apis import (classification_pb2, get_model_metadata_pb2, get_model_status_pb2, inference_pb2,
    input_pb2, model_management_pb2, model_pb2, predict_pb2, regression_pb2, status_pb2)
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc
from tensorflow_serving.config import file_system_storage_path_source_pb2, model_server_config_pb2
paths = {}
class Paths:
    def unary_unary(self, path, request_serializer, response_deserializer, **kwargs):
        paths[path] = [response_deserializer.__self__.DESCRIPTOR.full_name]
    def add_generic_rpc_handlers(self, handlers):
        for path in paths:
            handler = handlers[0].service(SimpleNamespace(method=path, invocation_metadata=()))
            if handler is not None:
                paths[path].insert(0, handler.request_deserializer.__self__.DESCRIPTOR.full_name)
class Anything:
    def __getattr__(self, name):
        return None
for module, service in ((prediction_service_pb2_grpc, "PredictionService"), (model_service_pb2_grpc, "ModelService")):
    getattr(module, f"{service}Stub")(Paths())
    getattr(module, f"add_{service}Servicer_to_server")(Anything(), Paths())
modules = [example_pb2, feature_pb2, resource_handle_pb2, tensor_pb2, tensor_shape_pb2, types_pb2, meta_graph_pb2,
    saved_model_pb2, struct_pb2,
    classification_pb2, get_model_metadata_pb2, get_model_status_pb2, inference_pb2, input_pb2, model_management_pb2,
    model_pb2, predict_pb2, regression_pb2, status_pb2, file_system_storage_path_source_pb2, model_server_config_pb2]
error_codes = status_pb2.StatusProto.DESCRIPTOR.fields_by_name["error_code"].enum_type.file
print(json.dumps([describe([*(m.DESCRIPTOR for m in modules), error_codes]), paths]))
"""
)

# Metadata of inputs that are sparse, ragged and have defaults, encoded, and as their protos print it.
THEIR_METADATA = """
import base64, json
import tensorflow as tf
from google.protobuf.json_format import MessageToDict
from tensorflow_serving.apis import get_model_metadata_pb2
signatures = get_model_metadata_pb2.SignatureDefMap()
signature = signatures.signature_def["serving_default"]
signature.method_name = "tensorflow/serving/predict"
with tf.Graph().as_default():
    for name, tensor in {
        "dense": tf.compat.v1.placeholder(tf.float32, [None, 2]),
        "sparse": tf.compat.v1.sparse_placeholder(tf.float32, [None, 3]),
        "ragged": tf.compat.v1.ragged.placeholder(tf.string, 2, [4]),
    }.items():
        signature.inputs[name].CopyFrom(tf.compat.v1.saved_model.build_tensor_info(tensor))
signature.outputs["y"].CopyFrom(signature.inputs["dense"])
signature.defaults["dense"].CopyFrom(tf.make_tensor_proto([[1.5, 2.0]]))
handle = signature.defaults["handle"]
handle.dtype = tf.resource.as_datatype_enum
handle.resource_handle_val.add(name="table", hash_code=1 << 63).dtypes_and_shapes.add(dtype=1).shape.dim.add(size=-1)
variant = signature.defaults["variant"]
variant.dtype = tf.variant.as_datatype_enum
variant.variant_val.add(type_name="list", metadata=b"\\xff").tensors.add(dtype=3, int_val=[1])
# What the specs of other composite tensors hold.
state = signature.inputs["ragged"].composite_tensor.type_spec.type_state
for value in ({"none_value": {}}, {"float64_value": 0.5}, {"int64_value": -1}, {"bool_value": False}, {"tensor_dtype_value": 1}):
    state.tuple_value.values.add(**value)
state.tuple_value.values.add().bounded_tensor_spec_value.minimum.dtype = 1
state.tuple_value.values.add().named_tuple_value.values.add(key="k").value.list_value.values.add().string_value = "v"
state.tuple_value.values.add().dict_value.fields["k"].tensor_value.int64_val.append(1 << 40)
response = get_model_metadata_pb2.GetModelMetadataResponse()
response.model_spec.name = "m"
response.model_spec.version.value = 7
response.metadata["signature_def"].Pack(signatures)
expected = MessageToDict(signatures, always_print_fields_with_no_presence=True, preserving_proto_field_name=True)
print(json.dumps([base64.b64encode(response.SerializeToString()).decode(), expected]))
"""

Description = tuple[dict[str, list[Any]], dict[str, list[str]]]


def printed_by(script: str) -> Any:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def described_by(script: str) -> Description:
    fields, paths = printed_by(script)
    return fields, paths


@pytest.fixture(scope="module")
def ours() -> Description:
    return described_by(OURS)


@pytest.fixture(scope="module")
def theirs() -> Description:
    return described_by(THEIRS)


def test_every_field_and_enum_value_of_ours_is_theirs(ours: Description, theirs: Description) -> None:
    assert len(ours[0]) > 150
    different = {name: (mine, theirs[0].get(name)) for name, mine in ours[0].items() if theirs[0].get(name) != mine}
    assert not different


def test_no_field_of_theirs_is_missing_unless_left_out_on_purpose(ours: Description, theirs: Description) -> None:
    messages = {name.rsplit(".", 1)[0] for name in ours[0] if "=" not in name}
    missing = {name for name in theirs[0] if "=" not in name and name.rsplit(".", 1)[0] in messages} - set(ours[0])
    assert missing == {name for name in LEFT_OUT if name.rsplit(".", 1)[0] in messages}


def test_every_service_path_and_its_messages_are_theirs(ours: Description, theirs: Description) -> None:
    assert ours[1] == theirs[1]


def test_metadata_says_all_that_theirs_says_of_sparse_ragged_and_default_inputs() -> None:
    encoded, expected = printed_by(THEIR_METADATA)
    inputs = expected["signature_def"]["serving_default"]["inputs"]
    assert list(inputs["sparse"]["coo_sparse"]) == [
        "values_tensor_name",
        "indices_tensor_name",
        "dense_shape_tensor_name",
    ]
    assert inputs["ragged"]["composite_tensor"]["type_spec"]["type_spec_class"] == "RAGGED_TENSOR_SPEC"
    assert expected["signature_def"]["serving_default"]["defaults"]["dense"]["variant_val"] == []
    assert json.loads(v1.metadata_json(base64.b64decode(encoded)))["metadata"]["signature_def"] == expected
