"""The audit of a real adapter: who did what, in the log stream and in files that show what is done to them."""

import hashlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from adapter.access.ledger import segments
from adapter.access.ledger_check import verify
from tests.adapter.conftest import HALF_PLUS_TWO
from tests.adapters import Adapter, Record, event
from tests.metrics import read_text, value
from tests.servers import ModelServer
from tests.tokens import AUDIENCE, ISSUER, SECRET, token

PREDICT = "/v1/models/half_plus_two:predict"
BODY = json.dumps({"instances": [1.0, 2.0], "customer": "4711"})
DIGEST = f"sha256:{hashlib.sha256(BODY.encode()).hexdigest()}"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unpacked bundle of half_plus_two, version 1."""
    top = tmp_path_factory.mktemp("bundle")
    (top / "models" / "half_plus_two").mkdir(parents=True)
    (top / "models" / "half_plus_two" / "1").symlink_to(HALF_PLUS_TWO / "1")
    (top / "bundle.toml").write_text(
        'name = "halves"\nversion = "1.2.3"\n[[models]]\nname = "half_plus_two"\nversion = 1\n'
    )
    return top


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[ModelServer]:
    flags = ["--model_name=half_plus_two", f"--model_base_path={bundle / 'models' / 'half_plus_two'}"]
    with ModelServer(*flags, "--grpc_max_threads=8") as running:
        yield running


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(SECRET)
    return path


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "audit"


@pytest.fixture
def adapter(server: ModelServer, bundle: Path, secret: Path, directory: Path) -> Iterator[Adapter]:
    """An adapter that asks for tokens and records all."""
    with Adapter(
        tfs_grpc=server.target,
        bundle=bundle,
        audit=1,
        audit_dir=directory,
        jwt_secret_file=secret,
        jwt_issuer=ISSUER,
        jwt_audience=AUDIENCE,
    ) as running:
        yield running.ready()


def bearer(**claims: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {token('HS256', **claims)}"}


def told(adapter: Adapter) -> list[Record]:
    """The audit's records in the log stream."""
    return [record for record in adapter.records if event("tandem.audit")(record)]


def filed(directory: Path) -> list[Any]:
    """The audit's records in its files, from which nothing is missing."""
    report = verify(directory)
    assert report.problems == []
    lines = [line for path in segments(directory, "audit").values() for line in path.read_text().splitlines()]
    events = [json.loads(line)["event"] for line in lines]
    return [one for one in events if one["event.name"] == "tandem.audit"]


def test_a_prediction_is_recorded_with_who_and_what_and_a_digest_of_the_input(
    adapter: Adapter, directory: Path
) -> None:
    headers = {**bearer(sub="ann", scope="predict", tenant="shop"), "X-Request-Id": "checkout-7"}
    assert adapter.request("POST", PREDICT, BODY, headers).status == 200
    assert adapter.stop() == 0
    (record,) = filed(directory)
    assert record == {
        "event.name": "tandem.audit",
        "audit.action": "predict",
        "audit.decision": "allowed",
        "audit.subject": "ann",
        "audit.issuer": ISSUER,
        "tandem.tenant": "shop",
        "tandem.bundle": "halves@1.2.3",
        "tandem.model": "half_plus_two",
        "http.request.id": "checkout-7",
        "http.request.method": "POST",
        "http.route": record["http.route"],
        "http.response.status_code": 200,
        "client.address": "127.0.0.1",
        "audit.input.digest": DIGEST,
        "audit.input.bytes": len(BODY),
    }
    (same,) = told(adapter)
    assert same["attributes"].items() >= record.items()
    assert "4711" not in json.dumps(adapter.records)
    assert "4711" not in "".join(path.read_text() for path in directory.iterdir())


def test_refusals_and_admin_acts_are_recorded_and_reading_is_not(adapter: Adapter, directory: Path) -> None:
    adapter.request("POST", PREDICT, BODY)
    adapter.request("POST", PREDICT, BODY, bearer(sub="bob", scope="metrics"))
    adapter.request("GET", "/metrics")
    adapter.request("GET", "/metrics", headers=bearer(scope="metrics"))
    adapter.request("GET", "/health")
    adapter.request("POST", PREDICT, "{}", bearer(sub="ann", scope="predict"))
    adapter.request("POST", "/shutdown", "{}", bearer(sub="eve", scope="admin"))
    adapter.wait()
    seen = [(r["audit.action"], r["audit.decision"], r.get("audit.subject")) for r in filed(directory)]
    assert seen == [
        ("predict", "denied", None),
        ("predict", "denied", "bob"),
        ("access", "denied", None),
        ("predict", "failed", "ann"),
        ("shutdown", "allowed", "eve"),
    ]


