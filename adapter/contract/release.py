"""What runs here, as data: the release (the same for all its instances) and the instance.

Everything comes from who knows it: the bundle's manifest, the adapter's package, Nomad's variables and its task API.
TensorFlow Serving says its version nowhere but on its command line, so what is told is the tag of its image, and that it
is no more than that.
"""

import hashlib
import re
import socket as sockets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import orjson

import adapter
from adapter.bundle.manifest import Manifest
from adapter.group import placement
from adapter.group.placement import Placement
from adapter.settings import Settings

# Where an instance is and how it reaches its sibling: differs between instances of one release.
PER_INSTANCE = frozenset(
    {"host", "port", "tfs_grpc", "tfs_logs", "tfs_metrics_url", "bundle", "node", "advertise", "deployment"}
    | {"alloc_id", "alloc_data", "task_api", "audit_dir"}
)
_TAG = re.compile(r":v?(\d+\.\d+\.\d+(?:-rc\d+)?)(?:-[a-z0-9-]+)?(?:@|$)")


class Running:
    """The release and the instance that this process is; `look` asks Nomad for what its environment does not say."""

    def __init__(self, environ: Mapping[str, str], settings: Settings, bundle: Manifest | None, service: str) -> None:
        self._environ = environ
        self._settings = settings
        self._bundle = bundle
        self._socket = Path(settings.task_api)
        self.service = service
        self._placed(Placement())

    async def look(self) -> None:
        """Ask once; without Nomad there is nobody to ask."""
        if self._settings.alloc_id and self._socket.is_socket():
            self._placed(await placement.read(self._socket, self._settings.alloc_id))

    def _placed(self, where: Placement) -> None:
        self.release = describe(self._environ, self._settings, self._bundle, self.service, where)
        self.instance = instance(self._environ, self._settings, where)


def describe(
    environ: Mapping[str, str], settings: Settings, bundle: Manifest | None, service: str, where: Placement
) -> dict[str, Any]:
    """The release that this instance runs."""
    meta = {name.removeprefix("NOMAD_META_"): text for name, text in environ.items() if name.startswith("NOMAD_META_")}
    image = meta.get("tfs_image")
    tag = _TAG.search(image or "")
    release: dict[str, Any] = {
        "service": service,
        "bundle": _bundle(bundle, Path(settings.bundle), meta.get("bundle_checksum")),
        "adapter": {"version": adapter.__version__, "image": meta.get("adapter_image")},
        "tfs": {
            "image": image,
            "version": tag[1] if tag else None,
            "version_source": "image tag" if tag else None,
        },
        "device": meta.get("device"),
        "nomad": {
            "region": environ.get("NOMAD_REGION"),
            "namespace": environ.get("NOMAD_NAMESPACE"),
            "job": environ["NOMAD_JOB_ID"],
            "job_version": where.job_version,
            "deployment": where.deployment,
        }
        if "NOMAD_JOB_ID" in environ
        else None,
        "config_digest": digest(settings),
        "released_by": meta.get("released_by") or None,
    }
    return {"id": _id(release, settings, where), **release}


def instance(environ: Mapping[str, str], settings: Settings, where: Placement) -> dict[str, Any]:
    """This instance of it."""
    index = environ.get("NOMAD_ALLOC_INDEX")
    return {
        "allocation": environ.get("NOMAD_ALLOC_ID"),
        "index": int(index) if index is not None else None,
        "node": settings.node or where.node or sockets.gethostname(),
        "canary": where.canary,
    }


def digest(settings: Settings) -> str:
    """Of everything that is set for this release. Secrets are no settings: these hold the names of their files."""
    values = {name: value for name, value in msgspec.structs.asdict(settings).items() if name not in PER_INSTANCE}
    text = orjson.dumps(values, option=orjson.OPT_SORT_KEYS, default=str)
    return f"sha256:{hashlib.sha256(text).hexdigest()}"


def _bundle(bundle: Manifest | None, directory: Path, checksum: str | None) -> dict[str, Any] | None:
    if bundle is None:
        return None
    return {
        "name": bundle.name,
        "version": bundle.version,
        "checksum": checksum,
        "models": {model.name: model.version for model in bundle.models},
        "handler": _handler(bundle, directory) if bundle.handler else None,
        "provenance": {name: text for name, text in msgspec.structs.asdict(bundle.provenance).items() if text},
    }


def _handler(bundle: Manifest, directory: Path) -> dict[str, str]:
    """Its file, and a digest of its code: it has no version of its own."""
    code = hashlib.sha256()
    top = directory / str(bundle.handler)
    for file in sorted(top.rglob("*.py")) if top.is_dir() else [top]:
        content = file.read_bytes()
        code.update(b"%b\0%d\0%b" % (file.relative_to(directory).as_posix().encode(), len(content), content))
    return {"file": str(bundle.handler), "version": f"sha256:{code.hexdigest()}"}


def _id(release: dict[str, Any], settings: Settings, where: Placement) -> str:
    """One name for all instances of a release, another for the next: by the job's version, or as the platform says."""
    bundle = release["bundle"]
    what = f"{bundle['name']}-{bundle['version']}" if bundle else "gateway"
    if where.job_version is not None:  # a job that is purged and run again counts from 0 again
        return f"{what}.v{where.job_version}.{where.submitted or 0:x}"
    if settings.deployment:
        return f"{what}.{settings.deployment}"
    return f"{what}.{hashlib.sha256(orjson.dumps(release, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]}"
