"""The allow-list of a real adapter: before anything else is read, behind proxies, and current without a restart."""

import contextlib
import http.client
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.adapters import Adapter, event, refused
from tests.metrics import read_text, value

NOWHERE = "127.0.0.1:1"
STRANGER = "127.0.0.66"
PROXY = "127.0.0.2"
CHECKER = "127.0.0.3"
RESOURCES = ["/health", "/health/live", "/metrics", "/docs", "/v1/models/m", "/v2", "/v2/health/live", "/nope"]


@pytest.fixture
def allowed(tmp_path: Path) -> Path:
    path = tmp_path / "allow"
    path.write_text("10.0.0.0/8\n127.0.0.1  # this machine\n")
    return path


@pytest.fixture
def adapter(allowed: Path) -> Iterator[Adapter]:
    with Adapter(
        tfs_grpc=NOWHERE, allow=f"@{allowed}", allow_health=CHECKER, trusted_proxies=PROXY, host="127.0.0.1"
    ) as running:
        yield running


def ask(adapter: Adapter, source: str, path: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> int:
    """The status of a request that comes from `source`."""
    connection = http.client.HTTPConnection("127.0.0.1", adapter.port, timeout=10, source_address=(source, 0))
    with contextlib.closing(connection):
        connection.request(method, path, headers=dict(headers or {}))
        return connection.getresponse().status


def test_every_resource_is_closed_to_an_address_that_is_not_allowed(adapter: Adapter) -> None:
    for path in RESOURCES:
        assert ask(adapter, STRANGER, path) == 403
    assert ask(adapter, STRANGER, "/shutdown", method="POST") == 403
    for path in RESOURCES:
        assert ask(adapter, "127.0.0.1", path) != 403
    page = read_text(adapter.request("GET", "/metrics").body)
    assert value(page, "tandem_access_denied_total", reason="address") == len(RESOURCES) + 1


def test_the_checkers_rule_is_for_health_alone(adapter: Adapter) -> None:
    assert [ask(adapter, CHECKER, path) for path in ("/health/live", "/health/ready")] == [200, 503]
    assert [ask(adapter, CHECKER, path) for path in ("/metrics", "/v2/health/live", "/v1/models/m", "/healthy")] == [
        403
    ] * 4


def test_behind_a_trusted_proxy_its_client_is_judged(adapter: Adapter) -> None:
    assert ask(adapter, PROXY, "/docs", {"X-Forwarded-For": "10.1.2.3"}) == 200
    assert ask(adapter, PROXY, "/docs", {"X-Forwarded-For": "10.1.2.3, 203.0.113.5"}) == 403
    assert ask(adapter, PROXY, "/docs", {"Forwarded": "for=10.1.2.3"}) == 200
    assert ask(adapter, STRANGER, "/docs", {"X-Forwarded-For": "10.1.2.3"}) == 403
    assert ask(adapter, PROXY, "/docs") == 403
    record = adapter.wait_for(lambda record: record["attributes"].get("http.route") == "/docs")
    assert record["attributes"]["client.address"] == "10.1.2.3"


def test_what_is_no_http_is_turned_away_by_its_address_like_a_request_and_as_quietly(adapter: Adapter) -> None:
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", adapter.port), 10, source_address=(STRANGER, 0)) as stranger:
            stranger.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 this is TLS")
            assert stranger.recv(12) == b"HTTP/1.1 403"
    assert ask(adapter, "127.0.0.1", "/docs") == 200
    adapter.wait_for(lambda record: record["attributes"].get("http.route") == "/docs")
    assert [r["attributes"].get("event.name") for r in adapter.records if STRANGER in str(r)] == ["tandem.denied"]
    page = read_text(adapter.request("GET", "/metrics").body)
    assert value(page, "tandem_access_denied_total", reason="address") == 20


def test_those_turned_away_are_told_in_one_line_a_minute(adapter: Adapter) -> None:
    for _ in range(50):
        ask(adapter, STRANGER, "/v1/models/m")
    assert ask(adapter, "127.0.0.1", "/docs") == 200
    adapter.wait_for(lambda record: record["attributes"].get("http.route") == "/docs")
    assert [r["attributes"].get("event.name") for r in adapter.records if STRANGER in str(r)] == ["tandem.denied"]


def test_a_rendered_list_is_in_force_without_a_restart(adapter: Adapter, allowed: Path) -> None:
    assert ask(adapter, STRANGER, "/docs") == 403
    rendered = allowed.with_name("rendered")
    rendered.write_text(f"{STRANGER}\n127.0.0.1\n")
    rendered.replace(allowed)
    adapter.wait_for(event("tandem.reload"), timeout=10)
    assert ask(adapter, STRANGER, "/docs") == 200


@pytest.mark.parametrize("text", ["127.0.0.1, nowhere", "# nobody\n"], ids=["malformed", "empty"])
def test_a_list_that_cannot_be_used_leaves_the_one_before_in_force(adapter: Adapter, allowed: Path, text: str) -> None:
    allowed.write_text(text)
    adapter.wait_for(lambda record: record["body"].startswith("Not taken"), timeout=10)
    assert ask(adapter, "127.0.0.1", "/docs") == 200
    assert ask(adapter, STRANGER, "/docs") == 403


def test_mistakes_in_lists_end_the_process_before_it_listens(tmp_path: Path) -> None:
    lines = refused(allow="10.0.0.1/8", allow_health="x", trusted_proxies=f"@{tmp_path / 'missing'}")
    assert lines == [
        "adapter: ADAPTER_ALLOW: 10.0.0.1/8 has host bits set",
        "adapter: ADAPTER_ALLOW_HEALTH: 'x' is no address and no network",
        f"adapter: ADAPTER_TRUSTED_PROXIES: {tmp_path / 'missing'}: No such file or directory",
    ]
