"""One resource for both tasks: who speaks, in OpenTelemetry's resource attributes (semantic conventions, `service.*`).

`service.instance.id` is the allocation, not the task: the group is one instance. There is no `nomad.*` namespace in the
conventions; ours is documented in `docs/telemetry.md`.
"""

import os
import socket
import uuid
from collections.abc import Mapping

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
    """The attributes, from `NOMAD_*`, `OTEL_SERVICE_NAME` and the bundle's (name, version)."""
    attributes = {
        "service.name": environ.get("OTEL_SERVICE_NAME") or environ.get("NOMAD_JOB_NAME") or (bundle or ("tandem",))[0],
        "service.instance.id": _instance(environ),
        "host.name": socket.gethostname(),
    }
    if bundle:
        attributes["service.version"] = bundle[1]
    attributes.update({key: environ[variable] for key, variable in NOMAD.items() if variable in environ})
    return attributes


def _instance(environ: Mapping[str, str]) -> str:
    """A UUID that is the same for both tasks and across their restarts: version 5, of the allocation's id."""
    if "NOMAD_ALLOC_ID" in environ:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, environ["NOMAD_ALLOC_ID"]))
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{socket.gethostname()}/{os.getpid()}"))
