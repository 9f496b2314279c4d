"""Start-up, in the original's order: flags, configuration, first load, and only then the ports.

There is no way to stop it but a signal, and no handler for one: SIGTERM and SIGINT end the process at once, requests in
flight are cut, the socket file stays behind (S: model_servers/{main,server}.cc).
"""

import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from deploy.local.model_server import logs, runtime, textproto
from deploy.local.model_server.core import Core
from deploy.local.model_server.flags import BadFlagError, Options, usage
from deploy.local.model_server.metrics import Metrics
from deploy.local.model_server.monitoring import MonitoringServer
from deploy.local.model_server.protos import ConfigProto, ModelServerConfig
from deploy.local.model_server.servable import Servable
from deploy.local.model_server.services import Services, start_server
from deploy.local.model_server.source import Source
from deploy.local.model_server.status import StatusError, invalid_argument
from deploy.local.model_server.versions import Id, Manager, Retries

_SERVER = "tensorflow_serving/model_servers/server.cc"
_PROGRAM = "tandem model-server"
_NOTICE = (
    "This is Tandem's local model server over TensorFlow {version}, not the stock TensorFlow Serving image:"
    " no batching, no REST prediction API, no TLS, no profiler."
)


def run(argv: Sequence[str]) -> int:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    try:
        options = Options(argv)
    except BadFlagError:
        sys.stdout.write(usage(_PROGRAM))
        return 255
    if options.on("version"):
        print(f"TensorFlow ModelServer: 2.19.1 ({_PROGRAM})\nTensorFlow Library: {runtime.version()}")
        return 0
    if options.unknown:
        sys.stdout.write(f"unknown argument: {options.unknown[0]}\n{usage(_PROGRAM)}")
    try:
        _serve(options)
    except StatusError as error:
        print(f"Failed to start server. Error: {error}")
        sys.stdout.flush()
        os._exit(255)  # not `return`: loads of other versions may still be running


def _serve(options: Options) -> NoReturn:
    addresses = _grpc_addresses(options)
    config = _model_config(options)
    if options.text("batching_parameters_file") and not options.on("enable_batching"):
        raise invalid_argument(
            "server_options.batching_parameters_file is set without setting server_options.enable_batching to true."
        )
    session_config = _session_config(options)
    page = textproto.metrics_path(options.text("monitoring_config_file"))
    logs.tf("W", f"{_SERVER}:0", _NOTICE.format(version=runtime.version()))
    if ignored := options.without_effect():
        flags = ", ".join(f"--{name}" for name in ignored)
        logs.tf("W", f"{_SERVER}:0", f"Flags without effect on Tandem's local model server: {flags}")

    metrics = Metrics()
    manager: Manager[Servable] = Manager(
        _loader(options, session_config, metrics),
        Retries(options.number("max_num_load_retries"), options.number("load_retry_interval_micros") / 1e6),
        options.number("num_load_threads"),
        options.number("num_unload_threads"),
    )
    source = Source(manager.aspire, options.number("file_system_poll_wait_seconds"))
    core = Core(manager, source, options.on("allow_version_labels_for_unavailable_models"))
    manager.start()
    core.reload(config)
    manager.end_initial_load()

    for _ in addresses:
        logs.tf("I", f"{_SERVER}:121", "Using InsecureServerCredentials")
    if options.on("enable_profiler"):
        logs.tf("I", f"{_SERVER}:390", "Profiler service is enabled")
    services = Services(core, metrics, options.on("enable_grpc_healthcheck_service"))
    server = start_server(
        services,
        list(addresses.values()),
        options.number("grpc_max_threads"),
        options.text("grpc_channel_arguments"),
    )
    for place in addresses:
        logs.tf("I", f"{_SERVER}:425", f"Running gRPC ModelServer at {place} ...")
    _start_monitoring(options, page, metrics)
    if (seconds := options.number("model_config_file_poll_wait_seconds")) > 0:
        _poll_config(options.text("model_config_file"), core, seconds)
    while True:
        server.wait_for_termination()


