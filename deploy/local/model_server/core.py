"""The model server without its transports: configuration, labels, and the way from a request to its servable.

S: model_servers/server_core.cc, get_model_status_impl.cc, model_service_impl.cc, servables/tensorflow/
get_model_metadata_impl.cc.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from deploy.local.model_server import logs
from deploy.local.model_server.protos import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    GetModelStatusRequest,
    GetModelStatusResponse,
    ModelConfig,
    ModelServerConfig,
    ModelSpec,
    ReloadConfigRequest,
    ReloadConfigResponse,
    SignatureDefMap,
)
from deploy.local.model_server.servable import Servable
from deploy.local.model_server.source import Model, Policy, Source
from deploy.local.model_server.status import Code, StatusError, from_number, invalid_argument
from deploy.local.model_server.versions import Manager

_SERVER_CORE = "tensorflow_serving/model_servers/server_core.cc"
_MODEL_SERVICE = "tensorflow_serving/model_servers/model_service_impl.cc"
_TENSORFLOW = 1  # the deprecated ModelConfig.model_type


class Core:
    def __init__(self, manager: Manager[Servable], source: Source, labels_for_unavailable: bool) -> None:
        self._manager = manager
        self._source = source
        self._labels_for_unavailable = labels_for_unavailable
        self._lock = threading.Lock()
        self._platforms: dict[str, str] = {}
        self._labels: dict[str, dict[str, int]] = {}

    # Configuration.

    def reload(self, config: ModelServerConfig) -> None:
        """Take over a configuration as a whole, or raise and keep the old one; returns once new models are available."""
        with self._lock:
            if not config.WhichOneof("config"):
                logs.tf("I", f"{_SERVER_CORE}:451", "Taking no action for empty config.")
                return
            models = config.model_config_list.config
            self._check(models)
            self._labels = self._checked_labels(models)
            logs.tf("I", f"{_SERVER_CORE}:481", "Adding/updating models.")
            for model in models:
                logs.tf("I", f"{_SERVER_CORE}:610", f" (Re-)adding model: {model.name}")
                if (platform := _platform(model)) != "tensorflow":
                    raise StatusError(
                        Code.FAILED_PRECONDITION, f"PlatformConfigMap has no entry for platform {platform}"
                    )
            self._platforms = {model.name: _platform(model) for model in models}
            added = self._source.watch(tuple(Model(model.name, model.base_path, _policy(model)) for model in models))
            self._manager.wait_until_available(added)
            logs.tf("I", f"{_SERVER_CORE}:502", "Finished adding/updating models")

    def _check(self, models: Sequence[ModelConfig]) -> None:
        names = [model.name for model in models]
        for model in models:
            if names.count(model.name) > 1:
                raise invalid_argument(f"Illegal to list model {model.name} multiple times in config list")
            if not model.base_path.startswith("/"):
                raise invalid_argument(
                    f"Expected model {model.name} to have an absolute path or URI; got base_path()={model.base_path}"
                )
        for model in models:
            if (old := self._platforms.get(model.name)) and (new := _platform(model)) != old:
                raise invalid_argument(
                    f"Illegal to change a model's platform. For model {model.name} platform was {old}"
                    f" and new platform requested is {new}"
                )

    def _checked_labels(self, models: Sequence[ModelConfig]) -> dict[str, dict[str, int]]:
        """A label may name an available version only; a label not yet in use may, if so configured, name any."""
        for model in models:
            for label, version in model.version_labels.items():
                moved = self._labels.get(model.name, {}).get(label, version) != version
                if self._labels_for_unavailable and not moved:
                    continue
                if not self._manager.is_available(model.name, version):
                    raise StatusError(
                        Code.FAILED_PRECONDITION,
                        f"Request to assign label to version {version} of model {model.name},"
                        " which is not currently available for inference",
                    )
        return {model.name: dict(model.version_labels) for model in models}

    def handle_reload(self, request: ReloadConfigRequest, _timeout_ms: int | None = None) -> ReloadConfigResponse:
        try:
            if request.config.WhichOneof("config") != "model_config_list":
                raise invalid_argument(
                    "ServerModelConfig type not supported by HandleReloadConfigRequest."
                    " Only ModelConfigList is currently supported"
                )
            for index, model in enumerate(request.config.model_config_list.config):
                entry = f"\nConfig entry\n\tindex : {index}\n\tpath : {model.base_path}\n\tname : {model.name}"
                logs.tf("I", f"{_MODEL_SERVICE}:57", f"{entry}\n\tplatform : {model.model_platform}")
            self.reload(request.config)
        except StatusError as error:
            logs.tf("E", f"{_MODEL_SERVICE}:73", f"ReloadConfig failed: {error.message}")
            raise
        response = ReloadConfigResponse()
        response.status.SetInParent()
        for name in request.metric_names:
            response.metric.add(name=name, int64_value_increase=0)
        return response

    # Requests.

    @contextmanager
    def servable(self, spec: ModelSpec) -> Iterator[tuple[Servable, int]]:
        """The servable a model spec asks for, and its version."""
        if not spec.name:
            raise invalid_argument("ModelSpec has no name specified.")
        version: int | None = None
        match spec.WhichOneof("version_choice"):
            case "version":
                version = spec.version.value
            case "version_label":
                version = self._labels.get(spec.name, {}).get(spec.version_label)
                if version is None:
                    raise invalid_argument(f"Unrecognized servable version label: {spec.version_label}")
        with self._manager.use(spec.name, version) as found:
            yield found

    def status(self, request: GetModelStatusRequest, _timeout_ms: int | None = None) -> GetModelStatusResponse:
        """Labels are ignored here, as they are there."""
        spec = _spec_of(request)
        versions = self._manager.states(spec.name)
        if not versions:
            raise StatusError(Code.NOT_FOUND, f"Could not find any versions of model {spec.name}")
        if spec.HasField("version"):
            versions = [version for version in versions if version.id.version == spec.version.value]
            if not versions:
                raise StatusError(
                    Code.NOT_FOUND, f"Could not find version {spec.version.value} of model {spec.name}"
                )
        response = GetModelStatusResponse()
        for version in versions:
            error = version.error or from_number(0, "")
            item = response.model_version_status.add(version=version.id.version, state=int(version.state))
            item.status.SetInParent()
            item.status.error_code, item.status.error_message = error.code.value[0], error.message
        return response

    def metadata(self, request: GetModelMetadataRequest, _timeout_ms: int | None = None) -> GetModelMetadataResponse:
        spec = _spec_of(request)
        if not request.metadata_field:
            raise invalid_argument("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != "signature_def":
                raise invalid_argument(f"Metadata field {field} is not supported")
        response = GetModelMetadataResponse(model_spec=ModelSpec(name=spec.name))
        with self.servable(spec) as (servable, version):
            response.model_spec.version.value = version
            response.metadata["signature_def"].Pack(SignatureDefMap(signature_def=servable.signatures))
        return response


def _spec_of(request: GetModelStatusRequest | GetModelMetadataRequest) -> ModelSpec:
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")
    return request.model_spec


def _platform(model: ModelConfig) -> str:
    platform = model.model_platform or ("tensorflow" if model.model_type == _TENSORFLOW else "")
    if not platform:
        raise invalid_argument(
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor ModelServerConfig::model_platform,"
            f" model name is {model.name}"
        )
    return str(platform)


def _policy(model: ModelConfig) -> Policy:
    policy = model.model_version_policy
    match policy.WhichOneof("policy_choice"):
        case "all":
            return Policy(every=True)
        case "specific":
            return Policy(specific=frozenset(policy.specific.versions))
        case _:
            return Policy(latest=policy.latest.num_versions or 1)
