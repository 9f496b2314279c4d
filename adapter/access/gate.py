"""The gate that every request passes before its body is read: address → policy → token → tenant and limits.

A gate that has nothing to ask is None: then the chain pays for one comparison.
"""

from adapter.access.allowlist import AddressRules
from adapter.access.denials import Denials
from adapter.errors import Refused
from adapter.exchange import Exchange


class Gate:
    """`addresses` is None where every address gets in."""

    def __init__(self, addresses: AddressRules | None, denials: Denials) -> None:
        self.addresses = addresses
        self._denials = denials

    async def admit(self, exchange: Exchange) -> None:
        """Let the request in, with `client`, `principal` and `tenant` told to it.

        Raises:
            Refused: 403 for an address that is not allowed.
        """
        if self.addresses is not None:
            self._check_address(self.addresses, exchange)

    def leave(self, exchange: Exchange) -> None:
        """The request is answered, or its client is gone."""

    def _check_address(self, addresses: AddressRules, exchange: Exchange) -> None:
        request = exchange.request
        health = exchange.route.startswith("/health")
        exchange.client, admitted = addresses.admits(request.remote or "", request.headers, health=health)
        if not admitted:
            exchange.quiet = True
            self._denials.address(exchange.client)
            raise Refused(403, "This address is not allowed", {"Connection": "close"})
