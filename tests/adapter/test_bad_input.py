"""What a stranger sends: the right 4xx that names the mistake, the service unharmed."""

import contextlib
import gzip
import json
import re
import socket
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.adapters import Adapter
from tests.metrics import read_text, value
from tests.servers import ModelServer

PATH = "/v1/models/multi:predict"
GOOD = {"signature_name": "scalar_in", "inputs": 3}
LIMIT = 64 * 1024


@pytest.fixture(scope="module")
def adapter(slow_server: ModelServer) -> Iterator[Adapter]:
    settings = {"max_body": LIMIT, "max_connections": 20, "request_timeout": 5}
    with Adapter(tfs_grpc=slow_server.target, **settings) as running:
        yield running.ready()


@pytest.fixture(autouse=True)
def unharmed(adapter: Adapter) -> Iterator[None]:
    before = len(adapter.records)
    yield
    assert adapter.predict("multi", GOOD).json == {"outputs": 6.0}
    assert not [record for record in adapter.records[before:] if "exception.type" in record["attributes"]]


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        ("", 400, ""),
        ("{", 400, ""),
        ('{"instances": [1.0,]}', 400, ""),
        ("[1, 2]", 400, "object"),
        ('{"signature_name": "matrix", "inputs": [[1, 2], [3]]}', 400, "expected"),
        ('{"signature_name": "matrix", "inputs": [["a"]]}', 400, "float"),
        ('{"signature_name": "nope", "inputs": 1}', 400, "nope"),
        ('{"signature_name": "ints", "inputs": {"flag": [true], "n": [1.5], "u": [1]}}', 400, "int32"),
        ("[" * 100_000, 413, "at most"),
        ("[" * 50_000, 400, ""),
        ('{"inputs": ' + "[" * 30_000 + "1" + "]" * 30_000 + "}", 400, ""),
    ],
)
def test_a_body_that_means_no_tensor_is_refused_in_tfs_envelope(
    adapter: Adapter, body: str, status: int, named: str
) -> None:
    answer = adapter.request("POST", PATH, body)
    assert answer.status == status, answer.body
    assert list(answer.json) == ["error"]
    assert named in answer.json["error"]
    assert answer.json["error"]


def test_an_unknown_model_or_version_is_404_with_tfs_words(adapter: Adapter) -> None:
    answer = adapter.predict("nope", GOOD)
    assert (answer.status, answer.json) == (404, {"error": "Servable not found for request: Latest(nope)"})
    answer = adapter.request("POST", "/v1/models/multi/versions/8:predict", json.dumps(GOOD))
    assert (answer.status, answer.json) == (404, {"error": "Servable not found for request: Specific(multi, 8)"})


@pytest.mark.parametrize(
    "body",
    [
        '{"instances":[1.0,]}',
        '{"instances":[1.0}',
        '{"instances":[1 2]}',
        '{"instances":[01]}',
        '{"instances":[nan]}',
        '{"instances":["a\nb"]}',
        '{"instances":[[1], [2]], "more": }',
        '{"signature_name": "scalar_in", "inputs": [1}',
    ],
)
def test_what_is_not_json_is_400_also_for_a_model_that_is_not_there(adapter: Adapter, body: str) -> None:
    for path in ("/v1/models/nope:predict", "/v1/models/multi/versions/8:predict", PATH):
        answer = adapter.request("POST", path, body)
        assert answer.status == 400, answer.body
        assert "JSON Parse error" in answer.json["error"]


@pytest.mark.parametrize(
    "body", [b"{}", b'{"instances": 1} and more', b'{"instances":[1], "inputs": {}}', b'{"inputs":[NaN]}']
)
def test_any_json_is_404_for_a_model_that_is_not_there(adapter: Adapter, body: bytes) -> None:
    answer = adapter.request("POST", "/v1/models/nope:predict", body)
    assert (answer.status, answer.json) == (404, {"error": "Servable not found for request: Latest(nope)"})


