"""The one place where everything is wired, and the life of the process: start, serve, drain, exit.

What runs only where the settings ask for it is made in `parts.py`.

settings, bundle ─► connection ─► data plane ─► /v1, /v2 ┐
                        └──► watcher ─► group ───────────┼─► chain ─► server ─► port
log stream, metrics ─────────────────────────────────────┘
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import adapter
from adapter import memory, parts
from adapter.access.access import Access
from adapter.access.audit import Audit
from adapter.bundle import manifest
from adapter.bundle.endpoint import Predict
from adapter.bundle.service import Service
from adapter.chain import Chain
from adapter.contract import docs
from adapter.contract.changes import Changes
from adapter.contract.health import Health
from adapter.contract.metrics import Metrics
from adapter.contract.release import Running
from adapter.contract.shutdown import Shutdown
from adapter.exchange import Bodies, Handler
from adapter.group import early, ending, transitions, warmup
from adapter.group.consul import Agent
from adapter.group.drain import Drain
from adapter.group.presence import Presence
from adapter.group.state import TFS, WARM_UP, Group
from adapter.group.warmup import WarmUp
from adapter.group.watcher import Watcher
from adapter.http.server import Server
from adapter.inference.calls import Connection
from adapter.inference.channel import open_channel
from adapter.inference.plane import DataPlane
from adapter.inference.v1 import V1
from adapter.inference.v2 import V2
from adapter.settings import Settings
from adapter.telemetry import metrics, resource
from adapter.telemetry.logs import LogStream
from adapter.telemetry.scrape import Scraper

if TYPE_CHECKING:
    from adapter.telemetry.handler_spans import HandlerSpans

log = logging.getLogger(__name__)


async def serve(settings: Settings, bundle: manifest.Manifest | None, stream: LogStream, access: Access) -> int:
    """Run until drained; returns the exit status (0, or 1 when a second signal cut requests off)."""
    loop = asyncio.get_running_loop()
    stream.start()
    said = parts.said_before(settings, stream)
    models = {model.name: model.version for model in bundle.models} if bundle else {}
    requests = warmup.requests(Path(settings.bundle), bundle) if bundle else []
    own_checks = bundle.checks if bundle else ()
    checks = [TFS, *(f"model:{name}" for name in models), *own_checks, *([WARM_UP] if requests else [])]
    group = Group(checks, hang_limit=settings.tfs_hang_limit)
    otlp, tracer = parts.telemetry(stream)
    transitions.begin(group.state, tracer)
    drain = Drain(settings.shutdown_grace)
    connection = Connection(
        open_channel(settings.tfs_grpc, settings.tfs_client), settings.tfs_max_calls, settings.max_queue
    )
    url = settings.tfs_metrics_url
    scraper = Scraper(url, models, metrics.REGISTRY) if url else None
    bodies = Bodies(settings)
    coalesced = _coalesced(settings, bundle)
    plane = DataPlane(connection, coalesced, settings.tfs_max_calls, settings.max_queue, _model_calls(bundle))
    v2 = V2(plane, bodies, lambda: group.ready, "tandem", adapter.__version__)
    name = resource.resource(os.environ, (bundle.name, bundle.version) if bundle else None)["service.name"]
    running = Running(os.environ, settings, bundle, settings.service or name)
    consul = parts.agent(settings)
    changes = Changes(group, running, parts.history(settings, consul, running.service))
    routes = contract(bundle, group, bodies, drain, changes, scraper, access.demand)
    service = _service(settings, bundle, plane, group, drain, otlp.handlers)
    _own(routes, bundle, service, bodies, access.demand)
    audit = parts.audit(settings, stream, running, bodies)
    chain = Chain(
        routes=routes,
        faces={"/v1/": V1(plane, bodies, settings.cors), "/v2/": v2, "/v2": v2},
        settings=settings,
        group=group,
        stream=stream,
        headers=_headers(bundle, access.tls is not None),
        gate=access.gate,
        audit=audit,
        tracer=tracer,
    )
    early.hand_over(loop, drain.signal)
    presence = Presence(Path(settings.alloc_data)) if settings.alloc_data else None

    server = Server(chain, settings.max_body_total, settings.head_timeout, chain.refuse)
    chain.connections = server.connections
    tls = access.tls.context if access.tls is not None else None
    if settings.listen_fd >= 0:  # connections wait in it while one adapter follows another
        address = await server.listen_on(socket.socket(fileno=settings.listen_fd), tls)
    else:
        address = await server.listen(settings.host, settings.port, tls)
    _say_what_runs(settings, bundle, address, access)
    own = Server(chain.ungated(), settings.max_body_total)
    warm_up = WarmUp(requests, own, settings.request_timeout) if requests else None
    watcher = Watcher(group, connection, models, transitions.tell, warm_up)
    if scraper is not None:
        scraper.on_failed = watcher.look
    registration = parts.registration(settings, group, running, consul, address[1])
    tailer = parts.tailer(settings, stream, watcher, said)
    lasting = (watcher, changes, audit, service, registration, tailer)
    background = [asyncio.create_task(part.run()) for part in lasting if part is not None]
    if access.anything_to_follow:
        access.observe = lambda results: transitions.tell(group.observe(results, time.time()))
        background.append(asyncio.create_task(access.run()))
    background.append(asyncio.create_task(otlp.run(metrics.REGISTRY, scraper)))
    for task in background:
        task.add_done_callback(partial(_failed, drain))

    await drain.begun.wait()
    transitions.tell(group.drain(drain.reason, time.time()))
    if registration is not None:
        await registration.leave()
    all_answered = await drain.finish(server, server, settings.shutdown_delay)
    reason = "every request is answered" if all_answered else "requests in flight were cut off"
    transitions.tell(group.stop(reason, time.time()))
    if presence is not None:
        presence.leave()
    if service is not None:
        await service.close()
    status = await _status(settings, drain, all_answered)
    for task in background:
        task.cancel()
    await asyncio.gather(*background, return_exceptions=True)  # the tailer reads to the end of TFS's log
    await server.close()
    await otlp.close()
    await _close(connection, consul, scraper, audit)
    stream.stop()
    return status


def _service(
    settings: Settings,
    bundle: manifest.Manifest | None,
    plane: DataPlane,
    group: Group,
    drain: Drain,
    spans: "HandlerSpans | None",
) -> Service | None:
    """What runs the bundle's handler and compares the bundle with its models, where it has anything of that."""
    if bundle is None or not bundle.checks:
        return None
    return Service(
        Path(settings.bundle),
        bundle,
        plane,
        max_queue=settings.max_queue,
        max_memory=(settings.max_memory << 20) or memory.bound() * 9 // 10,
        tell=lambda results: transitions.tell(group.observe(results, time.time())),
        end=drain.fail,
        spans=spans,
    )


