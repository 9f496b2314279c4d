"""The production job file, and the least that it must be given."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
JOB = ROOT / "jobs" / "serving.nomad.hcl"
VAR_FILES = sorted((ROOT / "jobs" / "vars").glob("*.hcl"))
REQUIRED: dict[str, object] = {
    "name": "x",
    "bundle_url": "https://bundles.example.com/x.tar.zst",
    "bundle_checksum": f"sha256:{'0' * 64}",
    "model_version": 1,
}