def test_numbers_without_end_are_404_for_a_model_that_is_not_there(slow_server: ModelServer) -> None:
    with Adapter(tfs_grpc=slow_server.target) as adapter:
        adapter.ready()
        answer = adapter.predict("nope", {"instances": [1.5] * 2_100_000})
        assert (answer.status, answer.json) == (404, {"error": "Servable not found for request: Latest(nope)"})


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "PROPFIND", "LINK", "MKCOL", "LOCK", "COPY", "QUERY"])
def test_a_method_that_tensorflow_serving_does_not_allow_is_501(adapter: Adapter, method: str) -> None:
    for path in (PATH, "/v1/models/multi", "/v1/other"):
        answer = adapter.request(method, path)
        assert answer.status == 501
        assert "GET and POST" in answer.json["error"]


def test_a_body_over_the_limit_is_413_by_its_announced_length_before_it_is_read(adapter: Adapter) -> None:
    answer = adapter.request("POST", PATH, b"{}", {"Content-Length": str(LIMIT + 1)})
    assert answer.status == 413
    assert str(LIMIT) in answer.json["error"]


def test_a_chunked_body_over_the_limit_is_413_as_soon_as_it_is_too_large(adapter: Adapter) -> None:
    chunk = b"1000\r\n" + b" " * 4096 + b"\r\n"
    with open_socket(adapter) as connection:
        connection.sendall(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        with contextlib.suppress(ConnectionError):
            for _ in range(40):  # it never ends: no last chunk is sent
                connection.sendall(chunk)
        assert received(connection).startswith(b"HTTP/1.1 413")


def test_a_zip_bomb_is_413_without_being_unpacked_further(adapter: Adapter) -> None:
    bomb = gzip.compress(b" " * (200 << 20), 9)
    assert len(bomb) > LIMIT  # announced too large as it is
    small = gzip.compress(b" " * (10 << 20), 9)
    assert len(small) < LIMIT
    for body in (bomb, small):
        assert adapter.request("POST", PATH, body, {"Content-Encoding": "gzip"}).status == 413


@pytest.mark.parametrize(
    "body", [b"not gzip at all", gzip.compress(b'{"inputs": 1}')[:-9], gzip.compress(b'{"inputs": 1}')[:-8]]
)
def test_a_body_that_is_not_what_its_encoding_says_is_400(adapter: Adapter, body: bytes) -> None:
    answer = adapter.request("POST", PATH, body, {"Content-Encoding": "gzip"})
    assert answer.status == 400, answer.body
    assert list(answer.json) == ["error"]


def test_compressed_bodies_are_understood(adapter: Adapter) -> None:
    body = json.dumps(GOOD).encode()
    for encoding, packed in (("gzip", gzip.compress(body)), ("deflate", zlib.compress(body))):
        assert adapter.request("POST", PATH, packed, {"Content-Encoding": encoding}).json == {"outputs": 6.0}


def test_chunked_bodies_are_understood(adapter: Adapter) -> None:
    body = json.dumps(GOOD).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n".encode()
    with open_socket(adapter) as connection:
        connection.sendall(head + b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n")
        assert received(connection).endswith(b'{"outputs":6.0}')


def test_expect_100_continue_is_answered_before_the_body_comes(adapter: Adapter) -> None:
    body = json.dumps(GOOD).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n"
    with open_socket(adapter) as connection:
        connection.sendall(head.encode() + b"Connection: close\r\n\r\n")
        assert connection.recv(25).startswith(b"HTTP/1.1 100 Continue")
        connection.sendall(body)
        assert received(connection).endswith(b'{"outputs":6.0}')


def test_a_body_that_never_comes_is_408_at_the_deadline(adapter: Adapter) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nX-Request-Timeout: 0.2\r\n\r\n"
    with open_socket(adapter) as connection:
        connection.sendall(head.encode() + b"{")
        assert received(connection).startswith(b"HTTP/1.1 408")


def test_clients_that_send_slowly_cannot_pin_more_than_the_total_of_bodies(slow_server: ModelServer) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n".encode()
    settings = {"max_body": LIMIT, "max_body_total": 100_000, "request_timeout": 20}
    with Adapter(tfs_grpc=slow_server.target, **settings) as adapter, contextlib.ExitStack() as stack:
        adapter.ready()
        for _ in range(2):
            slow = stack.enter_context(open_socket(adapter))
            slow.sendall(head + b" " * 45_000)
        while b"\ntandem_request_body_bytes_in_flight 90000.0\n" not in adapter.request("GET", "/metrics").body:
            pass
        late = stack.enter_context(open_socket(adapter))
        late.sendall(head + b" " * 45_000)
        refused = received(late)
        assert refused.startswith(b"HTTP/1.1 503")
        assert b"retry-after" in refused.lower()
        assert adapter.predict("multi", GOOD).json == {"outputs": 6.0}  # small ones still pass
        stack.close()
        while b"\ntandem_request_body_bytes_in_flight 0.0\n" not in adapter.request("GET", "/metrics").body:
            pass


def test_a_body_counts_until_its_request_is_answered_also_while_tensorflow_serving_works(
    slow_server: ModelServer,
) -> None:
    slow = json.dumps({"signature_name": "slow", "instances": [3000.0]}).ljust(45_000)
    settings = {"max_body": LIMIT, "max_body_total": 100_000, "request_timeout": 20}
    with Adapter(tfs_grpc=slow_server.target, **settings) as adapter, ThreadPoolExecutor(2) as clients:
        adapter.ready()
        waiting = [clients.submit(adapter.request, "POST", PATH, slow) for _ in range(2)]
        while b"\ntandem_request_body_bytes_in_flight 90000.0\n" not in adapter.request("GET", "/metrics").body:
            pass
        refused = adapter.request("POST", PATH, slow)
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert [each.result().status for each in waiting] == [200, 200]
        assert b"\ntandem_request_body_bytes_in_flight 0.0\n" in adapter.request("GET", "/metrics").body


def test_a_deadline_that_passes_at_tensorflow_serving_is_504(adapter: Adapter) -> None:
    slow = json.dumps({"signature_name": "slow", "instances": [3000.0]})
    for headers in ({"X-Request-Timeout": "0.05"}, {"grpc-timeout": "50m"}):
        assert adapter.request("POST", PATH, slow, headers).status == 504


@pytest.mark.parametrize(
    "headers",
    [
        *[
            {"X-Request-Timeout": wrong}
            for wrong in ("soon", "-1", "1_0", "+1", "0", "1e1", "nan", "inf", "0x1", "1.2.3", "1000000")
        ],
        *[
            {"grpc-timeout": wrong}
            for wrong in ("1", "1s", "S", "123456789S", "+1S", "\u0663S".encode().decode("latin-1"))
        ],
    ],
)
def test_a_deadline_that_cannot_be_read_is_400_and_named(adapter: Adapter, headers: dict[str, str]) -> None:
    answer = adapter.request("POST", PATH, json.dumps(GOOD), headers)
    assert answer.status == 400
    assert next(iter(headers)) in answer.json["error"]


@pytest.mark.parametrize(
    ("request_bytes", "status", "said", "route"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: " + b"a" * 20_000 + b"\r\n\r\n", 431, "8190 bytes", "other"),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "8190 bytes", "other"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: a\r\n" * 2000 + b"\r\n", 431, "at most 128", "other"),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            400,
            "Content-Length",
            "other",
        ),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400, "Content-Length", "other"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 this is TLS", 400, "http://", "other"),
        (b"GET /v2/health/live HTTP/1.1\r\n\r\n", 400, "Host", "/v2/{other}"),
        (b"POST /v1/models/m:predict HTTP/1.1\r\n\r\n", 400, "Host", "/v1/{other}"),
        (b"FOO /v1/models/multi HTTP/1.1\r\nHost: x\r\n\r\n", 501, "GET and POST", "/v1/{other}"),
        (b"get /V1/models/multi HTTP/1.0\n\n", 501, "upper case", "/v1/{other}"),
        (b"DESCRIBE /v1/models/multi HTTP/1.1\r\nHost: x\r\n\r\n", 501, "GET and POST", "/v1/{other}"),
        (b"FOO /v1/models/multi HTTP/9\r\nHost: x\r\n\r\n", 400, "not an HTTP/1.1 request", "/v1/{other}"),
        (b"FOO /health HTTP/1.1\r\nHost: x\r\n\r\n", 400, "not an HTTP/1.1 request", "/health"),
        ("GET /v1/models/ü HTTP/1.1\r\nHost: x\r\n\r\n".encode(), 400, "percent-encode", "/v1/{other}"),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", 400, "header", "/health"),
        (b'<script>"\x00\r\n{}\r\n\r\n', 400, "not an HTTP/1.1 request", "other"),
    ],
    ids=[
        "header",
        "line",
        "headers",
        "lengths",
        "negative",
        "tls",
        "host-v2",
        "host-v1",
        "method",
        "lower-case",
        "rtsp",
        "version",
        "method-off-v1",
        "utf-8",
        "colon",
        "garbage",
    ],
)
def test_what_is_not_http_or_too_much_of_it_is_refused_like_any_request(
    adapter: Adapter, request_bytes: bytes, status: int, said: str, route: str
) -> None:
    before = len(adapter.records)
    with open_socket(adapter) as connection:
        connection.sendall(request_bytes)
        raw = received(connection)
        assert connection.recv(1) == b""
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    assert first.startswith(f"HTTP/1.1 {status} ")
    assert headers["connection"] == "close"
    told = json.loads(body)
    assert said in (told["error"] if route.startswith("/v1") else told["detail"])
    assert headers["content-type"] == ("application/json" if route.startswith("/v1") else "application/problem+json")
    identity = headers["x-request-id"]
    record = adapter.wait_for(lambda record: record["attributes"].get("http.request.id") == identity, after=before)
    assert (
        len([each for each in adapter.records[before:] if each["attributes"].get("http.request.id") == identity]) == 1
    )
    assert len(json.dumps(record)) < 2000
    about = record["attributes"]
    assert (about["http.route"], about["http.response.status_code"]) == (route, status)
    assert said in about["error.message"]
    for garbage in ("script", "aaaa", "ü", "this is TLS"):
        assert garbage not in body.decode() + json.dumps(record, ensure_ascii=False)
    labels = {"http_route": route, "http_response_status_code": str(status)}
    labels["http_request_method"] = about["http.request.method"]
    page = read_text(adapter.request("GET", "/metrics").body)
    assert value(page, "http_server_request_duration_seconds_count", **labels)


