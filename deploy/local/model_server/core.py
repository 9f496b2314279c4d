"""The model server without its transports: configuration, labels, and the way from a request to its servable.

S: model_servers/{server_core,get_model_status_impl,model_service_impl}.cc, servables/tensorflow/
get_model_metadata_impl.cc.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from grpc import StatusCode

from deploy.local.model_server import logs
from deploy.local.model_server import protos as pb
from deploy.local.model_server.servable import Servable
from deploy.local.model_server.source import Model, Source
from deploy.local.model_server.status import StatusError, require
from deploy.local.model_server.versions import Manager


class Core:
    def __init__(self, manager: Manager[Servable], source: Source, labels_for_unavailable: bool) -> None:
        self._manager = manager
        self._source = source
        self._labels_for_unavailable = labels_for_unavailable
        self._reloading = threading.Lock()
        self._platforms: dict[str, str] = {}
        self._labels: dict[str, dict[str, int]] = {}

    def reload(self, config: pb.ModelServerConfig) -> None:
        """Take over a configuration as a whole, or raise and keep the old one; returns once new models are available."""
        with self._reloading:
            if not config.WhichOneof("config"):
                logs.info("server_core.cc:451", "Taking no action for empty config.")
                return
            models = config.model_config_list.config
            self._check(models)
            self._labels = self._checked_labels(models)
            logs.info("server_core.cc:481", "Adding/updating models.")
            for model in models:
                logs.info("server_core.cc:610", f" (Re-)adding model: {model.name}")
                unknown = f"PlatformConfigMap has no entry for platform {_platform(model)}"
                require(_platform(model) == "tensorflow", unknown, StatusCode.FAILED_PRECONDITION)
            self._platforms = {model.name: _platform(model) for model in models}
            added = self._source.watch(tuple(_watched(model) for model in models))
            self._manager.wait_until_available(added)
            logs.info("server_core.cc:502", "Finished adding/updating models")

    def _check(self, models: Sequence[pb.ModelConfig]) -> None:
        names = [model.name for model in models]
        for name, path in ((model.name, model.base_path) for model in models):
            require(names.count(name) == 1, f"Illegal to list model {name} multiple times in config list")
            relative = f"Expected model {name} to have an absolute path or URI; got base_path()={path}"
            require(path.startswith("/"), relative)
        for model in models:
            if old := self._platforms.get(model.name):
                change = f"platform was {old} and new platform requested is {_platform(model)}"
                text = f"Illegal to change a model's platform. For model {model.name} {change}"
                require(_platform(model) == old, text)

    def _checked_labels(self, models: Sequence[pb.ModelConfig]) -> dict[str, dict[str, int]]:
        """A label may name an available version only; a label not yet in use may, if so configured, name any."""
        for model in models:
            for label, version in sorted(model.version_labels.items()):
                moves = self._labels.get(model.name, {}).get(label, version) != version
                require(
                    self._manager.available(model.name, version) or (self._labels_for_unavailable and not moves),
                    f"Request to assign label to version {version} of model {model.name},"
                    " which is not currently available for inference",
                    StatusCode.FAILED_PRECONDITION,
                )
        return {model.name: dict(model.version_labels) for model in models}

    def handle_reload(self, request: pb.ReloadConfigRequest, _timeout_ms: int | None) -> pb.ReloadConfigResponse:
        try:
            require(
                request.config.WhichOneof("config") == "model_config_list",
                "ServerModelConfig type not supported by HandleReloadConfigRequest."
                " Only ModelConfigList is currently supported",
            )
            for index, model in enumerate(request.config.model_config_list.config):
                entry = f"\n\tindex : {index}\n\tpath : {model.base_path}\n\tname : {model.name}"
                entry += f"\n\tplatform : {model.model_platform}"
                logs.info("model_service_impl.cc:57", f"\nConfig entry{entry}")
            self.reload(request.config)
        except StatusError as error:
            logs.error("model_service_impl.cc:73", f"ReloadConfig failed: {error.message}")
            raise
        response = pb.ReloadConfigResponse()
        response.status.SetInParent()
        for name in request.metric_names:
            response.metric.add(name=name, int64_value_increase=0)
        return response

    @contextmanager
    def servable(self, spec: pb.ModelSpec) -> Iterator[tuple[Servable, int]]:
        """The servable a model spec asks for, and its version."""
        require(spec.name, "ModelSpec has no name specified.")
        version = spec.version.value if spec.HasField("version") else None
        if spec.HasField("version_label"):
            version = self._labels.get(spec.name, {}).get(spec.version_label)
            require(version is not None, f"Unrecognized servable version label: {spec.version_label}")
        with self._manager.use(spec.name, version) as found:
            yield found

    def status(self, request: pb.GetModelStatusRequest, _timeout_ms: int | None) -> pb.GetModelStatusResponse:
        """Labels are ignored here, as they are there."""
        require(request.HasField("model_spec"), "Missing ModelSpec")
        name, version = request.model_spec.name, request.model_spec.version.value
        states = self._manager.states(name)
        require(states, f"Could not find any versions of model {name}", StatusCode.NOT_FOUND)
        if request.model_spec.HasField("version"):
            states = [state for state in states if state.id.version == version]
            require(states, f"Could not find version {version} of model {name}", StatusCode.NOT_FOUND)
        response = pb.GetModelStatusResponse()
        for state in states:
            item = response.model_version_status.add(version=state.id.version, state=int(state.state))
            item.status.SetInParent()
            if state.error:
                item.status.error_code = state.error.code.value[0]
                item.status.error_message = state.error.message
        return response

    def metadata(self, request: pb.GetModelMetadataRequest, _timeout_ms: int | None) -> pb.GetModelMetadataResponse:
        require(request.HasField("model_spec"), "Missing ModelSpec")
        require(request.metadata_field, "GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            require(field == "signature_def", f"Metadata field {field} is not supported")
        with self.servable(request.model_spec) as (servable, version):
            response = pb.GetModelMetadataResponse(model_spec=pb.ModelSpec(name=request.model_spec.name))
            response.model_spec.version.value = version
            response.metadata["signature_def"].Pack(pb.SignatureDefMap(signature_def=servable.signatures))
            return response


def _platform(model: pb.ModelConfig) -> str:
    platform = model.model_platform or ("tensorflow" if model.model_type == 1 else "")  # 1: the deprecated TENSORFLOW
    require(
        platform,
        "Illegal setting neither ModelServerConfig::model_type (deprecated) nor ModelServerConfig::model_platform,"
        f" model name is {model.name}",
    )
    return str(platform)


def _watched(model: pb.ModelConfig) -> Model:
    policy = model.model_version_policy
    return Model(
        model.name,
        model.base_path,
        latest=policy.latest.num_versions or 1,
        specific=frozenset(policy.specific.versions),
        every=policy.HasField("all"),
    )
