"""One metrics page of two tasks: the real adapter beside a real model server with its monitoring page."""

import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.adapters import Adapter, state
from tests.golden.conftest import DATA
from tests.metrics import Page, promtool_complaints, read_openmetrics, read_text, value
from tests.pages import Pages
from tests.servers import ModelServer

OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}
RECORDED = (DATA / "metrics_after_rest.txt").read_bytes()
PATH = "/monitoring/prometheus/metrics"
PREDICTED = "tensorflow_serving_request_count_total"


@pytest.fixture
def adapter(monitored: ModelServer, bundle: Path) -> Iterator[Adapter]:
    url = f"http://127.0.0.1:{monitored.rest_port}{PATH}"
    with Adapter(tfs_grpc=monitored.target, bundle=bundle, tfs_metrics_url=url) as running:
        yield running.ready()


def page_of(adapter: Adapter) -> Page:
    answer = adapter.request("GET", "/metrics")
    assert answer.status == 200
    return read_text(answer.body)


def theirs(page: Page) -> set[str]:
    return {name for name in page if name.startswith("tensorflow_")}


def test_both_tasks_figures_are_on_one_page(adapter: Adapter) -> None:
    assert adapter.predict("half_plus_two", {"instances": [1.0, 2.0]}).status == 200
    page = page_of(adapter)
    served = {"http_request_method": "POST", "http_route": "/v1/models/{model}:predict"}
    assert value(page, "http_server_request_duration_seconds_count", **served, http_response_status_code="200") == 1
    assert value(page, PREDICTED, model_name="half_plus_two", status="OK") == 1
    assert value(page, "tandem_calls_limit", model="half_plus_two") > 0
    assert value(page, "tandem_model_calls_waiting", model="half_plus_two") == 0
    latency = {"model_name": "half_plus_two", "API": "Predict", "entrypoint": "GRPC"}
    assert value(page, "tensorflow_serving_request_latency_seconds_count", **latency) == 1
    took = value(page, "tensorflow_serving_request_latency_seconds_sum", **latency)
    assert took is not None
    assert 0 < took < 30
    assert value(page, "tandem_tfs_metrics_enabled") == value(page, "tandem_tfs_scrape_up") == 1
    assert value(page, "tandem_tfs_scrape_samples") == sum(len(page[name].samples) for name in theirs(page))


def test_the_page_is_valid_in_both_formats(adapter: Adapter) -> None:
    adapter.predict("half_plus_two", {"instances": [1.0]})
    text = adapter.request("GET", "/metrics")
    assert text.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert promtool_complaints(text.body) == ""
    openmetrics = adapter.request("GET", "/metrics", headers=OPENMETRICS)
    assert openmetrics.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert openmetrics.body.endswith(b"\n# EOF\n")
    assert theirs(read_openmetrics(openmetrics.body)) == theirs(read_text(text.body)) != set()


def test_who_it_is_stands_on_the_page(adapter: Adapter) -> None:
    page = page_of(adapter)
    (target,) = page["target_info"].samples
    assert target.labels["service_name"] == "halves"
    assert target.labels["service_version"] == "1.2.3"
    assert value(page, "tandem_info", adapter="0.1.0", bundle="halves", bundle_version="1.2.3") == 1


def test_head_has_the_headers_and_no_body(adapter: Adapter) -> None:
    answer = adapter.request("HEAD", "/metrics", headers=OPENMETRICS)
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert int(answer.headers["content-length"]) > 1000
    assert answer.body == b""


def test_when_tfs_is_gone_its_series_are_too_and_the_page_still_comes_at_once(
    adapter: Adapter, monitored: ModelServer
) -> None:
    assert theirs(page_of(adapter))
    monitored.kill()
    started = time.monotonic()
    page = page_of(adapter)
    assert time.monotonic() - started < 5
    assert theirs(page) == set()
    assert value(page, "tandem_tfs_scrape_up") == value(page, "tandem_tfs_scrape_samples") == 0
    monitored.start()
    page = page_of(adapter)
    assert theirs(page)
    assert value(page, "tandem_tfs_scrape_up") == 1


# The adapter as it is, but for a watcher that asks once and then waits to be told.
UNASKED = (
    "from adapter.group import watcher; watcher.STEADY_SECONDS = 3600.0; from adapter.__main__ import main; main()"
)


def test_a_page_that_does_not_come_makes_the_group_look_at_tfs_at_once(monitored: ModelServer, bundle: Path) -> None:
    """A stopped process keeps its connection: nothing but the page tells of it before the watcher's next question."""
    url = f"http://127.0.0.1:{monitored.rest_port}{PATH}"
    with Adapter(program=("-c", UNASKED), tfs_grpc=monitored.target, bundle=bundle, tfs_metrics_url=url) as adapter:
        adapter.ready()
        monitored.process.send_signal(signal.SIGSTOP)
        assert value(page_of(adapter), "tandem_tfs_scrape_up") == 0
        degraded = adapter.wait_for(state("degraded"))
        assert adapter.request("GET", "/health/ready").status == 503
        monitored.process.send_signal(signal.SIGCONT)
        adapter.wait_for(state("ready"), after=adapter.records.index(degraded))
    assert "TensorFlow Serving does not answer within 0.4 s" in degraded["body"]


