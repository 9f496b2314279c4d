"""One loaded SavedModel and what can be asked of it: predict, classify, regress, or several of these at once.

The checks, their order and their words are those of S: servables/tensorflow/{predict_util,classifier,regressor,
multi_inference}.cc and tensorflow/cc/saved_model/util.cc.
"""

import time
from collections.abc import Iterable, Sequence
from typing import Any

from grpc import StatusCode

from deploy.local.model_server import protos as pb
from deploy.local.model_server.metrics import Metrics, micros_since
from deploy.local.model_server.runtime import DT_STRING, Session, Tensor
from deploy.local.model_server.status import StatusError, require
from deploy.local.model_server.tensors import elements, from_proto, to_proto

CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"
_DEFAULT_SIGNATURE = "serving_default"


class Servable:
    def __init__(self, version: int, session: Session, metrics: Metrics, as_content: bool) -> None:
        self._version = version
        self._session = session
        self._metrics = metrics
        self._as_content = as_content
        self.signatures = session.signatures
        self.close = session.close

    def predict(self, request: pb.PredictRequest, timeout_ms: int | None = None) -> pb.PredictResponse:
        name = request.model_spec.signature_name or _DEFAULT_SIGNATURE
        missing = f'Serving signature key "{name}" not found.'
        require(name in self.signatures, missing, StatusCode.FAILED_PRECONDITION)
        signature = self.signatures[name]
        feeds, aliases = _feeds(signature, request.inputs), _output_aliases(signature, request.output_filter)
        fetches = [signature.outputs[alias].name for alias in aliases]
        results = self._run("Predict", request.model_spec.name, feeds, fetches, timeout_ms)
        response = pb.PredictResponse(model_spec=self._spec(request.model_spec.name, name))
        for alias, tensor in zip(aliases, results, strict=True):
            response.outputs[alias].CopyFrom(to_proto(tensor, self._as_content))
        return response

    def classify(self, request: pb.ClassificationRequest, timeout_ms: int | None = None) -> pb.ClassificationResponse:
        return self._infer("Classify", CLASSIFY, request, pb.ClassificationResponse, timeout_ms)

    def regress(self, request: pb.RegressionRequest, timeout_ms: int | None = None) -> pb.RegressionResponse:
        return self._infer("Regress", REGRESS, request, pb.RegressionResponse, timeout_ms)

    def multi_inference(
        self, request: pb.MultiInferenceRequest, timeout_ms: int | None = None
    ) -> pb.MultiInferenceResponse:
        model, planned, feeds = "", {}, set()
        for task in request.tasks:
            spec, name = task.model_spec, task.model_spec.signature_name or _DEFAULT_SIGNATURE
            require(spec.name, "Found ModelSpec with an empty model name.")
            model = model or spec.name
            require(spec.name == model, "All ModelSpecs in a MultiInferenceRequest must access the same model name.")
            require(name not in planned, f"Duplicate evaluation of signature: {name}")
            require(name in self.signatures, f"Requested signature not found in model graph: {name}")
            unsupported = f"Unsupported signature method_name: {task.method_name}"
            require(task.method_name in _METHODS, unsupported, StatusCode.UNIMPLEMENTED)
            feed, outputs = _METHODS[task.method_name][0](self.signatures[name])
            feeds.add(feed)
            planned[name] = (task.method_name, outputs)
        require(len(feeds) == 1, "Input tensor must be the same for all Signatures.")
        fetches = sorted({fetch for _, outputs in planned.values() for fetch in outputs.values()})
        examples = _examples(feeds.pop(), request.input)
        found = dict(zip(fetches, self._run("MultiInference", model, examples, fetches, timeout_ms), strict=True))
        response = pb.MultiInferenceResponse()
        for name, (method, outputs) in planned.items():
            result = response.results.add(model_spec=self._spec(model, name))
            tensors = {key: found[fetch] for key, fetch in outputs.items()}
            fill = result.classification_result if method == CLASSIFY else result.regression_result
            _METHODS[method][1](fill, tensors, _count(examples))
        return response

    def _infer(self, api: str, method: str, request: Any, response_type: Any, timeout_ms: int | None) -> Any:
        """Classify and regress: examples in, one signature, its outputs made into the result."""
        name = request.model_spec.signature_name or _DEFAULT_SIGNATURE
        require(name in self.signatures, f"No signature was found with the name: {name}")
        plan, fill = _METHODS[method]
        feed, outputs = plan(self.signatures[name])
        examples = _examples(feed, request.input)
        results = self._run(api, request.model_spec.name, examples, list(outputs.values()), timeout_ms)
        response = response_type(model_spec=self._spec(request.model_spec.name, name))
        fill(response.result, dict(zip(outputs, results, strict=True)), _count(examples))
        return response

    def _run(
        self, api: str, model: str, feeds: dict[str, Tensor], fetches: Sequence[str], timeout_ms: int | None
    ) -> list[Tensor]:
        start = time.monotonic()
        self._metrics.session_runs.add()
        results = self._session.run(feeds, fetches, timeout_ms)
        self._metrics.runtime_latency.observe(micros_since(start), model, api, "TF1")
        return results

    def _spec(self, name: str, signature_name: str) -> pb.ModelSpec:
        spec = pb.ModelSpec(name=name, signature_name=signature_name)
        spec.version.value = self._version
        return spec


