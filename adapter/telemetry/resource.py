"""One resource for both tasks: who speaks, in OpenTelemetry's resource attributes (semantic conventions, `service.*`).

`service.instance.id` is the allocation, not the task: the group is one instance. There is no `nomad.*` namespace in the
conventions; ours is documented in `docs/telemetry.md`.
"""

import os
import socket
import uuid
from collections.abc import Mapping

from adapter.telemetry.otel_env import resource_attributes

NOMAD = {
    "nomad.namespace": "NOMAD_NAMESPACE",
    "nomad.region": "NOMAD_REGION",
    "nomad.dc": "NOMAD_DC",
    "nomad.job.id": "NOMAD_JOB_ID",
    "nomad.group.name": "NOMAD_GROUP_NAME",
    "nomad.alloc.id": "NOMAD_ALLOC_ID",
    "nomad.alloc.index": "NOMAD_ALLOC_INDEX",
}


def resource(environ: Mapping[str, str], bundle: tuple[str, str] | None) -> dict[str, str]:
    """The attributes, from `NOMAD_*` and the bundle's (name, version); OTEL_RESOURCE_ATTRIBUTES goes before both.

    What says who speaks stays the allocation's and the bundle's: `service.instance.id`, `service.version`, `nomad.*`.
    """
    given = resource_attributes(environ)
    name = environ.get("OTEL_SERVICE_NAME") or given.get("service.name") or environ.get("NOMAD_JOB_NAME")
    attributes = {
        "service.name": name or (bundle or ("tandem",))[0],
        "service.instance.id": _instance(environ),
        "host.name": given.get("host.name") or socket.gethostname(),
    }
    if namespace := given.get("service.namespace") or environ.get("NOMAD_NAMESPACE"):
        attributes["service.namespace"] = namespace
    if bundle:
        attributes["service.version"] = bundle[1]
    if stage := given.get("deployment.environment.name") or environ.get("NOMAD_META_environment"):
        attributes["deployment.environment.name"] = stage
    attributes.update({key: environ[variable] for key, variable in NOMAD.items() if variable in environ})
    return {**given, **attributes}


def _instance(environ: Mapping[str, str]) -> str:
    """A UUID that is the same for both tasks and across their restarts: version 5, of the allocation's id."""
    if "NOMAD_ALLOC_ID" in environ:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, environ["NOMAD_ALLOC_ID"]))
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{socket.gethostname()}/{os.getpid()}"))
