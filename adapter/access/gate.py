"""The gate that every request passes before its body is read: address → policy → token → scope → tenant → limits.

A gate that has nothing to ask is None: then the chain pays for one comparison. Refusals of tokens are told as RFC 6750
has it, in `WWW-Authenticate`; those of limits as draft-ietf-httpapi-ratelimit-headers has it.
"""

import math
import time
from collections.abc import Mapping

from adapter.access.allowlist import AddressRules
from adapter.access.denials import Denials
from adapter.access.limits import Meter
from adapter.access.policy import ANY, CLOSED, OPEN, Policy
from adapter.access.principal import Principal
from adapter.access.tenants import Tenants
from adapter.access.tokens import InvalidToken, NoKeys, Tokens
from adapter.errors import Refused
from adapter.exchange import Exchange
from adapter.telemetry.metrics import observe_tenant

REALM = 'Bearer realm="tandem"'
_METERED = "predict"


class Gate:
    """`addresses` None: every address gets in. `tokens` None: no token is asked for. `tenants` None: all use the same.

    `models` are the bundle's, which its `/predict` may call. With `preflights`, browsers' OPTIONS need no token. With
    `certificates`, what is not open needs a client certificate, which the handshake has checked.
    """

    def __init__(
        self,
        denials: Denials,
        policy: Policy,
        tokens: Tokens | None = None,
        tenants: Tenants | None = None,
        models: frozenset[str] = frozenset(),
        *,
        preflights: bool = False,
        certificates: bool = False,
    ) -> None:
        self.addresses: AddressRules | None = None
        self._denials = denials
        self._policy = policy
        self._tokens = tokens
        self._tenants = tenants
        self._models = models
        self._preflights = preflights
        self._certificates = certificates

    async def admit(self, exchange: Exchange) -> None:
        """Let the request in, with `client`, `principal` and `tenant` told to it.

        Raises:
            Refused: 403 for an address, a scope, a tenant or a model that may not, 401 without a valid token, 429 beyond
                a limit, 503 while no token can be judged.
        """
        if self.addresses is not None:
            self._check_address(self.addresses, exchange)
        if self._tokens is None and not self._certificates:
            return
        request = exchange.request
        demand = self._policy.demand(exchange.route, request.raw_path.partition("?")[0])
        if demand == OPEN or (self._preflights and request.method == "OPTIONS"):
            return
        if demand == CLOSED:
            raise await self._refused(exchange, "scope", 403, "This resource is closed", None)
        if self._certificates and not (request.transport and request.transport.get_extra_info("peercert")):
            raise await self._refused(exchange, "certificate", 403, "A client certificate is needed", None)
        if self._tokens is not None:
            await self._check_bearer(exchange, self._tokens, demand)

    def check_peer(self, exchange: Exchange) -> None:
        """Whether anything at all may come from where a request came whose head cannot be read. Raises Refused."""
        exchange.client = exchange.request.remote or ""
        if self.addresses is not None and not self.addresses.may_admit(exchange.client):
            raise self._denied(exchange)

    def leave(self, exchange: Exchange, status: int) -> None:
        """The request is answered with `status`, or its client is gone (499)."""
        if exchange.meter is not None:
            exchange.meter.leave()
        if exchange.tenant:
            observe_tenant(exchange.tenant, status, time.perf_counter() - exchange.started)

    async def _check_bearer(self, exchange: Exchange, tokens: Tokens, demand: str) -> None:
        token = await self._bearer(exchange)
        principal = tokens.remembered(token) or await self._verified(exchange, tokens, token)
        exchange.principal = principal
        exchange.attributes["enduser.id"] = principal.subject
        meter = None
        scopes = principal.scopes
        if self._tenants is not None:
            meter = self._tenants.meter(principal.tenant)
            if meter is not None:
                exchange.tenant = exchange.attributes["tandem.tenant"] = meter.name
                if not principal.scoped:
                    scopes = meter.quota.scopes or scopes
        if demand != ANY and demand not in scopes:
            await self._out_of_scope(exchange, demand)
        if self._tenants is not None and demand == _METERED:
            await self._measure(exchange, meter)

    def _check_address(self, addresses: AddressRules, exchange: Exchange) -> None:
        request = exchange.request
        health = exchange.route.startswith("/health")
        exchange.client, admitted = addresses.admits(request.remote or "", request.headers, health=health)
        if not admitted:
            raise self._denied(exchange)

    def _denied(self, exchange: Exchange) -> Refused:
        exchange.quiet = True
        exchange.attributes["tandem.denied"] = "address"
        self._denials.address(exchange.client)
        return Refused(403, "This address is not allowed", {"Connection": "close"})

    async def _bearer(self, exchange: Exchange) -> str:
        given = exchange.request.headers.getall("Authorization", ())
        if not given:
            raise await self._refused(exchange, "token", 401, "A bearer token is needed", REALM)
        if len(given) > 1:
            message = "More than one Authorization header"
            raise await self._refused(exchange, "token", 400, message, _challenge("invalid_request", message))
        scheme, _, token = given[0].partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise await self._refused(exchange, "token", 401, "A bearer token is needed", REALM)
        return token.strip()

    async def _verified(self, exchange: Exchange, tokens: Tokens, token: str) -> Principal:
        try:
            return await tokens.verify(token)
        except NoKeys:
            raise Refused(503, "No key to check tokens with could be had yet") from None
        except InvalidToken as error:
            challenge = _challenge("invalid_token", str(error))
            raise await self._refused(exchange, "token", 401, f"The token is not valid: {error}", challenge) from None

    async def _out_of_scope(self, exchange: Exchange, demand: str) -> None:
        message = f"The token lacks the scope {demand}"
        challenge = _challenge("insufficient_scope", message) + f', scope="{demand}"'
        raise await self._refused(exchange, "scope", 403, message, challenge)

    async def _measure(self, exchange: Exchange, meter: Meter | None) -> None:
        if meter is None:
            raise await self._refused(exchange, "tenant", 403, "The token's tenant may not use this service", None)
        allowed = meter.quota.models
        if allowed is not None and exchange.route == "/predict" and not self._models <= allowed:
            message = f"Tenant {meter.name} may not call every model that /predict does"
            raise await self._refused(exchange, "tenant", 403, message, None)
        if (too_much := meter.enter(time.monotonic())) is not None:
            exchange.attributes["tandem.denied"] = too_much.reason
            await self._denials.count(too_much.reason)
            headers = {"Retry-After": str(max(1, math.ceil(too_much.wait))), **too_much.headers}
            raise Refused(429, f"Beyond the {too_much.reason} limit of tenant {meter.name}", headers)
        exchange.meter = meter

    async def _refused(
        self, exchange: Exchange, reason: str, status: int, message: str, challenge: str | None
    ) -> Refused:
        exchange.attributes["tandem.denied"] = reason
        await self._denials.count(reason)
        headers: Mapping[str, str] = {} if challenge is None else {"WWW-Authenticate": challenge}
        return Refused(status, message, headers)


def _challenge(error: str, description: str) -> str:
    """RFC 6750 §3; the description has neither quotes nor backslashes, as it must."""
    return f'{REALM}, error="{error}", error_description="{description}"'
