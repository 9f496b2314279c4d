"""Our protos are TensorFlow Serving's, as far as they go: same names, numbers, types, labels, oneofs and service paths."""

import json
import subprocess
import sys
from typing import Any

import pytest

# Theirs, left out on purpose: what we neither send nor read.
LEFT_OUT = {
    "tensorflow.TensorProto.resource_handle_val",
    "tensorflow.TensorProto.variant_val",
    "tensorflow.TensorInfo.coo_sparse",
    "tensorflow.TensorInfo.composite_tensor",
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
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2, types_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
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
modules = [example_pb2, feature_pb2, tensor_pb2, tensor_shape_pb2, types_pb2, meta_graph_pb2, saved_model_pb2,
    classification_pb2, get_model_metadata_pb2, get_model_status_pb2, inference_pb2, input_pb2, model_management_pb2,
    model_pb2, predict_pb2, regression_pb2, status_pb2, file_system_storage_path_source_pb2, model_server_config_pb2]
error_codes = status_pb2.StatusProto.DESCRIPTOR.fields_by_name["error_code"].enum_type.file
print(json.dumps([describe([*(m.DESCRIPTOR for m in modules), error_codes]), paths]))
"""
)

Description = tuple[dict[str, list[Any]], dict[str, list[str]]]


def described_by(script: str) -> Description:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    fields, paths = json.loads(done.stdout.splitlines()[-1])
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
