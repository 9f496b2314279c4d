"""Bytes that are made to be read in two ways, to last for ever, or to be too many: one answer, and the service unharmed."""

import contextlib
import itertools
import re
import socket
import time
from collections.abc import Iterator

import pytest

from tests.adapters import Adapter
from tests.tokens import SECRET, token

NOWHERE = "127.0.0.1:1"
LIMIT = 64 * 1024
SMUGGLED = b"GET /health/live HTTP/1.1\r\nHost: smuggled\r\n\r\n"
POST = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\n"
GET = b"GET /health/live HTTP/1.1\r\nHost: x\r\n"
STATUS = re.compile(rb"^HTTP/1\.[01] (\d{3})", re.MULTILINE)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adapter]:
    secret = tmp_path_factory.mktemp("secret") / "secret"
    secret.write_text(SECRET)
    settings = {"max_body": LIMIT, "max_connections": 60, "head_timeout": 1, "request_timeout": 5}
    with Adapter(tfs_grpc=NOWHERE, jwt_secret_file=secret, **settings) as running:
        yield running


@pytest.fixture(autouse=True)
def unharmed(adapter: Adapter) -> Iterator[None]:
    before = len(adapter.records)
    yield
    assert adapter.request("GET", "/health/live").status == 200
    assert not [record for record in adapter.records[before:] if "exception.type" in record["attributes"]]


def connect(adapter: Adapter) -> socket.socket:
    return socket.create_connection(("127.0.0.1", adapter.port), timeout=10)


def statuses(adapter: Adapter, sent: bytes) -> list[int]:
    """The statuses of all answers until the other side closes."""
    with connect(adapter) as connection:
        connection.sendall(sent)
        received = b""
        with contextlib.suppress(ConnectionError):
            while chunk := connection.recv(65536):
                received += chunk
    return [int(status) for status in STATUS.findall(received)]


CHUNKED = b"Transfer-Encoding: chunked\r\n"
ONE = b"\r\n1\r\na\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    "head_and_body",
    {
        "length-and-chunked": b"Content-Length: 4\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
        "chunked-and-length": CHUNKED + b"Content-Length: 4\r\n\r\n0\r\n\r\n",
        "unknown-coding": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "chunked-not-last": b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "space-before-colon": b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "two-codings": CHUNKED + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        "vertical-tab": b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        "two-lengths": b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "length-twice": b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na",
        "length-list": b"Content-Length: 1, 1\r\n\r\na",
        "length-plus": b"Content-Length: +1\r\n\r\na",
        "length-minus": b"Content-Length: -1\r\n\r\na",
        "length-hex": b"Content-Length: 0x1\r\n\r\na",
        "length-underscore": b"Content-Length: 1_0\r\n\r\n0123456789",
        "length-space": b"Content-Length: 1 1\r\n\r\na",
        "length-empty": b"Content-Length: \r\n\r\n",
        "length-overflow": b"Content-Length: 99999999999999999999999\r\n\r\na",
        "chunk-hex": CHUNKED + b"\r\n0x1\r\na\r\n0\r\n\r\n",
        "chunk-minus": CHUNKED + b"\r\n-1\r\na\r\n0\r\n\r\n",
        "chunk-overflow": CHUNKED + b"\r\nFFFFFFFFFFFFFFFFF\r\na\r\n0\r\n\r\n",
        "chunk-too-long": CHUNKED + b"\r\n1\r\nab0\r\n\r\n",
        "chunk-line-feeds": CHUNKED + b"\r\n1\na\n0\n\n",
        "chunk-extension-line-feed": CHUNKED + b"\r\n1;a\nb\r\na\r\n0\r\n\r\n",
    }.items(),
    ids=lambda case: case[0],
)
def test_a_body_whose_end_is_ambiguous_ends_the_connection(adapter: Adapter, head_and_body: tuple[str, bytes]) -> None:
    """Request smuggling: what follows must never be answered as a request of its own (RFC 9112 §11.2)."""
    answered = statuses(adapter, POST + head_and_body[1] + SMUGGLED)
    assert answered in ([400], [401]), "401: the gate answered before the body was looked at"


def test_a_chunked_body_of_an_http_1_0_client_ends_the_connection(adapter: Adapter) -> None:
    head = b"POST /v2/models/m/infer HTTP/1.0\r\nHost: x\r\n" + CHUNKED
    assert len(statuses(adapter, head + b"\r\n0\r\n\r\n" + SMUGGLED)) == 1


def test_a_body_of_a_get_is_not_the_next_request(adapter: Adapter) -> None:
    sent = GET + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED
    assert len(statuses(adapter, sent)) == 1