def _grpc_addresses(options: Options) -> dict[str, str]:
    """What to listen on, by its name in the log."""
    port, socket = options.number("port"), options.text("grpc_socket_path")
    if not port and not socket:
        raise invalid_argument(
            "At least one of server_options.grpc_port or server_options.grpc_socket_path must be set."
        )
    addresses = {}
    if port:
        addresses[f"0.0.0.0:{port}"] = f"0.0.0.0:{port}"
    if socket:
        addresses[f"UNIX socket {socket}"] = f"unix:{socket}"
    return addresses


def _model_config(options: Options) -> ModelServerConfig:
    file, base_path, name = (options.text(flag) for flag in ("model_config_file", "model_base_path", "model_name"))
    if file:
        return textproto.read(file, ModelServerConfig())
    if not base_path:
        raise invalid_argument(
            "Both server_options.model_base_path and server_options.model_config_file are empty!"
        )
    logs.tf(
        "I",
        f"{_SERVER}:77",
        f"Building single TensorFlow model file config:  model_name: {name} model_base_path: {base_path}",
    )
    config = ModelServerConfig()
    config.model_config_list.config.add(name=name, base_path=base_path, model_platform="tensorflow")
    return config


def _session_config(options: Options) -> bytes:
    file = options.text("tensorflow_session_config_file")
    config = textproto.read(file, ConfigProto()) if file else ConfigProto()
    both = options.number("tensorflow_session_parallelism")
    if intra := options.number("tensorflow_intra_op_parallelism") or both:
        config.intra_op_parallelism_threads = intra
    if inter := options.number("tensorflow_inter_op_parallelism") or both:
        config.inter_op_parallelism_threads = inter
    config.allow_soft_placement = True
    return bytes(config.SerializeToString())


def _loader(options: Options, session_config: bytes, metrics: Metrics):  # type: ignore[no-untyped-def]
    tags = options.text("saved_model_tags").split(",")
    iterations = max(1, options.number("num_request_iterations_for_warmup"))

    def load(id_: Id, path: Path) -> Servable:
        with metrics.load_attempt(str(path)):
            session = runtime.Session(path, tags, session_config)
        servable = Servable(
            id_.version, session, metrics, options.on("enable_serialization_as_tensor_content")
        )
        if options.on("enable_model_warmup"):
            servable.warm_up(path, iterations)
        return servable

    return load


def _start_monitoring(options: Options, page: str | None, metrics: Metrics) -> None:
    port = options.number("rest_api_port")
    if not port:
        return
    if port == options.number("port"):
        logs.tf(
            "E",
            f"{_SERVER}:451",
            "server_options.http_port cannot be same as grpc_port. Please use a different port for HTTP/REST API."
            " Skipped exporting HTTP/REST API.",
        )
        return
    try:
        monitoring = MonitoringServer(port, page, metrics)
    except OSError:
        logs.net("evhttp_server.cc", 234, f"Couldn't bind to port {port}")
        logs.tf("E", f"{_SERVER}:448", f"Failed to start HTTP Server at localhost:{port}")
        return
    monitoring.serve_in_background()
    logs.tf("I", f"{_SERVER}:446", f"Exporting HTTP/REST API at:localhost:{port} ...")


def _poll_config(file: str, core: Core, seconds: int) -> None:
    """Read the model configuration again and again; a bad one is logged each time and changes nothing."""

    def poll() -> None:
        pause = threading.Event()
        while True:
            try:
                config = textproto.read(file, ModelServerConfig())
                try:
                    core.reload(config)
                except StatusError as error:
                    message = f"PollFilesystemAndReloadConfig failed to ReloadConfig: {error.message}"
                    logs.tf("E", f"{_SERVER}:174", message)
            except StatusError as error:
                logs.tf("E", f"{_SERVER}:167", f"Failed to read ModelServerConfig file: {error.message}")
            pause.wait(seconds)

    threading.Thread(target=poll, name="config_poll", daemon=True).start()
