"""What the published clients of the Open Inference Protocol get from an adapter at $V2_ADDRESS (host:port).

test_v2.py runs this in an environment of its own (requirements/clients.lock). Behind the adapter stand the recorded
models and `echo`, which has a signature for each datatype that answers what it is given.
"""

import asyncio
import os

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput
from ml_dtypes import bfloat16
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

ADDRESS = os.environ["V2_ADDRESS"]
TEXT = np.array(["héllo".encode(), b"", b"\n"], np.object_)
BYTES = np.array([b"\xff\x00", b""], np.object_)
NUMBERS = {
    "BOOL": np.array([True, False]),
    "FP16": np.array([0.1, -65504.0], np.float16),
    "FP32": np.array([0.1, 3.4e38], np.float32),
    "FP64": np.array([0.1, 1.7e308]),
    **{f"INT{bits}": np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1], f"i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": np.array([0, 2**bits - 1], f"u{bits // 8}") for bits in (8, 16, 32, 64)},
}


@pytest.fixture
def client():
    with triton.InferenceServerClient(ADDRESS, concurrency=8) as connected:
        yield connected


def triton_input(name, array, binary=True):
    made = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    made.set_data_from_numpy(array, binary_data=binary)
    return made


X = np.array([1, 2, 5], np.float32)
Y = np.array([3, 3.5, 5], np.float32)  # version 2, the newest, adds 2.5


# tritonclient


