"""A small request beside large ones, whatever these hold: it is answered in between, not after them."""

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.adapters import Adapter
from tests.golden.conftest import DATA
from tests.servers import ModelServer

# Seconds that a small request may wait on a busy machine, or else this share of the time that the large ones take: in one
# go, these bodies took 0.4 s to 1.5 s, which was most of it.
LONGEST, SHARE = 0.25, 0.25
PREDICT = "/v1/models/half_plus_two:predict"


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adapter]:
    config = tmp_path_factory.mktemp("turns") / "models.config"
    models = [
        f'config {{ name: "{name}" base_path: "{DATA / "models" / name}" model_platform: "tensorflow" }}'
        for name in ("half_plus_two", "examples")
    ]
    config.write_text(f"model_config_list {{ {' '.join(models)} }}")
    with (
        ModelServer(f"--model_config_file={config}", "--grpc_max_threads=8") as server,
        Adapter(tfs_grpc=server.target, request_timeout=120) as running,
    ):
        yield running.ready()


def many(value: bytes, count: int) -> bytes:
    return b",".join([value] * count)


@pytest.mark.parametrize(
    ("path", "body", "at_once", "status"),
    [
        pytest.param(
            "/v1/models/examples:classify",
            b'{"signature_name":"classify_x_to_y","examples":[%b]}' % many(b'{"x":1.5}', 100_000),
            1,
            200,
            id="examples",
        ),
        pytest.param(PREDICT, b'{"instances":[%b]}' % many(b'{"x":1.5}', 300_000), 4, 200, id="rows of objects"),
        pytest.param(PREDICT, b'{"instances":[%b1]}' % (b" " * 30_000_000), 1, 200, id="white space"),
        pytest.param(PREDICT, b'{"instances":[%b,null]}' % many(b"1.5", 1_900_000), 1, 400, id="a late null"),
    ],
)
def test_a_small_request_is_answered_beside_large_ones(
    adapter: Adapter, path: str, body: bytes, at_once: int, status: int
) -> None:
    # A machine that is busy with others holds up anybody, now and then; the adapter held up everybody, each time.
    for _ in range(3):
        began = time.perf_counter()
        waited = longest_wait_beside(adapter, path, body, at_once, status)
        if waited < max(LONGEST, SHARE * (time.perf_counter() - began)):
            return
    pytest.fail(f"a small request waited {waited:.2f} s, thrice")


def longest_wait_beside(adapter: Adapter, path: str, body: bytes, at_once: int, status: int) -> float:
    longest = 0.0
    with ThreadPoolExecutor(at_once) as clients, contextlib.closing(adapter.connection(timeout=60)) as small:
        large = [clients.submit(adapter.request, "POST", path, body) for _ in range(at_once)]
        while not all(request.done() for request in large):
            before = time.perf_counter()
            small.request("GET", "/health/live")
            answer = small.getresponse()
            assert answer.status == 200
            answer.read()
            longest = max(longest, time.perf_counter() - before)
        assert [request.result().status for request in large] == [status] * at_once
    return longest
