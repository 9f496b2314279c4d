"""One service, seen from outside: requests to it, with a token if there is one."""

import http.client
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


class Unreachable(Exception):
    """Nobody answers at the address, or it is no address."""


@dataclass(frozen=True)
class Answer:
    """Status, headers (names in lower case) and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def media_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0]


class Service:
    """The service at `url`, under whatever path prefix; `ca` is a file of certificates to trust."""

    def __init__(self, url: str, token: str = "", timeout: float = 10.0, ca: str = "") -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Unreachable(f"{url}: expected http://HOST or https://HOST, with a port and a path if need be")
        self._parts = parts
        self._prefix = parts.path.rstrip("/")
        self._token = token
        self._timeout = timeout
        self._context = ssl.create_default_context(cafile=ca or None) if parts.scheme == "https" else None
        self.bundles: set[str | None] = set()
        """What answers have said in X-Bundle."""

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        token: bool = True,
    ) -> Answer:
        """One request on a connection of its own. Raises Unreachable."""
        given = dict(headers or {})
        if token and self._token:
            given.setdefault("Authorization", f"Bearer {self._token}")
        connection = self._connection()
        try:
            connection.request(method, self._prefix + path, body, given)
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            answer = Answer(response.status, names, response.read())
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"{method} {path}: {error or type(error).__name__}") from None
        finally:
            connection.close()
        if answer.status < 400:
            self.bundles.add(answer.headers.get("x-bundle"))
        return answer

    def get(self, path: str, **headers: str) -> Answer:
        """A GET; header names with _ for -."""
        return self.request("GET", path, headers={name.replace("_", "-"): text for name, text in headers.items()})

    def post(self, path: str, document: object) -> Answer:
        """A POST of a JSON document."""
        return self.request("POST", path, json.dumps(document).encode(), {"Content-Type": "application/json"})

    def _connection(self) -> http.client.HTTPConnection:
        host, port = str(self._parts.hostname), self._parts.port
        if self._context is not None:
            return http.client.HTTPSConnection(host, port, timeout=self._timeout, context=self._context)
        return http.client.HTTPConnection(host, port, timeout=self._timeout)