@pytest.mark.parametrize(
    "head",
    {
        "bare-line-feeds": b"GET /health/live HTTP/1.1\nHost: x\n\n",
        "bare-carriage-return": GET + b"X: a\rTransfer-Encoding: chunked\r\n\r\n",
        "nul-in-value": GET + b"X: a\0b\r\n\r\n",
        "nul-in-name": GET + b"X\0: a\r\n\r\n",
        "folded-line": GET + b"X: a\r\n b\r\n\r\n",
        "folded-first-line": b"GET /health/live HTTP/1.1\r\n Host: x\r\n\r\n",
        "space-in-name": GET + b"X Y: a\r\n\r\n",
        "no-colon": GET + b"garbage\r\n\r\n",
        "no-name": GET + b": a\r\n\r\n",
        "no-host": b"GET /health/live HTTP/1.1\r\n\r\n",
        "two-hosts": GET + b"Host: y\r\n\r\n",
        "http-2-preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "http-3": b"GET /health/live HTTP/3.0\r\nHost: x\r\n\r\n",
        "http-1.9": b"GET /health/live HTTP/1.9\r\nHost: x\r\n\r\n",
        "tabs": b"GET\t/health/live\tHTTP/1.1\r\nHost: x\r\n\r\n",
        "lower-case-method": b"get /health/live HTTP/1.1\r\nHost: x\r\n\r\n",
        "long-method": b"X" * 100 + b" /health/live HTTP/1.1\r\nHost: x\r\n\r\n",
        "nul-in-path": b"GET /health\0/live HTTP/1.1\r\nHost: x\r\n\r\n",
        "delete-in-path": b"GET /health\x7f/live HTTP/1.1\r\nHost: x\r\n\r\n",
        "raw-utf-8-in-path": "GET /hé HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
    }.items(),
    ids=lambda case: case[0],
)
def test_a_head_that_is_not_http_is_400_and_the_end(adapter: Adapter, head: tuple[str, bytes]) -> None:
    assert statuses(adapter, head[1] + SMUGGLED) == [400]


@pytest.mark.parametrize(
    "bomb",
    {
        "long-line": b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        "long-query": b"GET /health?" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        "long-value": GET + b"X: " + b"a" * 9000 + b"\r\n\r\n",
        "long-name": GET + b"X" * 9000 + b": a\r\n\r\n",
        "many-headers": GET + b"".join(b"X-%d: a\r\n" % number for number in range(200)) + b"\r\n",
        "one-header-often": GET + b"X: a\r\n" * 2000 + b"\r\n",
        "many-cookies": GET + b"Cookie: a=b\r\n" * 500 + b"\r\n",
    }.items(),
    ids=lambda case: case[0],
)
def test_a_header_bomb_is_431_or_414_and_the_end(adapter: Adapter, bomb: tuple[str, bytes]) -> None:
    assert statuses(adapter, bomb[1] + SMUGGLED) == [414 if bomb[0] in ("long-line", "long-query") else 431]


def test_a_head_that_never_ends_is_cut_off(adapter: Adapter) -> None:
    with connect(adapter) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(GET)
        started = time.monotonic()
        for number in itertools.count():  # slowloris: a header now and then
            assert time.monotonic() - started < 20, "it goes on for ever"
            connection.sendall(b"X-%d: a\r\n" % number)
            connection.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                assert not STATUS.match(connection.recv(1024) or b"closed")
                break


def test_a_connection_that_sends_nothing_after_its_first_byte_is_cut_off(adapter: Adapter) -> None:
    with connect(adapter) as connection:
        connection.sendall(b"G")
        connection.settimeout(20)
        with contextlib.suppress(ConnectionError):
            assert not STATUS.match(connection.recv(1024) or b"closed")


def test_heads_that_never_end_do_not_keep_others_out(adapter: Adapter) -> None:
    """Slowloris in numbers: more than the connections that may be open."""
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(connect(adapter)).sendall(GET)
        deadline = time.monotonic() + 20
        while adapter.request("GET", "/health/live").status != 200:
            assert time.monotonic() < deadline, "the service stays full"


def test_a_body_that_drips_ends_at_the_deadline(adapter: Adapter) -> None:
    bearer = f"Authorization: Bearer {token('HS256')}\r\nX-Request-Timeout: 0.5\r\n".encode()
    with connect(adapter) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(POST + bearer + b"Content-Length: 1000\r\n\r\n")
        started = time.monotonic()
        connection.settimeout(0.1)
        received = b""
        while not received:
            assert time.monotonic() - started < 10, "it goes on for ever"
            connection.sendall(b"a")
            with contextlib.suppress(TimeoutError):
                received = connection.recv(1024)
        assert STATUS.match(received)[1] == b"408"  # type: ignore[index]


