"""What predictions promise: the service's own endpoint, TensorFlow Serving's REST API, the Open Inference Protocol."""

from typing import Any

from deploy.check.documents import errors_of
from deploy.check.expectations import NotHere, document, hold, model, problem, status
from deploy.check.service import Service


def own_endpoint(service: Service) -> None:
    """/predict answers the example of its document, as documented, and refuses what is no document with 4xx"""
    found = document(service)
    operation = found["paths"].get("/predict", {}).get("post")
    if operation is None:
        raise NotHere("the service has no endpoint of its own")
    status(service.request("POST", "/predict", b"{", {"Content-Type": "application/json"}), 400, 422)
    body = operation["requestBody"]["content"].get("application/json", {})
    examples = [body["example"]] if "example" in body else [one["value"] for one in body.get("examples", {}).values()]
    if not examples:
        raise NotHere("its document has no example of a request")
    answer = status(service.post("/predict", examples[0]), 200)
    wrong = errors_of(found, operation, answer)
    hold(not wrong, "; ".join(wrong))


def v1_predicts(service: Service) -> None:
    """/v1 predicts by what the model's own metadata says that it takes"""
    name = model(service)
    metadata = status(service.get(f"/v1/models/{name}/metadata"), 200).json["metadata"]["signature_def"][
        "signature_def"
    ]
    signature = metadata.get("serving_default")
    if signature is None:
        raise NotHere("the model has no signature serving_default")
    row = {tensor: _zeros(info) for tensor, info in signature["inputs"].items()}
    answer = status(service.post(f"/v1/models/{name}:predict", {"inputs": row}), 200)
    hold("outputs" in answer.json, f"it answers {', '.join(answer.json)}")


def v1_refuses(service: Service) -> None:
    """/v1 tells errors as TensorFlow Serving does: `{"error": …}`, 404 for a model that is not there, 400 for no input"""
    name = model(service)
    for answer, wanted in (
        (service.get("/v1/models/no-such-model"), (404, 403)),
        (service.post(f"/v1/models/{name}:predict", {}), (400,)),
        (service.request("POST", f"/v1/models/{name}:predict", b"{"), (400,)),
    ):
        status(answer, *wanted)
        hold(set(answer.json) == {"error"}, f"an error with {', '.join(answer.json)}")


def v2(service: Service) -> None:
    """/v2 says what the server and the model are, and whether they are ready"""
    name = model(service)
    hold({"name", "version", "extensions"} <= status(service.get("/v2"), 200).json.keys(), "/v2 lacks a member")
    hold(status(service.get("/v2/health/live"), 200).json == {"live": True}, "/v2/health/live")
    described = status(service.get(f"/v2/models/{name}"), 200).json
    hold({"name", "platform", "inputs", "outputs"} <= described.keys(), f"the model has only {', '.join(described)}")
    problem(service.get("/v2/models/no-such-model"), 404, 403)


def _zeros(info: dict[str, Any]) -> Any:
    """The smallest input of this type and shape."""
    value: Any = "" if info["dtype"] == "DT_STRING" else False if info["dtype"] == "DT_BOOL" else 0
    for dimension in reversed(info["tensor_shape"].get("dim", [])):
        value = [value] * max(1, int(dimension["size"]))
    return value
