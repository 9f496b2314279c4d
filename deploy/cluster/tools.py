"""Nomad, Consul and the OpenTelemetry Collector, built from their pinned Go modules into the cache.

All are Go modules with no other way in than `go build`; their versions are pinned in `tests/cluster/tools/<tool>/go.mod`
and their sources by the `go.sum` beside it. A cold build takes minutes, so a binary is built again only when one of
those files, or Go itself, has changed.
"""

import hashlib
import shutil
import subprocess
from pathlib import Path

from deploy.cluster.cache import cache, locked
from deploy.cluster.say import say

ROOT = Path(__file__).resolve().parents[2]
MODULES = {"nomad": "github.com/hashicorp/nomad", "consul": "github.com/hashicorp/consul", "otelcol": "."}
# The collector's sources are written by its builder, from the parts that the manifest names.
GENERATE = {
    "otelcol": (
        "go run -mod=mod go.opentelemetry.io/collector/cmd/builder --config=manifest.yaml"
        " --skip-get-modules --skip-compilation"
    )
}


def binary(tool: str) -> Path:
    """The path of an up-to-date `tool`, built first if it has to be."""
    source = ROOT / "tests" / "cluster" / "tools" / tool
    target = cache() / "bin" / tool
    key = target.with_suffix(".key")
    with locked(f"{tool}.lock"):
        wanted = _fingerprint(source)
        if target.exists() and key.exists() and key.read_text() == wanted:
            return target
        say(f"building {tool} from its Go module (minutes when cold)")
        target.parent.mkdir(parents=True, exist_ok=True)
        # Built in a copy: `-mod=mod` may write go.mod and go.sum, which are sources here.
        workplace = cache() / "build" / tool
        shutil.copytree(source, workplace, dirs_exist_ok=True)
        if tool in GENERATE:
            subprocess.run(GENERATE[tool].split(), cwd=workplace, check=True)
        # -mod=mod, because `go mod tidy` fails on both modules' test-only dependencies.
        subprocess.run(["go", "build", "-mod=mod", "-o", str(target), MODULES[tool]], cwd=workplace, check=True)
        shutil.rmtree(workplace)
        key.write_text(wanted)
    return target


def _fingerprint(source: Path) -> str:
    digest = hashlib.sha256(subprocess.run(["go", "version"], check=True, capture_output=True).stdout)
    for path in sorted(source.iterdir()):
        digest.update(path.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    for name in MODULES:
        print(binary(name))