def test_triton_sees_server_and_models(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    assert client.is_model_ready("half_plus_two")
    assert client.is_model_ready("half_plus_two", "1")
    assert not client.is_model_ready("half_plus_two", "9")
    assert not client.is_model_ready("nope")
    assert client.get_model_metadata("multi") == {
        "name": "multi",
        "versions": ["7"],
        "platform": "tensorflow_savedmodel",
        "inputs": [
            {"name": "count", "datatype": "INT64", "shape": [-1]},
            {"name": "name", "datatype": "BYTES", "shape": [-1]},
            {"name": "vec", "datatype": "FP32", "shape": [-1, 3]},
        ],
        "outputs": [
            {"name": "big", "datatype": "BOOL", "shape": [-1]},
            {"name": "greeting", "datatype": "BYTES", "shape": [-1]},
            {"name": "raw_bytes", "datatype": "BYTES", "shape": [-1]},
            {"name": "scaled", "datatype": "FP32", "shape": [-1, 3]},
            {"name": "total", "datatype": "FP32", "shape": [-1]},
            {"name": "twice", "datatype": "INT64", "shape": [-1]},
        ],
    }


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("datatype", [*NUMBERS, "BYTES"])
def test_triton_gets_back_what_it_sent_in_every_datatype(client, datatype, binary_in, binary_out):
    array = TEXT if datatype == "BYTES" else NUMBERS[datatype].reshape(2, 1)
    answer = client.infer(
        "echo",
        [triton_input("x", array, binary_in)],
        outputs=[triton.InferRequestedOutput("y", binary_data=binary_out)],
        parameters={"signature_name": datatype},
    )
    echoed = answer.as_numpy("y")
    assert echoed.dtype == array.dtype
    assert ("data" in answer.get_output("y")) != binary_out
    expected = array if binary_out or datatype != "BYTES" else [item.decode() for item in array]
    np.testing.assert_array_equal(echoed, expected)


def test_triton_gets_back_any_bytes_and_bfloat16_as_binary_data(client):
    for datatype, array in (("BYTES", BYTES), ("BF16", np.array([1.5, -0.1], bfloat16))):
        answer = client.infer("echo", [triton_input("x", array)], parameters={"signature_name": datatype})
        np.testing.assert_array_equal(answer.as_numpy("y"), array)


def test_triton_gets_empty_tensors_and_scalars(client):
    for array in (np.empty((0, 3), np.float32), np.array(1.5, np.float32)):
        for binary in (True, False):
            answer = client.infer("echo", [triton_input("x", array, binary)], parameters={"signature_name": "FP32"})
            np.testing.assert_array_equal(answer.as_numpy("y"), array)


def test_triton_gets_nan_and_infinities(client):
    array = np.array([np.nan, np.inf, -np.inf, 1], np.float32)
    for binary in (True, False):
        outputs = [triton.InferRequestedOutput("y", binary_data=binary)]
        answer = client.infer(
            "echo", [triton_input("x", array, binary)], outputs=outputs, parameters={"signature_name": "FP32"}
        )
        np.testing.assert_array_equal(answer.as_numpy("y"), array)


def test_triton_mixes_json_and_binary_and_chooses_outputs(client):
    inputs = [
        triton_input("vec", np.array([[1, 2, 3], [4, 5, 6]], np.float32)),
        triton_input("name", np.array([b"Ada", b"\xc3\xa9"], np.object_), binary=False),
        triton_input("count", np.array([4, 40])),
    ]
    outputs = [
        triton.InferRequestedOutput("twice", binary_data=True),
        triton.InferRequestedOutput("greeting", binary_data=False),
        triton.InferRequestedOutput("big", binary_data=True),
        triton.InferRequestedOutput("scaled", binary_data=False),
    ]
    answer = client.infer("multi", inputs, outputs=outputs, request_id="a-1")
    response = answer.get_response()
    assert (response["id"], response["model_name"], response["model_version"]) == ("a-1", "multi", "7")
    assert [output["name"] for output in response["outputs"]] == ["twice", "greeting", "big", "scaled"]
    assert answer.as_numpy("twice").tolist() == [8, 80]
    assert answer.as_numpy("greeting").tolist() == ["hello Ada", "hello é"]
    assert answer.as_numpy("big").tolist() == [False, True]
    assert answer.as_numpy("scaled").tolist() == [[4, 8, 12], [160, 200, 240]]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_triton_compresses_both_ways(client, algorithm):
    array = np.zeros(100_000, np.float32)
    for binary in (True, False):
        answer = client.infer(
            "half_plus_two",
            [triton_input("x", array, binary)],
            outputs=[triton.InferRequestedOutput("y", binary_data=binary)],
            request_compression_algorithm=algorithm,
            response_compression_algorithm=algorithm,
        )
        np.testing.assert_array_equal(answer.as_numpy("y"), array + np.float32(2.5))


def test_triton_asks_a_version(client):
    answer = client.infer("half_plus_two", [triton_input("x", X)], model_version="1")
    assert answer.get_response()["model_version"] == "1"
    np.testing.assert_array_equal(answer.as_numpy("y"), X / 2 + 2)


def test_triton_sends_many_at_once(client):
    sent = [client.async_infer("half_plus_two", [triton_input("x", X + index)]) for index in range(32)]
    for index, request in enumerate(sent):
        np.testing.assert_array_equal(request.get_result().as_numpy("y"), Y + np.float32(index / 2))


def test_triton_asyncio_client_infers():
    async def infer():
        async with triton_aio.InferenceServerClient(ADDRESS) as client:
            return (await client.infer("half_plus_two", [triton_input("x", X)])).as_numpy("y")

    np.testing.assert_array_equal(asyncio.run(infer()), Y)


def test_triton_shows_why_a_request_failed(client):
    def failure(model, array, **options):
        with pytest.raises(InferenceServerException) as caught:
            client.infer(model, [triton_input("x", array)], **options)
        return caught.value.status(), caught.value.message()

    assert failure("nope", X) == ("404", "Servable not found for request: Latest(nope)")
    assert failure("half_plus_two", X.astype(np.float64)) == ("400", 'inputs[0] "x": the model takes FP32, got FP64')
    classes = [triton.InferRequestedOutput("y", class_count=2)]
    assert failure("half_plus_two", X, outputs=classes) == (
        "400",
        "outputs[0].parameters.classification: not served here",
    )


# kserve


def kserve(ask):
    """What `ask` gets with KServe's client."""

    async def run():
        async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
            return await ask(client)

    return asyncio.run(run())


def kserve_infer(model, arrays, binary, **members):
    inputs = []
    for name, array in arrays.items():
        given = InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        given.set_data_from_numpy(array, binary_data=binary)
        inputs.append(given)
    request = InferRequest(model_name=model, infer_inputs=inputs, **members)
    return kserve(lambda client: client.infer(f"http://{ADDRESS}", request, model_name=model))


def test_kserve_sees_server_and_models():
    url = f"http://{ADDRESS}"
    assert kserve(lambda client: client.is_server_live(url))
    assert kserve(lambda client: client.is_server_ready(url))
    assert kserve(lambda client: client.is_model_ready(url, "half_plus_two"))
    assert not kserve(lambda client: client.is_model_ready(url, "nope"))


@pytest.mark.parametrize("binary", [True, False])
def test_kserve_infers(binary):
    answer = kserve_infer(
        "half_plus_two", {"x": X}, binary, request_id="b-2", parameters={"binary_data_output": binary}
    )
    assert (answer.id, answer.model_name) == ("b-2", "half_plus_two")
    np.testing.assert_array_equal(answer.outputs[0].as_numpy(), Y)


@pytest.mark.parametrize("datatype", [*NUMBERS, "BYTES"])
def test_kserve_gets_back_what_it_sent_in_every_datatype(datatype):
    array = TEXT if datatype == "BYTES" else NUMBERS[datatype]
    expected = [item.decode() for item in TEXT] if datatype == "BYTES" else array
    for binary in (True, False):
        if binary or datatype != "FP16":  # which it sends as binary data only
            parameters = {"signature_name": datatype, "binary_data_output": binary}
            answer = kserve_infer("echo", {"x": array}, binary, parameters=parameters)
            np.testing.assert_array_equal(answer.outputs[0].as_numpy(), expected)


def test_kserve_mixes_outputs():
    arrays = {"name": np.array([b"Ada"], np.object_), "count": np.array([4]), "vec": np.array([[1, 2, 3]], np.float32)}
    wanted = [RequestedOutput("total", {"binary_data": True}), RequestedOutput("greeting", {"binary_data": False})]
    answer = kserve_infer("multi", arrays, True, request_outputs=wanted)
    assert [output.name for output in answer.outputs] == ["total", "greeting"]
    assert [output.as_numpy().tolist() for output in answer.outputs] == [[6.0], ["hello Ada"]]


def test_kserve_is_told_that_a_request_failed():
    with pytest.raises(httpx.HTTPStatusError, match="404 Not Found"):
        kserve_infer("nope", {"x": X}, True)
