"""Schemathesis over the live service, with all its checks, against the document that the service itself serves."""

import subprocess
import sys
from pathlib import Path

from tests.contract.services import service
from tests.tokens import token

SECONDS = 40
HERE = Path(__file__).parent


def test_the_service_keeps_to_its_own_document(tmp_path: Path) -> None:
    with service(tmp_path) as adapter:
        # Without `admin`: /shutdown is asked too, and answers 403.
        command = [
            str(Path(sys.executable).with_name("schemathesis")),
            "--config-file",
            str(HERE / "schemathesis.toml"),
        ]
        command += ["run", f"http://127.0.0.1:{adapter.port}/openapi.json", f"--max-time={SECONDS}"]
        # Infinities, which a large enough double becomes in float32, are bare tokens otherwise: JSON Schema knows no such values.
        command += ["--header", "Prefer: nonfinite=null"]
        command += ["--no-color", "--header", f"Authorization: Bearer {token('HS256', scope='predict metrics docs')}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS + 120, cwd=tmp_path)
        assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-2000:]
        for phase in ("Examples", "Coverage", "Fuzzing", "Stateful"):
            assert f"✅ {phase}" in done.stdout
        assert adapter.request("GET", "/health").status == 200
        assert not [record for record in adapter.records if record["body"] == "Unexpected failure"]
