"""A server of one page in the place of TensorFlow Serving's monitoring page."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Pages(http.server.ThreadingHTTPServer):
    """Answers every GET with `status` and `body`, once `wait` is set, if it is given; `one_asked` and `asked` tell who came."""

    daemon_threads = True

    def __init__(self, *, status: int = 200, body: bytes = b"", wait: threading.Event | None = None) -> None:
        self.status, self.body, self.wait = status, body, wait
        self.asked = 0
        self.one_asked = threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)

    @contextmanager
    def served(self) -> Iterator[str]:
        """Serve meanwhile; the address, to which any path may be added."""
        threading.Thread(target=self.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{self.server_address[1]}"
        finally:
            if self.wait is not None:
                self.wait.set()
            self.shutdown()
            self.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Pages

    def do_GET(self) -> None:
        self.server.asked += 1
        self.server.one_asked.set()
        if self.server.wait is not None:
            self.server.wait.wait(30)
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_: object) -> None:
        pass
