"""Parts of the house that run only where the settings ask for them; each function gives None, or nothing, where they do not."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import adapter
from adapter.access.audit import Audit
from adapter.contract.history import History
from adapter.contract.release import Running
from adapter.exchange import Bodies
from adapter.group.consul import Agent
from adapter.group.registration import Registration, address_of
from adapter.group.state import Group
from adapter.group.watcher import Watcher
from adapter.settings import Settings
from adapter.telemetry import otel_env
from adapter.telemetry.logs import LogStream
from adapter.telemetry.own_log import OwnLog
from adapter.telemetry.tailer import Tailer
from adapter.telemetry.traces import Nowhere, Tracer

if TYPE_CHECKING:
    from adapter.telemetry.otlp import Otlp

log = logging.getLogger(__name__)


def agent(settings: Settings) -> Agent | None:
    """The Consul agent, where there is one."""
    if not settings.consul_addr:
        return None
    return Agent(settings.consul_addr, settings.consul_token_file, settings.consul_ca_file)


def history(settings: Settings, consul: Agent | None, service: str) -> History | None:
    """The history of the service in Consul, where there is one."""
    if consul is None:
        return None
    namespace = os.environ.get("NOMAD_NAMESPACE", "default")
    return History(consul, settings.consul_prefix, namespace, service, settings.changes_kept)


def registration(
    settings: Settings, group: Group, running: Running, consul: Agent | None, port: int
) -> Registration | None:
    """This instance's registration with Consul, where it is asked for."""
    if consul is None or not settings.consul_register:
        return None
    host, port = address_of(settings.advertise, settings.host, port, settings.consul_addr)
    bundle = running.release["bundle"] or {"name": "", "version": ""}
    meta = {
        "bundle": bundle["name"],
        "version": bundle["version"],
        "device": running.release["device"] or "",
        "adapter": adapter.__version__,
    }
    tags = [tag.strip() for tag in settings.consul_tags.split(",") if tag.strip()]
    name = running.service
    secure = bool(settings.tls_certificate)
    return Registration(
        consul, group, name, f"{name}-{host}-{port}", (host, port), tags, meta, settings.consul_check, tls=secure
    )


def audit(settings: Settings, stream: LogStream, running: Running, bodies: Bodies) -> Audit | None:
    """The audit, where it is asked for, told of each body that is read."""
    if not settings.audit:
        return None
    bundle = running.release["bundle"]
    about = {
        "service": running.service,
        "instance": running.instance["allocation"] or running.instance["node"],
        "bundle": f"{bundle['name']}@{bundle['version']}" if bundle else None,
    }
    found = Audit(settings, stream, about)
    bodies.on_read = found.input
    return found


def telemetry(stream: LogStream) -> tuple["Otlp | Nowhere", Tracer]:
    """What leaves by OTLP, if anything does, and who makes the spans."""
    otel = otel_env.read(os.environ)
    for problem in otel.problems:
        log.warning("%s", problem)
    otlp: Otlp | Nowhere = Nowhere()
    if otel.signals:
        for name in otel.ignored:  # the SDK would stumble over it, even while it is imported
            del os.environ[name]
        from adapter.telemetry import otlp as exporters  # takes memory, so only where it is asked for

        otlp = exporters.Otlp(otel, os.environ, stream)
    return otlp, Tracer(otel.sampling, otlp.span, tracecontext=otel.tracecontext, baggage=otel.baggage)


def said_before(settings: Settings, stream: LogStream) -> Mapping[str, tuple[int, int]]:
    """How far an adapter before this one has said TensorFlow Serving's log; to be asked before anything is logged."""
    if not settings.tfs_logs:
        return {}
    own = OwnLog(Path(settings.tfs_logs) / f"{os.environ.get('NOMAD_TASK_NAME', 'adapter')}.stdout")
    if own.torn:
        stream.mend()
    return own.said()


def tailer(
    settings: Settings, stream: LogStream, watcher: Watcher, said: Mapping[str, tuple[int, int]]
) -> Tailer | None:
    """What follows TensorFlow Serving's log, where there are files of it; failures that it finds there are the watcher's."""
    if not settings.tfs_logs:
        return None
    return Tailer(Path(settings.tfs_logs), stream, watcher.note_failure, said=said, allocation=settings.alloc_id)
