"""A JSON client for the agents' HTTP APIs that can wait for a change instead of polling for it.

Nomad and Consul answer a *blocking query*: `?index=N&wait=10s` returns when the thing asked for has changed since
index N, or after the wait. `HttpApi.until` builds on that: it returns as soon as what it waits for has happened.
"""

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any, TypeVar

from deploy.cluster.process import ClusterError

LONGEST_WAIT = 10.0
T = TypeVar("T")


class HttpApi:
    """One agent's HTTP API."""

    def __init__(self, url: str, index_header: str) -> None:
        self.url = url
        self._index_header = index_header

    def call(self, method: str, path: str, body: object = None, timeout: float = 30.0, **query: object) -> Any:
        """The decoded answer; `urllib.error.HTTPError` for a status of 400 and above."""
        return self._exchange(method, path, body, timeout, query)[0]

    def get(self, path: str, **query: object) -> Any:
        """`call` for a GET."""
        return self._exchange("GET", path, None, 30.0, query)[0]

    def until(self, path: str, accept: Callable[[Any], T | None], seconds: float, what: str, **query: object) -> T:
        """Follow `path` with blocking queries until `accept(answer)` is not None, and return that.

        Raises `ClusterError` naming `what` and the last answer when `seconds` have passed.
        """
        deadline = time.monotonic() + seconds
        index, answer = 0, None
        while (left := deadline - time.monotonic()) > 0:
            wait = min(left, LONGEST_WAIT)
            blocking = {"index": index, "wait": f"{wait:.1f}s"} if index else {}
            answer, index = self._exchange("GET", path, None, wait + 10, {**query, **blocking})
            if (accepted := accept(answer)) is not None:
                return accepted
        raise ClusterError(f"not within {seconds:.0f} s: {what}; last answer of {path}: {json.dumps(answer)[:2000]}")

    def _exchange(
        self, method: str, path: str, body: object, timeout: float, query: dict[str, object]
    ) -> tuple[Any, int]:
        url = f"{self.url}{path}?{urllib.parse.urlencode(query)}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data=data, method=method)  # noqa: S310 (our own loopback address)
        with urllib.request.urlopen(request, timeout=timeout) as response:  # noqa: S310
            text = response.read()
            index = int(response.headers.get(self._index_header) or 0)
        return (json.loads(text) if text else None), index