def _own(
    routes: dict[str, Mapping[str, Handler]],
    bundle: manifest.Manifest | None,
    service: Service | None,
    bodies: Bodies,
    demand: Callable[[str], str] | None,
) -> None:
    """The bundle's own resource, where it has a handler; it is described once the handler is imported."""
    if bundle is None or service is None or not bundle.handler:
        return
    routes["/predict"] = {"POST": Predict(service, bodies, bundle.limits.max_body)}
    service.on_loaded = lambda endpoint: routes.update(docs.routes(bundle, endpoint, demand))


async def _status(settings: Settings, drain: Drain, all_answered: bool) -> int:
    """The exit status; an end for good that nobody but us asked for is carried out here."""
    if drain.for_good and settings.alloc_id and not drain.signals:
        api = ending.TaskApi(Path(settings.task_api)) if settings.task_api else None
        return await ending.end(drain, settings.alloc_id, Path(settings.alloc_data), api)
    return 0 if all_answered and not drain.failed else 1


async def _close(*open_parts: Connection | Scraper | Agent | Audit | None) -> None:
    for part in open_parts:
        if part is not None:
            await part.close()


def _failed(drain: Drain, task: "asyncio.Task[None]") -> None:
    """A background task that ends by itself has failed: better started anew than blind."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("A background task failed", exc_info=error)
        drain.fail(f"internal failure: {type(error).__name__}")


def contract(
    bundle: manifest.Manifest | None,
    group: Group,
    bodies: Bodies,
    drain: Drain,
    changes: Changes,
    scraper: Scraper | None = None,
    demand: Callable[[str], str] | None = None,
) -> dict[str, Mapping[str, Handler]]:
    """The resources of the contract that have exact paths."""
    health = Health(group)
    page = Metrics(scraper)
    return {
        "/health": {"GET": health.overview, "HEAD": health.overview},
        "/health/live": {"GET": health.live, "HEAD": health.live},
        "/health/ready": {"GET": health.ready, "HEAD": health.ready},
        "/health/startup": {"GET": health.startup, "HEAD": health.startup},
        "/metrics": {"GET": page, "HEAD": page},
        "/shutdown": {"POST": Shutdown(bodies, drain.end)},
        "/changes": {"GET": changes.releases, "HEAD": changes.releases},
        "/changes/current": {"GET": changes.current, "HEAD": changes.current},
        **docs.routes(bundle, demand=demand),
    }


def _headers(bundle: manifest.Manifest | None, tls: bool) -> dict[str, str]:
    """What every answer says."""
    headers = {"X-Content-Type-Options": "nosniff"}
    if bundle is not None:
        headers["X-Bundle"] = f"{bundle.name}@{bundle.version}"
    if tls:
        headers["Strict-Transport-Security"] = "max-age=31536000"  # RFC 6797
    return headers


def _coalesced(settings: Settings, bundle: manifest.Manifest | None) -> frozenset[str]:
    if bundle is not None:
        return frozenset(model.name for model in bundle.models if model.coalesce)
    return frozenset(name.strip() for name in settings.coalesce.split(",") if name.strip())


def _model_calls(bundle: manifest.Manifest | None) -> dict[str, int]:
    return {model.name: model.max_calls for model in bundle.models if model.max_calls} if bundle else {}


def _say_what_runs(
    settings: Settings, bundle: manifest.Manifest | None, address: tuple[str, int], access: Access
) -> None:
    host, port = address
    what = f"bundle {bundle.name}@{bundle.version}" if bundle else "gateway to every model"
    attributes = {
        "event.name": "tandem.start",
        "tandem.version": adapter.__version__,
        "server.address": host,
        "server.port": port,
        "tandem.tfs_grpc": settings.tfs_grpc,
        "process.pid": os.getpid(),
    }
    log.info(
        "Serving %s at %s://%s:%d",
        what,
        "http" if access.tls is None else "https",
        host,
        port,
        extra={"attributes": attributes},
    )
    if not access.asks_for_tokens:
        log.warning("No token is asked for: whoever reaches this port may predict and shut it down")
    if not settings.tfs_metrics_url:
        log.info("TensorFlow Serving has no monitoring page here: /metrics holds the adapter's figures alone")
    metrics.TFS_METRICS_ENABLED.set(1 if settings.tfs_metrics_url else 0)
    metrics.INFO.labels(adapter.__version__, bundle.name if bundle else "", bundle.version if bundle else "").set(1)


def load_bundle(settings: Settings) -> manifest.Manifest | None:
    """The bundle that the settings name, None in gateway mode.

    Raises:
        BundleError: it cannot be read, or the job runs another version of its first model than it holds.
    """
    if not settings.bundle:
        return None
    bundle = manifest.read(Path(settings.bundle))
    if settings.model_version is not None and bundle.models[0].version != settings.model_version:
        held = ", ".join(f"{model.name} {model.version}" for model in bundle.models)
        raise manifest.BundleError(
            f"{settings.bundle}: the job says model version {settings.model_version}, the bundle holds {held}"
        )
    return bundle