def test_the_log_stream_is_told_where_the_files_end(adapter: Adapter, directory: Path) -> None:
    adapter.request("POST", PREDICT, BODY)
    adapter.stop()
    head = adapter.wait_for(event("tandem.audit.head"))["attributes"]
    assert verify(directory, head=(head["audit.seq"], head["audit.hash"])).problems == []
    command = [sys.executable, "-m", "deploy.cli", "audit", "verify", str(directory)]
    whole = subprocess.run([*command, f"--head={head['audit.seq']}:{head['audit.hash']}"], capture_output=True)
    assert (whole.returncode, whole.stdout.splitlines()[-1]) == (0, b"whole")
    other = subprocess.run([*command, "--json", f"--head=1:{'0' * 64}"], capture_output=True)
    assert other.returncode == 1
    assert json.loads(other.stdout)["problems"] == ["line 1, which the log stream was told, is another one here"]


def test_a_flood_of_refusals_does_not_fill_the_files(adapter: Adapter, directory: Path) -> None:
    with ThreadPoolExecutor(64) as clients:
        list(clients.map(lambda _: adapter.request("GET", "/metrics"), range(200)))
    page = read_text(adapter.request("GET", "/metrics", headers=bearer(scope="metrics")).body)
    adapter.stop()
    recorded = len(filed(directory))
    assert 20 <= recorded < 200
    assert recorded + (value(page, "tandem_audit_records_suppressed_total") or 0) == 200


def test_a_sample_is_a_sample(server: ModelServer, bundle: Path) -> None:
    with Adapter(tfs_grpc=server.target, bundle=bundle, audit=1, audit_predictions=0) as adapter:
        adapter.ready()
        for _ in range(10):
            assert adapter.request("POST", PREDICT, BODY).status == 200
        adapter.request("POST", "/shutdown", "{}")
        adapter.wait()
        assert [record["attributes"]["audit.action"] for record in told(adapter)] == ["shutdown"]


def test_a_full_disk_is_counted_and_hurts_nobody(server: ModelServer, bundle: Path, tmp_path: Path) -> None:
    with Adapter(tfs_grpc=server.target, bundle=bundle, audit=1, audit_dir=tmp_path / "audit") as adapter:
        adapter.ready()
        resource.prlimit(adapter.pid, resource.RLIMIT_FSIZE, (4096, 4096))  # write(2) then fails as on a full disk
        lost = 0.0
        while not lost:
            assert adapter.request("POST", PREDICT, BODY).status == 200
            lost = value(read_text(adapter.request("GET", "/metrics").body), "tandem_audit_records_lost_total") or 0
        adapter.stop()
    assert verify(tmp_path / "audit").problems == []


def test_a_sample_of_inputs_is_kept_apart_with_fields_redacted(
    server: ModelServer, bundle: Path, directory: Path
) -> None:
    with Adapter(
        tfs_grpc=server.target, bundle=bundle, audit=1, audit_dir=directory, capture=1, capture_redact="Customer, iban"
    ) as adapter:
        adapter.ready().request("POST", PREDICT, BODY, {"X-Request-Id": "a"})
        adapter.stop()
    (path,) = segments(directory, "capture").values()
    kept = [json.loads(line)["event"] for line in path.read_text().splitlines()][1:]
    assert kept == [{"http.request.id": "a", "input": {"instances": [1.0, 2.0], "customer": "[redacted]"}}]
    assert verify(directory, "capture").problems == []


def test_inputs_are_not_kept_without_a_word_on_what_to_leave_out(tmp_path: Path) -> None:
    environment = {**os.environ, "ADAPTER_AUDIT": "1", "ADAPTER_AUDIT_DIR": str(tmp_path), "ADAPTER_CAPTURE": "0.1"}
    done = subprocess.run([sys.executable, "-m", "adapter"], env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "ADAPTER_CAPTURE: needs ADAPTER_CAPTURE_REDACT" in done.stderr
