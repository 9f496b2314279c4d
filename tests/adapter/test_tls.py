"""TLS of a real adapter: versions, certificates that are replaced while it serves, and client certificates."""

import contextlib
import http.client
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adapters import Adapter, event, refused
from tests.certificates import Authority, client_context

NOWHERE = "127.0.0.1:1"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("tests")


@pytest.fixture
def certificate(authority: Authority, tmp_path: Path) -> Path:
    path = tmp_path / "tls"
    path.write_bytes(authority.certificate("first"))
    return path


@pytest.fixture
def adapter(certificate: Path) -> Iterator[Adapter]:
    with Adapter(tfs_grpc=NOWHERE, tls_certificate=certificate) as running:
        yield running


def ask(adapter: Adapter, context: ssl.SSLContext, path: str = "/health/live") -> http.client.HTTPResponse:
    """The answer to a GET over a connection of its own, read."""
    connection = http.client.HTTPSConnection("127.0.0.1", adapter.port, timeout=10, context=context)
    with contextlib.closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return answer


def subject(adapter: Adapter, context: ssl.SSLContext, name: str | None = None) -> str:
    """The common name of the certificate that a new connection gets."""
    with socket.create_connection(("127.0.0.1", adapter.port), 10) as plain:
        context.check_hostname = name is not None and context.check_hostname
        with context.wrap_socket(plain, server_hostname=name) as connection:
            held = connection.getpeercert()
            assert held
            return str(dict(pair for (pair,) in held["subject"])["commonName"])


def test_it_serves_over_tls_alone_and_asks_to_stay_there(adapter: Adapter, authority: Authority) -> None:
    answer = ask(adapter, client_context(authority))
    assert answer.status == 200
    assert answer.getheader("Strict-Transport-Security") == "max-age=31536000"
    assert answer.getheader("X-Content-Type-Options") == "nosniff"
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        adapter.request("GET", "/health/live")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_old_versions_of_tls_are_refused(adapter: Adapter, authority: Authority, version: ssl.TLSVersion) -> None:
    context = client_context(authority)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    with pytest.raises(ssl.SSLError):
        ask(adapter, context)


def test_weak_ciphers_are_refused(adapter: Adapter, authority: Authority) -> None:
    context = client_context(authority)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("NULL:aNULL:RC4:3DES:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        ask(adapter, context)


def test_a_replaced_certificate_is_used_for_new_connections_and_old_ones_go_on(
    adapter: Adapter, authority: Authority, certificate: Path
) -> None:
    context = client_context(authority)
    assert subject(adapter, context, "127.0.0.1") == "first"
    kept = http.client.HTTPSConnection("127.0.0.1", adapter.port, timeout=10, context=context)
    with contextlib.closing(kept):
        kept.request("GET", "/health/live")
        kept.getresponse().read()
        rendered = certificate.with_name("rendered")
        rendered.write_bytes(authority.certificate("second"))
        rendered.replace(certificate)
        adapter.wait_for(event("tandem.reload"))
        assert subject(adapter, client_context(authority), "127.0.0.1") == "second"
        assert subject(adapter, client_context(authority)) == "second", "without a name, too"
        kept.request("GET", "/health/live")
        assert kept.getresponse().status == 200


def test_a_certificate_that_cannot_be_used_leaves_the_one_before(
    adapter: Adapter, authority: Authority, certificate: Path
) -> None:
    other = Authority("x").certificate("x")
    certificate.write_bytes(
        authority.certificate("third").partition(b"-----BEGIN PRIVATE")[0] + other[other.index(b"-----BEGIN PRIVATE") :]
    )
    record = adapter.wait_for(lambda record: record["body"].startswith("Not taken"))
    assert "PRIVATE KEY" not in str(record)
    assert subject(adapter, client_context(authority), "127.0.0.1") == "first"


def test_what_is_not_tls_harms_nobody(adapter: Adapter, authority: Authority) -> None:
    for sent in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"\0" * 500, b"\0" * 20_000):
        with socket.create_connection(("127.0.0.1", adapter.port), 10) as connection, contextlib.suppress(OSError):
            connection.sendall(sent)
            while connection.recv(1024):
                pass
    assert ask(adapter, client_context(authority)).status == 200
    assert not [record for record in adapter.records if "exception.type" in record["attributes"]]


def test_client_certificates_are_asked_for_on_all_but_health(
    authority: Authority, certificate: Path, tmp_path: Path
) -> None:
    clients = Authority("clients")
    files = {}
    for name, pem in {
        "good": clients.certificate("ann", client=True),
        "expired": clients.certificate("bob", client=True, days=-1),
        "stranger": Authority("clients").certificate("eve", client=True),
        "server": clients.certificate("a server's", client=False),
    }.items():
        files[name] = tmp_path / name
        files[name].write_bytes(pem)
    trusted = tmp_path / "ca"
    trusted.write_bytes(clients.pem)
    with Adapter(tfs_grpc=NOWHERE, tls_certificate=certificate, tls_client_ca=trusted) as adapter:
        assert ask(adapter, client_context(authority, files["good"]), "/docs").status == 200
        assert ask(adapter, client_context(authority), "/docs").status == 403
        assert ask(adapter, client_context(authority), "/health/live").status == 200
        for name in ("expired", "stranger", "server"):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                ask(adapter, client_context(authority, files[name]), "/health/live")
        rendered = tmp_path / "rendered"
        rendered.write_bytes(Authority("others").pem)
        rendered.replace(trusted)
        adapter.wait_for(event("tandem.reload"))
        with pytest.raises((ssl.SSLError, ConnectionError)):
            ask(adapter, client_context(authority, files["good"]), "/docs")


@pytest.mark.parametrize("broken", ["missing", "empty", "no key", "another's key"])
def test_a_certificate_that_cannot_be_used_ends_the_process_before_it_listens(
    authority: Authority, tmp_path: Path, broken: str
) -> None:
    path = tmp_path / "tls"
    good, other = authority.certificate("a"), authority.certificate("b")
    begin = b"-----BEGIN PRIVATE"
    content = {
        "empty": b"",
        "no key": good.partition(begin)[0],
        "another's key": good.partition(begin)[0] + begin + other.partition(begin)[2],
    }
    if broken in content:
        path.write_bytes(content[broken])
    (line,) = refused(tls_certificate=path)
    assert line.startswith("adapter: ADAPTER_TLS_CERTIFICATE: ")