def test_requests_beyond_measure_on_one_connection_wait_and_are_all_answered(adapter: Adapter) -> None:
    """Pipelining: what is sent ahead costs no memory beyond bounds, and nothing is lost or out of order."""
    sent = b"".join(GET + b"X-Request-Id: n%d\r\n\r\n" % number for number in range(500))
    sent += GET + b"Connection: close\r\n\r\n"
    with connect(adapter) as connection:
        connection.sendall(sent)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    assert [int(number) for number in re.findall(rb"X-Request-Id: n(\d+)", received)] == list(range(500))


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/../../etc/passwd", 401),
        ("/docs/../../../etc/passwd", 401),
        ("/docs/%2e%2e%2fopenapi.json", 401),
        ("/docs/..%5c..%5cwindows", 401),
        ("/docs/start.js%00.css", 401),
        ("/%6detrics", 401),
        ("/metrics%20", 401),
        ("//metrics", 401),
        ("/./metrics", 401),
        ("/health/../metrics", 401),
        ("/health/%2e%2e/metrics", 401),
        ("/health/live/../../shutdown", 401),
        ("/health;/metrics", 401),
        ("/METRICS", 401),
        ("/v2/health/live/../../models/m", 401),
        ("/v2/health/live?/v2/models/m/infer", 200),
        ("/v2/health/live%3f/../x", 401),
        ("/metrics?x=/health", 401),
        ("/metrics#/health", 401),
        ("http://x/metrics", 401),
        ("http://x/health/live", 200),
        ("/health/live?access_token=x", 200),
    ],
)
def test_no_spelling_of_a_path_goes_around_the_policy(adapter: Adapter, path: str, status: int) -> None:
    answer = adapter.request("GET", path)
    assert answer.status == status, answer.body
    assert b"root:" not in answer.body


@pytest.mark.parametrize("name", ["X-Original-URL", "X-Rewrite-URL", "X-HTTP-Method-Override", "X-Forwarded-Prefix"])
def test_no_header_rewrites_the_request(adapter: Adapter, name: str) -> None:
    assert adapter.request("GET", "/metrics", headers={name: "/health/live"}).status == 401
    assert adapter.request("GET", "/health/live", headers={name: "POST"}).status == 200


@pytest.mark.parametrize("method", ["TRACE", "PUT", "DELETE", "PATCH", "PROPFIND"])
def test_a_method_that_nobody_offers_is_refused_and_echoes_nothing(adapter: Adapter, method: str) -> None:
    answer = adapter.request(method, "/health/live", headers={"X-Probe": "echo-me"})
    assert answer.status == 405
    assert b"echo-me" not in answer.body


def test_an_upgrade_is_not_made(adapter: Adapter) -> None:
    """h2c smuggling: a proxy that passes an Upgrade on would open a tunnel past its own rules."""
    for upgrade in (b"websocket", b"h2c", b"HTTP/2.0"):
        head = GET + b"Connection: Upgrade, close\r\nUpgrade: " + upgrade + b"\r\n\r\n"
        assert statuses(adapter, head) == [200]


@pytest.mark.parametrize(
    "given", ["a\tb", "a b", "<script>", "x" * 129, '"', "a,b", "é", "%0d%0aSet-Cookie:x", "{{7*7}}"]
)
def test_a_request_id_of_other_characters_is_replaced(adapter: Adapter, given: str) -> None:
    answer = adapter.request("GET", "/health/live", headers={"X-Request-Id": given.encode().decode("latin-1")})
    assert answer.headers["x-request-id"] != given
    assert re.fullmatch(r"[0-9a-f-]+", answer.headers["x-request-id"])
    assert "set-cookie" not in answer.headers


def test_what_is_refused_is_not_repeated_as_a_page(adapter: Adapter) -> None:
    """Reflected script: errors are JSON, said to be, and not to be taken for anything else."""
    bearer = {"Authorization": f"Bearer {token('HS256', scope='predict docs')}"}
    for path in ("/<script>alert(1)</script>", "/v1/models/<script>", "/v2/models/<script>/x"):
        answer = adapter.request("GET", path, headers=bearer)
        assert answer.status >= 400
        assert answer.headers["content-type"] in ("application/json", "application/problem+json")
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_log_line_cannot_be_forged(adapter: Adapter) -> None:
    """Log injection: every record is one line of JSON, whatever a stranger writes."""
    forged = '\\n{"severity_text": "FATAL"}'
    adapter.request("GET", f"/x%0a{forged.replace(' ', '')}", headers={"User-Agent": forged})
    adapter.request("GET", "/health/live")
    assert not [record for record in adapter.records if record["severity_text"] == "FATAL"]
