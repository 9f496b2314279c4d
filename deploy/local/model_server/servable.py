"""One loaded SavedModel and what can be asked of it: predict, classify, regress, several of these, metadata.

The checks, their order and their words are those of S: servables/tensorflow/{predict_util,classifier,regressor,
multi_inference,get_model_metadata_impl}.cc and tensorflow/cc/saved_model/util.cc.
"""

import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from deploy.local.model_server import logs, tensors
from deploy.local.model_server.metrics import Metrics
from deploy.local.model_server.protos import (
    ClassificationRequest,
    ClassificationResponse,
    ClassificationResult,
    Input,
    ModelSpec,
    MultiInferenceRequest,
    MultiInferenceResponse,
    PredictionLog,
    PredictRequest,
    PredictResponse,
    RegressionRequest,
    RegressionResponse,
    RegressionResult,
    SignatureDef,
)
from deploy.local.model_server.runtime import DT_STRING, Session, Tensor
from deploy.local.model_server.status import Code, StatusError, invalid_argument

CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"
_DEFAULT_SIGNATURE = "serving_default"
_MAX_WARMUP_RECORDS = 1000
_DTYPE_FLOAT = 1


class Servable:
    def __init__(self, version: int, session: Session, metrics: Metrics, as_content: bool) -> None:
        self._version = version
        self._session = session
        self._metrics = metrics
        self._as_content = as_content
        self.signatures = dict(session.meta_graph.signature_def)

    def close(self) -> None:
        self._session.close()

    def predict(self, request: PredictRequest, timeout_ms: int | None = None) -> PredictResponse:
        name = request.model_spec.signature_name or _DEFAULT_SIGNATURE
        signature = self.signatures.get(name)
        if signature is None:
            raise StatusError(Code.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
        feeds = _feeds(signature, request.inputs)
        aliases = _output_aliases(signature, request.output_filter)
        fetches = [signature.outputs[alias].name for alias in aliases]
        results = self._run("Predict", request.model_spec.name, feeds, fetches, timeout_ms)
        response = PredictResponse(model_spec=self._spec(request.model_spec.name, name))
        for alias, tensor in zip(aliases, results, strict=True):
            response.outputs[alias].CopyFrom(tensors.to_proto(tensor, self._as_content))
        return response

    def classify(self, request: ClassificationRequest, timeout_ms: int | None = None) -> ClassificationResponse:
        name, signature = self._example_signature(request.model_spec)
        feed, outputs = _classification_tensors(signature)
        results, count = self._run_examples("Classify", request, feed, outputs.values(), timeout_ms)
        return ClassificationResponse(
            model_spec=self._spec(request.model_spec.name, name),
            result=_classification(dict(zip(outputs, results, strict=True)), count),
        )

    def regress(self, request: RegressionRequest, timeout_ms: int | None = None) -> RegressionResponse:
        name, signature = self._example_signature(request.model_spec)
        feed, output = _regression_tensors(signature)
        results, count = self._run_examples("Regress", request, feed, [output], timeout_ms)
        return RegressionResponse(
            model_spec=self._spec(request.model_spec.name, name), result=_regression(results[0], count)
        )

    def multi_inference(self, request: MultiInferenceRequest, timeout_ms: int | None = None) -> MultiInferenceResponse:
        model, planned, feeds = "", {}, set()
        for task in request.tasks:
            spec, name = task.model_spec, task.model_spec.signature_name or _DEFAULT_SIGNATURE
            if not spec.name:
                raise invalid_argument("Found ModelSpec with an empty model name.")
            model = model or spec.name
            if spec.name != model:
                raise invalid_argument("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
            if name in planned:
                raise invalid_argument(f"Duplicate evaluation of signature: {name}")
            if name not in self.signatures:
                raise invalid_argument(f"Requested signature not found in model graph: {name}")
            if task.method_name == CLASSIFY:
                feed, outputs = _classification_tensors(self.signatures[name])
            elif task.method_name == REGRESS:
                feed, output = _regression_tensors(self.signatures[name])
                outputs = {"outputs": output}
            else:
                raise StatusError(Code.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}")
            feeds.add(feed)
            planned[name] = (task.method_name, outputs)
        if len(feeds) != 1:
            raise invalid_argument("Input tensor must be the same for all Signatures.")
        fetches = sorted({fetch for _, outputs in planned.values() for fetch in outputs.values()})
        results, count = self._run_examples("MultiInference", request, feeds.pop(), fetches, timeout_ms, model)
        by_name = dict(zip(fetches, results, strict=True))
        response = MultiInferenceResponse()
        for name, (method, outputs) in planned.items():
            result = response.results.add(model_spec=self._spec(model, name))
            if method == CLASSIFY:
                found = {key: by_name[fetch] for key, fetch in outputs.items()}
                result.classification_result.CopyFrom(_classification(found, count))
            else:
                result.regression_result.CopyFrom(_regression(by_name[outputs["outputs"]], count))
        return response

    def warm_up(self, path: Path, iterations: int) -> None:
        """Replay `assets.extra/tf_serving_warmup_requests`, where there is one; its failure fails the load."""
        source = "tensorflow_serving/servables/tensorflow/saved_model_warmup_util.cc"
        file = path / "assets.extra" / "tf_serving_warmup_requests"
        if not file.exists():
            logs.tf("I", f"{source}:82", f"No warmup data file found at {file}")
            return
        logs.tf("I", f"{source}:94", f"Starting to read warmup data for model at {file} with model-warmup-options ")
        start, count = time.monotonic(), 0
        for count, record in enumerate(_records(file), start=1):  # noqa: B007 - the count is told below
            log = PredictionLog.FromString(record)
            for _ in range(iterations):
                self._replay(log)
            if count > _MAX_WARMUP_RECORDS:
                raise invalid_argument(
                    f"Number of warmup records exceeds the maximum ({_MAX_WARMUP_RECORDS}) at {file}"
                )
        micros = _micros_since(start)
        self._metrics.warmup_latency.observe(micros, str(path), "OK")
        logs.tf(
            "I",
            f"{source}:205",
            f"Finished reading warmup data for model at {file}. Number of warmup records read: {count}."
            f" Elapsed time (microseconds): {micros}.",
        )

    def _replay(self, log: PredictionLog) -> None:
        match log.WhichOneof("log_type"):
            case "predict_log":
                self.predict(log.predict_log.request)
            case "classify_log":
                self.classify(log.classify_log.request)
            case "regress_log":
                self.regress(log.regress_log.request)
            case "multi_inference_log":
                self.multi_inference(log.multi_inference_log.request)
            case kind:
                raise StatusError(Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind}")

    def _spec(self, name: str, signature_name: str) -> ModelSpec:
        spec = ModelSpec(name=name, signature_name=signature_name)
        spec.version.value = self._version
        return spec

    def _example_signature(self, spec: ModelSpec) -> tuple[str, SignatureDef]:
        name = spec.signature_name or _DEFAULT_SIGNATURE
        if name not in self.signatures:
            raise invalid_argument(f"No signature was found with the name: {name}")
        return name, self.signatures[name]

    def _run_examples(
        self, api: str, request: Any, feed: str, fetches: Iterable[str], timeout_ms: int | None, model: str | None = None
    ) -> tuple[list[Tensor], int]:
        examples = _serialized_examples(request.input)
        feeds = {feed: Tensor(DT_STRING, (len(examples),), examples)}
        return self._run(api, model or request.model_spec.name, feeds, list(fetches), timeout_ms), len(examples)

    def _run(
        self, api: str, model: str, feeds: dict[str, Tensor], fetches: Sequence[str], timeout_ms: int | None
    ) -> list[Tensor]:
        start = time.monotonic()
        self._metrics.session_runs.add()
        results = self._session.run(feeds, fetches, timeout_ms)
        self._metrics.runtime_latency.observe(_micros_since(start), model, api, "TF1")
        return results


def _feeds(signature: SignatureDef, inputs: Any) -> dict[str, Tensor]:
    wanted, sent, defaults = set(signature.inputs), set(inputs), signature.defaults
    if len(sent) > len(wanted) or (len(sent) < len(wanted) and not defaults):
        raise invalid_argument(
            f"input size does not match signature: {len(sent)}!={len(wanted)} len({_set(sent)}) != len({_set(wanted)})."
            f" Sent extra: {_set(sent - wanted)}. Missing but required: {_set(wanted - sent)}."
        )
    feeds = {}
    for alias in sorted(wanted):
        feed = signature.inputs[alias].name
        if alias not in inputs and alias not in defaults:
            raise invalid_argument(
                f"Signature input alias: {alias}(feed name: {feed}) not found in request and no default value provided."
                f" Inputs expected to be in the request {_set(sent)}, or default input alias set:"
                f" {','.join(sorted(defaults))}"
            )
        tensor = tensors.from_proto(inputs[alias] if alias in inputs else defaults[alias])
        if tensor is None:
            raise invalid_argument(f"tensor parsing error: {alias}")
        feeds[feed] = tensor
    return feeds


def _output_aliases(signature: SignatureDef, output_filter: Sequence[str]) -> list[str]:
    for index, alias in enumerate(output_filter):
        if alias not in signature.outputs:
            raise invalid_argument(
                f"output tensor alias not found in signature: {alias}"
                f" Outputs expected to be in the set {_set(signature.outputs)}."
            )
        if alias in output_filter[:index]:
            raise invalid_argument(f"duplicate output tensor alias: {alias}")
    return list(output_filter) or sorted(signature.outputs)


def _classification_tensors(signature: SignatureDef) -> tuple[str, dict[str, str]]:
    """The graph tensor to feed, and those to fetch by `classes` and `scores`."""
    if len(signature.inputs) != 1:
        raise invalid_argument("Expected one input Tensor.")
    if len(signature.outputs) not in (1, 2):
        raise invalid_argument(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    if "inputs" not in signature.inputs:
        raise invalid_argument(f"No classification inputs found in SignatureDef: {signature}")
    outputs = {key: signature.outputs[key].name for key in ("classes", "scores") if key in signature.outputs}
    if not outputs:
        raise invalid_argument(
            'Expected classification signature outputs to contain at least one of "classes" or "scores".'
            f" Signature was: {signature}"
        )
    return signature.inputs["inputs"].name, outputs


def _classification(outputs: dict[str, Tensor], count: int) -> ClassificationResult:
    for key, dtype, dtype_name in (("classes", DT_STRING, "DT_STRING"), ("scores", _DTYPE_FLOAT, "DT_FLOAT")):
        if (tensor := outputs.get(key)) is None:
            continue
        if len(tensor.shape) != 2:
            raise invalid_argument(f"Expected Tensor shape: [batch_size num_classes] but got {_shape(tensor)}")
        if tensor.dtype != dtype:
            raise invalid_argument(f"Expected {key} Tensor of {dtype_name}. Got: {_dtype(tensor)}")
        if tensor.shape[0] != count:
            raise invalid_argument(f"Expected {key} output batch size of {count}. Got: {tensor.shape[0]}")
    widths = [tensor.shape[1] for tensor in outputs.values()]
    if len(set(widths)) > 1:
        raise invalid_argument(
            f"Tensors class and score should match in num_classes. Got: {widths[0]} vs. {widths[1]}"
        )
    labels = outputs["classes"].data if "classes" in outputs else [b""] * (count * widths[0])
    scores = tensors.values(outputs["scores"]) if "scores" in outputs else [0.0] * (count * widths[0])
    result = ClassificationResult()
    for row in range(count):
        classes = result.classifications.add().classes
        for column in range(row * widths[0], (row + 1) * widths[0]):
            classes.add(label=labels[column], score=scores[column])
    return result


def _regression_tensors(signature: SignatureDef) -> tuple[str, str]:
    if len(signature.inputs) != 1:
        raise invalid_argument("Expected one input Tensor.")
    if len(signature.outputs) != 1:
        raise invalid_argument("Expected one output Tensor.")
    if "inputs" not in signature.inputs:
        raise invalid_argument(f"No regression inputs found in SignatureDef: {signature}")
    if "outputs" not in signature.outputs:
        raise invalid_argument(f"No regression outputs found in SignatureDef: {signature}")
    return signature.inputs["inputs"].name, signature.outputs["outputs"].name


def _regression(output: Tensor, count: int) -> RegressionResult:
    if len(output.shape) not in (1, 2) or output.shape[1:] not in ((), (1,)):
        raise invalid_argument(
            f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {_shape(output)}"
        )
    if output.shape[0] != count:
        raise invalid_argument(f"Input batch size did not match output batch size: {count} vs. {output.shape[0]}")
    if output.dtype != _DTYPE_FLOAT:
        raise invalid_argument(f"Expected output Tensor of DT_FLOAT.  Got: {_dtype(output)}")
    result = RegressionResult()
    for value in tensors.values(output):
        result.regressions.add(value=value)
    return result


def _serialized_examples(request: Input) -> list[bytes]:
    kind = request.WhichOneof("kind")
    examples = [example.SerializeToString() for example in getattr(request, kind).examples] if kind else []
    if not examples:
        raise invalid_argument("Input is empty.")
    if kind == "example_list_with_context":
        # Serialized messages merge by concatenation; a feature of the example itself comes later and wins.
        context = request.example_list_with_context.context.SerializeToString()
        return [context + example for example in examples]
    return examples


def _records(file: Path) -> Iterator[bytes]:
    """The records of a TFRecord file: length (8 bytes), its checksum (4), data, its checksum (4). Checksums unchecked."""
    data, offset = file.read_bytes(), 0
    while offset < len(data):
        if offset + 12 > len(data) or offset + 16 + (length := struct.unpack_from("<Q", data, offset)[0]) > len(data):
            raise StatusError(
                Code.DATA_LOSS,
                f"truncated record at {offset}. Please verify your warmup data is in TFRecord format.",
            )
        yield data[offset + 12 : offset + 12 + length]
        offset += 16 + length


def _set(names: Iterable[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"


def _shape(tensor: Tensor) -> str:
    return "[" + ",".join(map(str, tensor.shape)) + "]"


def _dtype(tensor: Tensor) -> str:
    return str(tensors.TensorProto(dtype=tensor.dtype)).split()[-1]


def _micros_since(start: float) -> int:
    return int((time.monotonic() - start) * 1e6)

