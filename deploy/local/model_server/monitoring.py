"""What listens on --rest_api_port: the monitoring page where it is enabled, and libevent's 404 page for all else.

No REST prediction API: that is the adapter's work. Bytes as S: util/net_http/server and libevent's evhttp send them.
"""

import socket
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from deploy.local.model_server import logs
from deploy.local.model_server.metrics import Metrics


class MonitoringServer(ThreadingHTTPServer):
    """On all interfaces, both stacks; `path` is the page's, None where it is off."""

    address_family = socket.AF_INET6
    daemon_threads = True

    def __init__(self, port: int, path: str | None, metrics: Metrics) -> None:
        self.path = path
        self.metrics = metrics
        super().__init__(("::", port), _Handler)

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def serve_in_background(self) -> None:
        threading.Thread(target=self.serve_forever, name="monitoring", daemon=True).start()
        logs.net("evhttp_server.cc:261", "Entering the event loop ...")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: MonitoringServer

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.server.path
        if path is None or self.path.partition("?")[0] != path:
            self.send_error(HTTPStatus.NOT_FOUND)
        elif self.path != path:
            self._send(HTTPStatus.BAD_REQUEST, "text/plain", f"Unexpected path: {self.path}. Should be {path}")
        else:
            self._send(HTTPStatus.OK, "text/plain", self.server.metrics.page())

    do_GET = do_POST = do_HEAD = do_PUT = do_DELETE = do_OPTIONS = do_PATCH = _answer  # noqa: N815

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """libevent's page, also for the errors that http.server finds by itself."""
        phrase = HTTPStatus(code).phrase
        self.close_connection = True
        head = f"<HTML><HEAD>\n<TITLE>{int(code)} {phrase}</TITLE>\n</HEAD>"
        self._send(code, "text/html", f"{head}<BODY>\n<H1>{phrase}</H1>\n</BODY></HTML>\n")

    def _send(self, code: int, content_type: str, body: str) -> None:
        data = body.encode()
        self.send_response_only(code)
        self.send_header("Content-Type", content_type)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.send_header("Date", self.date_time_string())
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
