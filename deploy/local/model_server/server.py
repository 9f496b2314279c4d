"""Start-up, in the original's order: flags, configuration, first load, and only then the ports.

There is no way to stop it but a signal, and no handler for one: SIGTERM and SIGINT end the process at once, requests in
flight are cut, the socket file stays behind (S: model_servers/{main,server}.cc).
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from deploy.local.model_server import logs, runtime, textproto
from deploy.local.model_server import protos as pb
from deploy.local.model_server.core import Core
from deploy.local.model_server.flags import BadFlagError, Options, usage
from deploy.local.model_server.metrics import Metrics
from deploy.local.model_server.monitoring import MonitoringServer
from deploy.local.model_server.servable import Servable
from deploy.local.model_server.services import Services, start_server
from deploy.local.model_server.source import Source
from deploy.local.model_server.status import StatusError, require
from deploy.local.model_server.versions import Id, Manager
from deploy.local.model_server.warmup import warm_up

_PROGRAM = "tandem model-server"


def run(argv: Sequence[str]) -> int:
    """Serve for good; returns or exits only if there is nothing to serve."""
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
        print(f"unknown argument: {options.unknown[0]}\n{usage(_PROGRAM)}", end="", flush=True)
    try:
        _serve(options)
    except StatusError as error:
        print(f"Failed to start server. Error: {error}")
        sys.stdout.flush()
        os._exit(255)  # not `return`: loads of other versions may still be running


def _serve(options: Options) -> NoReturn:
    logs.warning(
        "server.cc:1",
        f"This is Tandem's local model server over TensorFlow {runtime.version()}, not the stock TensorFlow Serving"
        " image: no batching, no REST prediction API, no TLS, no profiler.",
    )
    if ignored := options.without_effect():
        logs.warning("server.cc:1", f"Flags without effect on Tandem's local model server: {', '.join(ignored)}")
    addresses = _addresses(options)
    config = _model_config(options)
    require(
        options.on("enable_batching") or not options.text("batching_parameters_file"),
        "server_options.batching_parameters_file is set without setting server_options.enable_batching to true.",
    )
    page = textproto.metrics_path(options.text("monitoring_config_file"))

    metrics = Metrics()
    manager = Manager(
        _loader(options, metrics),
        options.number("max_num_load_retries"),
        options.number("load_retry_interval_micros") / 1e6,
        options.number("num_load_threads"),
        options.number("num_unload_threads"),
    )
    source = Source(manager.aspire, options.number("file_system_poll_wait_seconds"))
    core = Core(manager, source, options.on("allow_version_labels_for_unavailable_models"))
    core.reload(config)
    manager.end_initial_load()

    for _ in addresses:
        logs.info("server.cc:121", "Using InsecureServerCredentials")
    if options.on("enable_profiler"):
        logs.info("server.cc:390", "Profiler service is enabled")
    services = Services(core, metrics, options.on("enable_grpc_healthcheck_service"))
    max_calls, arguments = options.number("grpc_max_threads"), options.text("grpc_channel_arguments")
    server = start_server(services, addresses.values(), max_calls, arguments)
    for place in addresses:
        logs.info("server.cc:428" if "UNIX" in place else "server.cc:425", f"Running gRPC ModelServer at {place} ...")
    _start_monitoring(options, page, metrics)
    if (seconds := options.number("model_config_file_poll_wait_seconds")) > 0:
        file = options.text("model_config_file")
        threading.Thread(target=_poll_config, args=(file, core, seconds), name="config_poll", daemon=True).start()
    while True:
        server.wait_for_termination()


def _addresses(options: Options) -> dict[str, str]:
    """What to listen on, by its name in the log."""
    port, path = options.number("port"), options.text("grpc_socket_path")
    require(port or path, "At least one of server_options.grpc_port or server_options.grpc_socket_path must be set.")
    tcp = {f"0.0.0.0:{port}": f"0.0.0.0:{port}"} if port else {}
    return tcp | ({f"UNIX socket {path}": f"unix:{path}"} if path else {})


def _model_config(options: Options) -> pb.ModelServerConfig:
    file, name, base_path = (options.text(flag) for flag in ("model_config_file", "model_name", "model_base_path"))
    if file:
        return textproto.read(file, pb.ModelServerConfig())
    require(base_path, "Both server_options.model_base_path and server_options.model_config_file are empty!")
    chosen = f" model_name: {name} model_base_path: {base_path}"
    logs.info("server.cc:77", f"Building single TensorFlow model file config: {chosen}")
    config = pb.ModelServerConfig()
    config.model_config_list.config.add(name=name, base_path=base_path, model_platform="tensorflow")
    return config


def _loader(options: Options, metrics: Metrics) -> Callable[[Id, Path], Servable]:
    file, parallelism = options.text("tensorflow_session_config_file"), options.number("tensorflow_session_parallelism")
    config = textproto.read(file, pb.ConfigProto()) if file else pb.ConfigProto()
    config.allow_soft_placement = True
    if intra := options.number("tensorflow_intra_op_parallelism") or parallelism:
        config.intra_op_parallelism_threads = intra
    if inter := options.number("tensorflow_inter_op_parallelism") or parallelism:
        config.inter_op_parallelism_threads = inter
    tags, as_content = options.text("saved_model_tags"), options.on("enable_serialization_as_tensor_content")

    def load(id_: Id, path: Path) -> Servable:
        with metrics.load_attempt(str(path)):
            session = runtime.Session(path, tags.split(","), config.SerializeToString())
        servable = Servable(id_.version, session, metrics, as_content)
        if options.on("enable_model_warmup"):
            warm_up(servable, path, max(1, options.number("num_request_iterations_for_warmup")), metrics)
        return servable

    return load


def _start_monitoring(options: Options, page: str | None, metrics: Metrics) -> None:
    port = options.number("rest_api_port")
    if not port:
        return
    if port == options.number("port"):
        text = "server_options.http_port cannot be same as grpc_port. Please use a different port for HTTP/REST API."
        logs.error("server.cc:451", f"{text} Skipped exporting HTTP/REST API.")
        return
    try:
        MonitoringServer(port, page, metrics).serve_in_background()
        logs.info("server.cc:446", f"Exporting HTTP/REST API at:localhost:{port} ...")
    except OSError:
        logs.net("evhttp_server.cc:234", f"Couldn't bind to port {port}")
        logs.error("server.cc:448", f"Failed to start HTTP Server at localhost:{port}")


def _poll_config(file: str, core: Core, seconds: int) -> None:
    """Read the model configuration again and again; a bad one is logged each time and changes nothing."""
    while True:
        try:
            config = textproto.read(file, pb.ModelServerConfig())
        except StatusError as error:
            logs.error("server.cc:167", f"Failed to read ModelServerConfig file: {error.message}")
        else:
            try:
                core.reload(config)
            except StatusError as error:
                text = f"PollFilesystemAndReloadConfig failed to ReloadConfig: {error.message}"
                logs.error("server.cc:174", text)
        threading.Event().wait(seconds)
