"""What listens on --rest_api_port: the monitoring page where it is enabled, and libevent's 404 page for all else.

No REST prediction API: that is the adapter's work. Bytes as S: util/net_http/server and libevent's evhttp send them.
"""

import socket
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from deploy.local.model_server import logs
from deploy.local.model_server.metrics import Metrics


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "MonitoringServer"

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        page = self.server.page
        if page is None or self.path.partition("?")[0] != page:
            self.send_error(HTTPStatus.NOT_FOUND)
        elif self.path != page:
            self._send(HTTPStatus.BAD_REQUEST, "text/plain", f"Unexpected path: {self.path}. Should be {page}")
        else:
            self._send(HTTPStatus.OK, "text/plain", self.server.metrics.page())

    do_GET = do_POST = do_HEAD = do_PUT = do_DELETE = do_OPTIONS = do_PATCH = _answer  # noqa: N815 - http.server's names

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """libevent's error page, for every error http.server finds by itself too."""
        del message, explain
        phrase = HTTPStatus(code).phrase
        title = f"<TITLE>{code} {phrase}</TITLE>"
        self._send(
            code,
            "text/html",
            f"<HTML><HEAD>\n{title}\n</HEAD><BODY>\n<H1>{phrase}</H1>\n</BODY></HTML>\n",
            close=True,
        )

    def _send(self, code: int, content_type: str, body: str, close: bool = False) -> None:
        data = body.encode()
        self.send_response_only(code)
        self.send_header("Content-Type", content_type)
        if close:
            self.send_header("Connection", "close")
        self.send_header("Date", self.date_time_string())
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class MonitoringServer(ThreadingHTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = True

    def __init__(self, port: int, page: str | None, metrics: Metrics) -> None:
        self.page = page
        self.metrics = metrics
        super().__init__(("::", port), _Handler)

    def server_bind(self) -> None:
        """All interfaces, both stacks, as evhttp does."""
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def serve_in_background(self) -> None:
        threading.Thread(target=self.serve_forever, name="monitoring", daemon=True).start()
        logs.net("evhttp_server.cc", 261, "Entering the event loop ...")
