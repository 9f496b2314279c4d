"""A person at `/docs` in a real browser, behind a proxy that serves the service under a path prefix."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.expected_conditions import element_to_be_clickable, presence_of_element_located
from selenium.webdriver.support.wait import WebDriverWait

from tests.contract.services import service
from tests.tokens import token

SCREENSHOT = Path(__file__).parents[2] / ".cache" / "screenshots" / "docs.png"
PREFIX = "/models/halves"


@contextmanager
def proxy(port: int) -> Iterator[int]:
    """A reverse proxy that serves the service at `port` below PREFIX, and nothing else; its own port."""

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self.path.startswith(PREFIX + "/"):
                self.send_error(404)
                return
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            upstream.request(self.command, self.path.removeprefix(PREFIX), body, dict(self.headers.items()))
            answer = upstream.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
            upstream.close()

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@contextmanager
def browser() -> Iterator[Chrome]:
    """Chromium without a window."""
    options = ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1200,1600",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options, ChromeService("/usr/bin/chromedriver"))
    try:
        yield driver
    finally:
        driver.quit()


def test_a_prediction_is_made_with_try_it_out_and_a_token(tmp_path: Path) -> None:
    with service(tmp_path) as adapter, proxy(adapter.port) as port, browser() as page:
        wait = WebDriverWait(page, 60)

        def one(selector: str) -> WebElement:
            return wait.until(presence_of_element_located((By.CSS_SELECTOR, selector)))

        def click(selector: str) -> None:
            element = wait.until(element_to_be_clickable((By.CSS_SELECTOR, selector)))
            page.execute_script("arguments[0].scrollIntoView({block: 'center'}); arguments[0].click()", element)

        page.get(f"http://127.0.0.1:{port}{PREFIX}/docs#/Inference/predict")
        assert "halves" in one(".info .title").text
        click(".auth-wrapper .authorize")
        one(".auth-container input").send_keys(token("HS256", scope="predict"))
        click(".auth-container button.authorize")
        click(".auth-container .btn-done")
        click("#operations-Inference-predict .try-out__btn")
        click("#operations-Inference-predict .execute")
        answer = one(
            "#operations-Inference-predict .live-responses-table tbody .response-col_description .microlight"
        ).text
        assert one("#operations-Inference-predict .live-responses-table tbody .response-col_status").text.startswith(
            "200"
        )
        assert "2.5" in answer
        asked = one("#operations-Inference-predict .request-url pre").text
        assert asked == f"http://127.0.0.1:{port}{PREFIX}/v1/models/half_plus_two:predict"
        page.execute_script("document.querySelector('.live-responses-table').scrollIntoView({block: 'center'})")
        SCREENSHOT.parent.mkdir(parents=True, exist_ok=True)
        page.save_screenshot(str(SCREENSHOT))
        complaints = [entry["message"] for entry in page.get_log("browser") if entry["level"] == "SEVERE"]
        assert complaints == []  # a refusal by the page's Content-Security-Policy would be one