def test_a_page_that_comes_is_no_proof_of_readiness() -> None:
    with scraping(Pages(body=RECORDED)) as adapter:
        assert value(page_of(adapter), "tandem_tfs_scrape_up") == 1
        assert adapter.request("GET", "/health/ready").status == 503
        assert adapter.request("GET", "/health").json["state"] == "starting"


def test_without_a_monitoring_page_the_adapters_figures_stand_alone(server: ModelServer, bundle: Path) -> None:
    with Adapter(tfs_grpc=server.target, bundle=bundle) as adapter:
        page = page_of(adapter.ready())
    assert value(page, "tandem_tfs_metrics_enabled") == 0
    assert theirs(page) == set()
    assert not any(name.startswith("tandem_tfs_scrape") for name in page)


# A page that the test makes up, where no model server would send one.


@contextmanager
def scraping(pages: Pages, **settings: object) -> Iterator[Adapter]:
    """An adapter without a TensorFlow Serving that scrapes these pages."""
    with (
        pages.served() as address,
        Adapter(tfs_grpc="127.0.0.1:1", tfs_metrics_url=address + PATH, **settings) as adapter,
    ):
        yield adapter


def test_a_stock_servers_full_page_is_merged() -> None:
    with scraping(Pages(body=RECORDED)) as adapter:
        page = page_of(adapter)
        assert promtool_complaints(adapter.request("GET", "/metrics").body) == ""
        read_openmetrics(adapter.request("GET", "/metrics", headers=OPENMETRICS).body)
    assert value(page, PREDICTED, model_name="half_plus_two", status="OK") == 32
    assert value(page, PREDICTED, model_name="other", status="NOT_FOUND") == 5
    assert value(page, "tandem_tfs_scrape_samples") == 998 - 1  # a stranger's name joins another
    assert value(page, "tandem_tfs_scrape_skipped") == 0


def test_with_a_bundle_its_models_alone_have_names(bundle: Path) -> None:
    with scraping(Pages(body=RECORDED), bundle=bundle) as adapter:
        page = page_of(adapter)
    assert {s.labels["model_name"] for s in page["tensorflow_serving_request_count"].samples} == {
        "half_plus_two",
        "other",
    }


def test_a_page_that_hangs_is_given_up_in_time() -> None:
    with scraping(Pages(wait=threading.Event())) as adapter:
        started = time.monotonic()
        page = page_of(adapter)
        assert time.monotonic() - started < 5
    assert value(page, "tandem_tfs_scrape_up") == 0
    took = value(page, "tandem_tfs_scrape_duration_seconds")
    assert took is not None
    assert 0.8 <= took < 5


def test_all_who_ask_at_one_time_share_one_fetch() -> None:
    pages = Pages(body=RECORDED, wait=threading.Event())
    with scraping(pages) as adapter, ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(adapter.request, "GET", "/metrics") for _ in range(8)]
        assert pages.one_asked.wait(30)
        seen = [read_text(answer.result().body) for answer in answers]
        assert pages.asked == 1
    assert all(value(page, "tandem_tfs_scrape_up") == 0 for page in seen)


@pytest.mark.parametrize(
    ("pages", "reason"),
    [
        ({"status": 404, "body": b"<HTML>"}, "it answered 404"),
        ({"status": 302}, "it answered 302"),
        ({"body": b"#" * (8 * 2**20 + 1)}, "it has more than 8388608 bytes"),
    ],
)
def test_what_is_no_page_is_left_out_and_the_log_says_why_once(pages: dict[str, object], reason: str) -> None:
    with scraping(Pages(**pages)) as adapter:  # type: ignore[arg-type]
        for _ in range(3):
            assert value(page_of(adapter), "tandem_tfs_scrape_up") == 0
        assert adapter.stop() == 0
        said = [record["body"] for record in adapter.records if "monitoring page" in record["body"]]
    assert said == [f"TensorFlow Serving's monitoring page cannot be had: {reason}"]


def test_bytes_that_are_no_metrics_leave_the_page_valid() -> None:
    with scraping(Pages(body=bytes(range(256)) * 50)) as adapter:
        page = page_of(adapter)
        read_openmetrics(adapter.request("GET", "/metrics", headers=OPENMETRICS).body)
    assert theirs(page) == set()
    assert value(page, "tandem_tfs_scrape_up") == 1
    skipped = value(page, "tandem_tfs_scrape_skipped")
    assert skipped is not None
    assert skipped > 0


def test_a_client_that_goes_away_leaves_the_fetch_to_the_others() -> None:
    pages = Pages(body=RECORDED, wait=threading.Event())
    with scraping(pages) as adapter, ThreadPoolExecutor(1) as pool:
        with socket.create_connection(("127.0.0.1", adapter.port)) as leaving:
            leaving.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
            assert pages.one_asked.wait(30)
            staying = pool.submit(adapter.request, "GET", "/metrics")
        assert pages.wait is not None
        pages.wait.set()
        assert staying.result().status == 200
