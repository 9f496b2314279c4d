"""A stranger's twenty thousand requests: never a 5xx, never a hang, never a wrong tensor, and memory stays bounded."""

import contextlib
import gzip
import http.client
import json
import math
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.adapter.conftest import HALF_PLUS_TWO
from tests.adapters import Adapter
from tests.servers import ModelServer

PATH = "/v1/models/half_plus_two:predict"
LIMIT = 256 * 1024
ALLOWED = (
    "GET",
    "POST",
    "HEAD",
    "PUT",
    "DELETE",
    "OPTIONS",
    "PATCH",
)  # others are 501 under /v1, as in TensorFlow Serving
GROWTH = 64 << 20  # bytes of resident memory that all of it may cost


def cases(number: int) -> Any:
    return settings(max_examples=number, deadline=None, suppress_health_check=list(HealthCheck), database=None)


@pytest.fixture(scope="module")
def adapter() -> Iterator[Adapter]:
    flags = ["--model_name=half_plus_two", f"--model_base_path={HALF_PLUS_TWO}", "--grpc_max_threads=8"]
    with (
        ModelServer(*flags) as server,
        Adapter(tfs_grpc=server.target, max_body=LIMIT, request_timeout=10, access_log=False) as running,
    ):
        running.ready()
        assert running.predict("half_plus_two", {"inputs": 1.0}).status == 200
        before = resident(running.pid)
        yield running
        assert resident(running.pid) - before < GROWTH
        assert not [record for record in running.records if record["severity_text"] == "ERROR"]


@pytest.fixture(scope="module")
def client(adapter: Adapter) -> Iterator[http.client.HTTPConnection]:
    with contextlib.closing(adapter.connection(timeout=20)) as connection:
        yield connection


def post(client: http.client.HTTPConnection, body: bytes, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    client.request("POST", PATH, body, headers or {})
    response = client.getresponse()
    return response.status, response.read()


def judged(status: int, answer: bytes) -> None:
    """What every answer must be: right, or the client's fault and said so in TensorFlow Serving's envelope."""
    assert status < 500, answer
    if status != 200:
        assert isinstance(json.loads(answer)["error"], str)


numbers = st.one_of(
    st.integers(-(2**70), 2**70), st.floats(allow_nan=False), st.just(1e39), st.sampled_from([0, -0.0, 1e-46])
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(st.one_of(st.text(max_size=6), st.sampled_from(["x", "b64"])), inner, max_size=4),
    ),
    max_leaves=20,
)
documents = st.one_of(
    values,
    st.builds(lambda key, value: {key: value}, st.sampled_from(["instances", "inputs"]), values),
    st.dictionaries(st.sampled_from(["instances", "inputs", "signature_name", "x"]), values, max_size=4),
)


@cases(6000)
@given(document=documents)
def test_any_json_gets_an_answer_or_is_told_what_is_wrong(client: http.client.HTTPConnection, document: Any) -> None:
    judged(*post(client, json.dumps(document).encode()))


shapes = st.lists(st.integers(1, 4), max_size=4)


@cases(5000)
@given(shape=shapes, seed=st.integers(0, 2**32 - 1), row=st.booleans(), named=st.booleans(), spaced=st.booleans())
def test_every_tensor_comes_back_as_what_it_was(
    client: http.client.HTTPConnection, shape: list[int], seed: int, row: bool, named: bool, spaced: bool
) -> None:
    shape = shape or ([1] if row else [])
    bits = np.random.default_rng(seed).integers(0, 2**32, size=shape, dtype=np.uint32)
    x = bits.view(np.float32)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        values = x.astype(np.float64).tolist()
    if named:
        values = [{"x": value} for value in values] if row else {"x": values}
    separators = (", ", " : ") if spaced else (",", ":")
    body = json.dumps({"instances" if row else "inputs": values}, separators=separators)
    status, answer = post(client, body.encode())
    assert status == 200, answer
    y = np.array(json.loads(answer)["predictions" if row else "outputs"], np.float32)
    with np.errstate(all="ignore"):
        expected = x * np.float32(0.5) + np.float32(2.5)  # version 2, the newest
    assert y.shape == expected.shape
    assert all(a == b or (math.isnan(a) and math.isnan(b)) for a, b in zip(y.flat, expected.flat, strict=True))


