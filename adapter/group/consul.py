"""The Consul agent, by py-consul: every call in one thread, within a timeout, and imported only where Consul is configured.

What py-consul would do otherwise: CONSUL_HTTP_TOKEN wins over the token that it is given, and `requests` goes through the
environment's proxies and sends what a .netrc holds. The token is read anew for each call, so that a rotated one is used.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 2.0

T = TypeVar("T")


class ConsulFailed(Exception):
    """The agent cannot be reached, or refuses; the message says which, and holds no secret."""


class Agent:
    """The agent at `address` (`host:port` or a URL); `token_file` and `ca_file` may be empty."""

    def __init__(self, address: str, token_file: str = "", ca_file: str = "", datacenter: str = "") -> None:
        self._address = address
        self._token_file = token_file
        self._ca_file = ca_file
        self._datacenter = datacenter
        self._client: Any = None
        self._thread = ThreadPoolExecutor(1, "consul")

    async def call(self, do: Callable[[Any], T]) -> T:
        """`do(client)` with py-consul's client. Raises ConsulFailed."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._call, do)

    async def close(self) -> None:
        """Take no further call; the one that runs ends by its timeout."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _call(self, do: Callable[[Any], T]) -> T:
        import requests
        from consul.exceptions import ConsulException

        try:
            if self._client is None:
                self._client = self._connect()
            self._client.token = Path(self._token_file).read_text().strip() if self._token_file else None
            return do(self._client)
        except ConsulException as error:
            raise ConsulFailed(f"Consul refuses: {str(error)[:256] or type(error).__name__}") from None
        except requests.RequestException as error:
            raise ConsulFailed(f"Consul cannot be reached at {self._address}: {type(error).__name__}") from None
        except OSError as error:  # the token's file
            raise ConsulFailed(f"{error.filename}: {error.strerror}") from None

    def _connect(self) -> Any:
        import consul

        url = urlsplit(self._address if "://" in self._address else f"http://{self._address}")
        client = consul.Consul(
            host=url.hostname,
            port=url.port or (8501 if url.scheme == "https" else 8500),
            scheme=url.scheme,
            verify=self._ca_file or True,
            dc=self._datacenter or None,
            connections_timeout=TIMEOUT_SECONDS,
        )
        client.http.session.trust_env = False
        return client
