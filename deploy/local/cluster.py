"""`make cluster` and `make cluster-down`: a real Nomad, Consul and Docker on this machine, running the production job.

The same parts as in the cluster tests (`deploy.cluster`), left running until `down`, which leaves nothing but the cache.
"""

import sys
import tempfile
from pathlib import Path

from deploy.bundle import archive, source
from deploy.bundle.pack import pack
from deploy.cluster.cluster import Cluster, machine, missing
from deploy.cluster.process import ClusterError

JOB = Path(__file__).resolve().parents[2] / "jobs" / "serving.nomad.hcl"


def up(bundle: Path) -> int:
    """Start the cluster unless it runs, release `bundle` on it, and say how to reach it. Returns the exit status."""
    if reason := missing():
        print(f"tandem: no cluster can run here: {reason}", file=sys.stderr)
        return 1
    try:
        with machine():
            cluster = Cluster.found() or Cluster.start(kept=True)
            print(_release(cluster, bundle))
    except ClusterError as error:
        print(f"tandem: {error}", file=sys.stderr)
        return 1
    return 0


def down() -> int:
    """Stop the cluster and remove what it left. Returns the exit status."""
    with machine():
        cluster = Cluster.found()
        if cluster is None:
            print("tandem: no cluster is running", file=sys.stderr)
        else:
            cluster.stop()
    return 0


def _release(cluster: Cluster, bundle: Path) -> str:
    with tempfile.TemporaryDirectory() as directory:
        packed = Path(directory) / f"{bundle.name}{archive.SUFFIX}"
        pack(bundle, packed)
        published = cluster.bundles.publish(packed)
    manifest = source.build(bundle)
    model = manifest.models[0]
    name = manifest.name.replace("_", "-").lower()
    variables = {
        "name": name,
        "bundle_url": published.url,
        "bundle_checksum": published.checksum,
        "model_version": model.version,
        "tfs_image": cluster.images.model_server,
        "adapter_image": cluster.images.adapter,
        "min_healthy_time": 1,
    }
    cluster.nomad.run(JOB, variables)
    cluster.nomad.deployed(name, seconds=180)
    (address,) = cluster.consul.passing(name, 1, seconds=30)
    request = bundle / "request.json"
    body = f"@{request}" if request.exists() else "'{\"instances\": [...]}'"
    return "\n".join(
        (
            f"{manifest.name}@{manifest.version} runs on Nomad: http://{address}",
            f"  call it      curl -d {body} http://{address}/v1/models/{model.name}:predict",
            f"  its health   curl http://{address}/health",
            f"  find it      dig @127.0.0.1 -p {cluster.consul.dns_port} +short {name}.service.consul SRV",
            f"  its tasks    NOMAD_ADDR=http://{cluster.nomad.address} {cluster.nomad.program} job status {name}",
            f"  Consul       http://{cluster.consul.address}/ui",
            "  stop it all  make cluster-down",
        )
    )