def _feeds(signature: pb.SignatureDef, inputs: Any) -> dict[str, Tensor]:
    wanted, sent, defaults = set(signature.inputs), set(inputs), signature.defaults
    if len(sent) > len(wanted) or (len(sent) < len(wanted) and not defaults):
        sizes = f"{len(sent)}!={len(wanted)} len({_set(sent)}) != len({_set(wanted)})"
        difference = f"Sent extra: {_set(sent - wanted)}. Missing but required: {_set(wanted - sent)}."
        raise _invalid(f"input size does not match signature: {sizes}. {difference}")
    feeds = {}
    for alias in sorted(wanted):
        feed = signature.inputs[alias].name
        if alias not in sent and alias not in defaults:
            where = f"Inputs expected to be in the request {_set(sent)}, or default input alias set: "
            what = (
                f"Signature input alias: {alias}(feed name: {feed}) not found in request and no default value provided."
            )
            raise _invalid(f"{what} {where}{','.join(sorted(defaults))}")
        tensor = from_proto(inputs[alias] if alias in sent else defaults[alias])
        if tensor is None:
            raise _invalid(f"tensor parsing error: {alias}")
        feeds[feed] = tensor
    return feeds


def _output_aliases(signature: pb.SignatureDef, output_filter: Sequence[str]) -> list[str]:
    for index, alias in enumerate(output_filter):
        expected = f"Outputs expected to be in the set {_set(signature.outputs)}."
        require(alias in signature.outputs, f"output tensor alias not found in signature: {alias} {expected}")
        require(alias not in output_filter[:index], f"duplicate output tensor alias: {alias}")
    return list(output_filter) or sorted(signature.outputs)


def _classification_plan(signature: pb.SignatureDef) -> tuple[str, dict[str, str]]:
    """The graph tensor to feed, and those to fetch by `classes` and `scores`."""
    require(len(signature.inputs) == 1, "Expected one input Tensor.")
    count = len(signature.outputs)
    require(count in (1, 2), f"Expected one or two output Tensors, found {count}")
    require("inputs" in signature.inputs, f"No classification inputs found in SignatureDef: {signature}")
    outputs = {key: signature.outputs[key].name for key in ("classes", "scores") if key in signature.outputs}
    expected = 'Expected classification signature outputs to contain at least one of "classes" or "scores".'
    require(outputs, f"{expected} Signature was: {signature}")
    return signature.inputs["inputs"].name, outputs


def _fill_classification(result: Any, outputs: dict[str, Tensor], count: int) -> None:
    for key, tensor in outputs.items():
        dtype = "DT_STRING" if key == "classes" else "DT_FLOAT"
        require(len(tensor.shape) == 2, f"Expected Tensor shape: [batch_size num_classes] but got {_shape(tensor)}")
        require(_dtype(tensor) == dtype, f"Expected {key} Tensor of {dtype}. Got: {_dtype(tensor)}")
        rows = tensor.shape[0]
        require(rows == count, f"Expected {key} output batch size of {count}. Got: {rows}")
    widths = [tensor.shape[1] for tensor in outputs.values()]
    mismatch = f"Tensors class and score should match in num_classes. Got: {widths[0]} vs. {widths[-1]}"
    require(widths[0] == widths[-1], mismatch)
    labels = elements(outputs["classes"]) if "classes" in outputs else [b""] * (count * widths[0])
    scores = elements(outputs["scores"]) if "scores" in outputs else [0.0] * (count * widths[0])
    for row in range(count):
        classes = result.classifications.add().classes
        for column in range(row * widths[0], (row + 1) * widths[0]):
            classes.add(label=labels[column], score=scores[column])


def _regression_plan(signature: pb.SignatureDef) -> tuple[str, dict[str, str]]:
    require(len(signature.inputs) == 1, "Expected one input Tensor.")
    require(len(signature.outputs) == 1, "Expected one output Tensor.")
    require("inputs" in signature.inputs, f"No regression inputs found in SignatureDef: {signature}")
    require("outputs" in signature.outputs, f"No regression outputs found in SignatureDef: {signature}")
    return signature.inputs["inputs"].name, {"outputs": signature.outputs["outputs"].name}


def _fill_regression(result: Any, outputs: dict[str, Tensor], count: int) -> None:
    output = outputs["outputs"]
    shaped = len(output.shape) == 1 or (len(output.shape) == 2 and output.shape[1] == 1)
    expected = "Expected output Tensor shape to be either [batch_size] or [batch_size, 1]"
    require(shaped, f"{expected} but got {_shape(output)}")
    rows = output.shape[0]
    require(rows == count, f"Input batch size did not match output batch size: {count} vs. {rows}")
    require(_dtype(output) == "DT_FLOAT", f"Expected output Tensor of DT_FLOAT.  Got: {_dtype(output)}")
    for value in elements(output):
        result.regressions.add(value=value)


_METHODS: dict[str, tuple[Any, Any]] = {
    CLASSIFY: (_classification_plan, _fill_classification),
    REGRESS: (_regression_plan, _fill_regression),
}


def _examples(feed: str, request: pb.Input) -> dict[str, Tensor]:
    kind = request.WhichOneof("kind")
    examples = [example.SerializeToString() for example in getattr(request, kind).examples] if kind else []
    require(examples, "Input is empty.")
    if kind == "example_list_with_context":
        # Serialized messages merge by concatenation; a feature of the example itself comes later and wins.
        context = request.example_list_with_context.context.SerializeToString()
        examples = [context + example for example in examples]
    return {feed: Tensor(DT_STRING, (len(examples),), examples)}


def _count(examples: dict[str, Tensor]) -> int:
    return next(iter(examples.values())).shape[0]


def _invalid(message: str) -> StatusError:
    return StatusError(StatusCode.INVALID_ARGUMENT, message)


def _set(names: Iterable[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"


def _shape(tensor: Tensor) -> str:
    return "[" + ",".join(map(str, tensor.shape)) + "]"


def _dtype(tensor: Tensor) -> str:
    return str(pb.DataType.Name(tensor.dtype))