def test_a_request_is_answered_though_what_follows_it_is_none(adapter: Adapter) -> None:
    body = json.dumps(GOOD).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with open_socket(adapter) as connection:
        connection.sendall(head + body + b"GARBAGE\r\n\r\n")
        answers = b""
        while chunk := connection.recv(65536):
            answers += chunk
    assert re.findall(rb"HTTP/1.1 \d+", answers) == [b"HTTP/1.1 200", b"HTTP/1.1 400"]
    assert b'{"outputs":6.0}HTTP/1.1 400' in answers


def test_a_coding_that_is_not_read_is_415_and_says_which_are(adapter: Adapter) -> None:
    answer = adapter.request("POST", PATH, b"\x1b\x00", {"Content-Encoding": "br"})
    assert (answer.status, answer.headers["accept-encoding"]) == (415, "gzip, deflate")
    assert "gzip" in answer.json["error"]
    assert "x-request-id" in answer.headers


def test_too_many_connections_are_answered_503_and_closed(adapter: Adapter) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            idle = stack.enter_context(open_socket(adapter))
            idle.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert idle.recv(12) == b"HTTP/1.1 200"
        answer = adapter.request("GET", "/health/live")
        assert answer.status == 503
        assert answer.headers["connection"] == "close"
        assert int(answer.headers["retry-after"]) > 0


def test_off_v1_an_unknown_path_or_method_is_a_problem_document(adapter: Adapter) -> None:
    answer = adapter.request("GET", "/nope")
    assert (answer.status, answer.json["title"]) == (404, "Not Found")
    answer = adapter.request("DELETE", "/health")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
    assert answer.headers["content-type"] == "application/problem+json"


def open_socket(adapter: Adapter) -> socket.socket:
    return socket.create_connection(("127.0.0.1", adapter.port), timeout=10)


def received(connection: socket.socket) -> bytes:
    """All that comes until the other side closes, or has sent a whole answer."""
    data = b""
    while chunk := connection.recv(65536):
        data += chunk
        head, separator, body = data.partition(b"\r\n\r\n")
        lengths = [line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        if separator and lengths and len(body) >= int(lengths[0]):
            break
    return data