valid = [
    b'{"instances": [[1.5, -2e3, 3], [4, 5, 6]]}',
    b'{"signature_name": "serving_default", "inputs": {"x": [1, 2, 3]}}',
    b'{"instances": [{"x": 1}, {"x": 2}], "signature_name": ""}',
    b'{"inputs": [NaN, Infinity, -Infinity, 1e39]}',
]
snippets = [
    b"[",
    b"]",
    b"{",
    b"}",
    b",",
    b":",
    b'"',
    b"\\u",
    b"\xff",
    b"\x00",
    b"1e999",
    b"NaN",
    b'{"b64":',
    b"\xef\xbb\xbf",
]


@cases(6000)
@given(data=st.data())
def test_a_mutated_body_never_breaks_anything(client: http.client.HTTPConnection, data: st.DataObject) -> None:
    body = bytearray(data.draw(st.sampled_from(valid)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body)))
        kind = data.draw(st.sampled_from(["insert", "delete", "flip", "cut", "repeat"]))
        if kind == "insert":
            body[at:at] = data.draw(st.sampled_from(snippets))
        elif kind == "delete":
            del body[at : at + data.draw(st.integers(1, 6))]
        elif kind == "flip" and at < len(body):
            body[at] ^= 1 << data.draw(st.integers(0, 7))
        elif kind == "cut":
            del body[at:]
        elif kind == "repeat":
            body += body[at:]
    judged(*post(client, bytes(body)))


@cases(1500)
@given(opening=st.text("[{", min_size=1, max_size=6), times=st.integers(1, 20_000), key=st.booleans())
def test_nesting_however_deep_is_refused(
    client: http.client.HTTPConnection, opening: str, times: int, key: bool
) -> None:
    text = (opening.replace("{", '{"x":') if key else opening) * times
    judged(*post(client, f'{{"inputs":{text[: LIMIT - 64]}1'.encode()))


@cases(1000)
@given(
    body=st.sampled_from(valid),
    encoding=st.sampled_from(["gzip", "deflate", "br", "zstd", "identity", "x", "gzip, gzip", ""]),
    cut=st.integers(0, 30),
    size=st.sampled_from([0, 1 << 10, 32 << 20]),
)
def test_a_body_that_lies_about_its_encoding_is_the_senders_fault(
    adapter: Adapter, body: bytes, encoding: str, cut: int, size: int
) -> None:
    packed = gzip.compress(body + b" " * size, 1)
    packed = packed[: len(packed) - cut]
    if len(packed) > LIMIT:
        packed = packed[:LIMIT]
    answer = adapter.request("POST", PATH, packed, {"Content-Encoding": encoding})
    assert answer.status < 500, answer


header_names = st.sampled_from(
    ["Content-Length", "Transfer-Encoding", "Expect", "Connection", "X-Request-Id", "X-Request-Timeout", "Prefer",
     "grpc-timeout", "Host", "Accept-Encoding", "Upgrade", "Origin", "traceparent"]
)  # fmt: skip
header_values = st.one_of(
    st.sampled_from(["0", "5", "-1", "99999999999", "chunked", "gzip, chunked", "100-continue", "close", "1e3", "1S"]),
    st.binary(max_size=20).map(lambda raw: raw.decode("latin-1")),
)


@cases(2000)
@given(
    method=st.one_of(st.sampled_from(["GET", "POST", "HEAD", "OPTIONS", "PUT", "TRACE"]), st.text("AZaz!", max_size=5)),
    path=st.one_of(st.sampled_from([PATH, "/v1/models/half_plus_two", "/v2", "/health", "*", "//", "/%", "/v1/%00"]),
                   st.binary(max_size=24).map(lambda raw: "/" + raw.decode("latin-1"))),
    headers=st.lists(st.tuples(header_names, header_values), max_size=5),
    body=st.one_of(st.sampled_from(valid), st.binary(max_size=40)),
)  # fmt: skip
def test_any_bytes_on_the_wire_get_an_answer_or_a_closed_connection(
    adapter: Adapter, method: str, path: str, headers: list[tuple[str, str]], body: bytes
) -> None:
    head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers)
    with socket.create_connection(("127.0.0.1", adapter.port), timeout=20) as connection:
        # Closed by a reset, so that thousands of short connections leave no port behind in TIME_WAIT.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(head.encode("latin-1") + b"\r\n" + body)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while chunk := connection.recv(65536):
                answer += chunk
    if answer:
        assert answer.startswith(b"HTTP/1.")
        status = int(answer[9:12])
        assert status < 500 or (status == 501 and method not in ALLOWED), answer


def resident(pid: int) -> int:
    """Bytes of resident memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
