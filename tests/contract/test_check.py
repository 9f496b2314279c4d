"""`tandem check`: passes for a service that keeps the contract, fails for one that does not, and says where."""

import inspect
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deploy.check import inference, resources, suite
from tests.contract.services import service
from tests.servers import free_port
from tests.tokens import token

ALL = "predict admin metrics docs"


def check(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "deploy.cli", "check", *arguments], capture_output=True, text=True)


@pytest.fixture
def careless() -> Iterator[str]:
    """A service that answers everything with 200 and an empty document."""

    class Careless(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        do_POST = do_DELETE = do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Careless) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_no_check_is_forgotten() -> None:
    written = {
        found
        for module in (resources, inference)
        for name, found in inspect.getmembers(module, inspect.isfunction)
        if found.__module__ == module.__name__ and not name.startswith("_")
    }
    assert written < set(suite.CHECKS)


def test_a_service_that_keeps_the_contract_passes(tmp_path: Path) -> None:
    with service(tmp_path) as adapter:
        url = f"http://127.0.0.1:{adapter.port}"
        (tmp_path / "token").write_text(token("HS256", scope=ALL) + "\n")
        done = check(url, "--json", "--token-file", str(tmp_path / "token"))
        report = json.loads(done.stdout)
        assert (done.returncode, [one for one in report["checks"] if one["outcome"] == "failed"]) == (0, [])
        assert [one["name"] for one in report["checks"] if one["outcome"] == "not here"] == ["own_endpoint"]
        without = check(url)
        assert without.returncode == 0
        assert "not here" in without.stdout
        assert "passed    Where tokens are asked for" in without.stdout


def test_a_service_that_does_not_keep_it_fails_and_the_report_says_where(careless: str) -> None:
    done = check(careless)
    assert done.returncode == 1
    assert "failed    /health says the state" in done.stdout
    assert "failed    A method that is not offered is 405, with Allow\n          expected 405, found 200" in done.stdout
    assert "passed    /health/live is 200" in done.stdout


@pytest.mark.parametrize("url", ["nowhere", "ftp://127.0.0.1", f"http://127.0.0.1:{free_port()}"])
def test_where_nobody_answers_nothing_is_checked(url: str) -> None:
    done = check(url, "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout).keys() == {"error"}
