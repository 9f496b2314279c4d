"""Settings → the gate, and what keeps it current while the service runs."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from adapter.access.allowlist import AddressError, AddressRules, Network, networks
from adapter.access.denials import Denials
from adapter.access.files import Rendered, Unusable, follow
from adapter.access.gate import Gate
from adapter.access.jwks import JwksFile, JwksUrl
from adapter.access.keys import read_secrets
from adapter.access.policy import SCOPES, Policy, PolicyError
from adapter.access.tenants import Tenants
from adapter.access.tls import ServerTls
from adapter.access.tokens import PublicKeys, TokenRules, Tokens
from adapter.settings import Settings, SettingsError

NO_KEYS = "no key to check tokens with could be had yet"

Results = dict[str, tuple[bool, str]]


class Access:
    """`gate` is None where nothing is asked of anybody; `run` keeps it current, if there is `anything_to_follow`.

    Raises:
        SettingsError: naming everything that cannot be read.
    """

    def __init__(self, settings: Settings, models: frozenset[str] = frozenset()) -> None:
        self.gate: Gate | None = None
        self.asks_for_tokens = bool(settings.jwt_jwks or settings.jwt_secret_file)
        self.observe: Callable[[Results], object] = lambda _: None
        """Told when the check `keys` changes, where keys come by URL."""
        self._settings = settings
        self._files: list[Rendered] = []
        self._background: list[Callable[[], Coroutine[Any, Any, None]]] = []
        self._problems = _contradictions(settings)
        self._networks: dict[str, tuple[Network, ...]] = {}
        self._jwks: JwksUrl | None = None
        policy = self._policy()
        self.demand = (lambda path: policy.demand(path, path)) if self.asks_for_tokens else None
        """What a path asks for; None where no token is asked for."""
        tokens = self._tokens() if self.asks_for_tokens else None
        tenants = Tenants() if settings.tenants else None
        if tenants is not None:
            self._follow("tenants", settings.tenants, tenants.take)
        for name in ("allow", "allow_health", "trusted_proxies"):
            self._add_networks(name, getattr(settings, name))
        self.tls = self._tls() if settings.tls_certificate else None
        if self._problems:
            raise SettingsError(self._problems)
        if tokens is not None or settings.allow or settings.tls_client_ca:
            self.gate = Gate(
                Denials(),
                policy,
                tokens,
                tenants,
                models,
                preflights=settings.cors,
                certificates=bool(settings.tls_client_ca),
            )
            self._rule()

    @property
    def anything_to_follow(self) -> bool:
        """Whether `run` has something to do."""
        return bool(self._files or self._background)

    async def run(self) -> None:
        """Keep current what comes from files and URLs, for ever."""
        if self._jwks is not None and self._jwks.keys is None:
            self.observe({"keys": (False, NO_KEYS)})
        async with asyncio.TaskGroup() as group:
            if self._files:
                group.create_task(follow(self._files))
            for start in self._background:
                group.create_task(start())

    def _policy(self) -> Policy:
        try:
            return Policy(self._settings.policy)
        except PolicyError as error:
            self._problems += [f"ADAPTER_POLICY: {problem}" for problem in error.problems]
            return Policy()

    def _tokens(self) -> Tokens:
        settings = self._settings
        rules = TokenRules(
            issuer=settings.jwt_issuer,
            audiences=frozenset(_words(settings.jwt_audience)),
            leeway=settings.jwt_leeway,
            required=tuple(_words(settings.jwt_required)),
            scope_claim=settings.jwt_scope_claim,
            scopes=frozenset(_words(settings.jwt_scopes)),
            tenant_claim=settings.jwt_tenant_claim,
        )
        public: PublicKeys | None = None
        if settings.jwt_jwks.startswith(("http://", "https://")):
            self._jwks = public = JwksUrl(settings.jwt_jwks, settings.jwt_jwks_refresh, lambda: self._keys_came(tokens))
            self._background.append(self._jwks.run)
        elif settings.jwt_jwks:
            file = JwksFile(lambda: tokens.forget())
            public = file
        tokens = Tokens(rules, public)
        if isinstance(public, JwksFile):
            self._follow("jwt_jwks", settings.jwt_jwks, public.take)
        if settings.jwt_secret_file:
            self._follow(
                "jwt_secret_file", settings.jwt_secret_file, lambda text: tokens.use_secrets(read_secrets(text))
            )
        return tokens

    def _tls(self) -> ServerTls:
        settings = self._settings
        certificate = Path(settings.tls_certificate)
        key = Path(settings.tls_key) if settings.tls_key else None
        authority = Path(settings.tls_client_ca) if settings.tls_client_ca else None
        tls = ServerTls(certificate, key, authority)
        files = [Rendered(path, tls.load) for path in (certificate, key, authority) if path is not None]
        for file in files:
            file.note()
        self._files += files
        try:
            tls.load()
        except Unusable as error:
            self._problems.append(f"ADAPTER_TLS_CERTIFICATE: {error}")
        return tls

    def _keys_came(self, tokens: Tokens) -> None:
        tokens.forget()
        self.observe({"keys": (True, "the keys to check tokens with are there")})

    def _follow(self, name: str, path: str, take: Callable[[bytes], None]) -> None:
        file = Rendered(Path(path), take)
        try:
            file.read()
        except Unusable as error:
            self._problems.append(f"ADAPTER_{name.upper()}: {error}")
        self._files.append(file)

    def _add_networks(self, name: str, value: str) -> None:
        self._networks[name] = ()
        if value.startswith("@"):
            self._follow(name, value[1:], lambda content: self._take_networks(name, content))
            return
        try:
            self._networks[name] = networks(value)
        except AddressError as error:
            self._problems.append(f"ADAPTER_{name.upper()}: {error}")

    def _take_networks(self, name: str, content: bytes) -> None:
        try:
            found = networks(content.decode("utf-8-sig"))
        except (AddressError, UnicodeDecodeError) as error:
            raise Unusable(str(error)) from None
        if not found and name == "allow":
            raise Unusable("no network in it, which would let nobody in")
        self._networks[name] = found
        self._rule()

    def _rule(self) -> None:
        if self.gate is not None and self._settings.allow:
            parts = self._networks
            self.gate.addresses = AddressRules(parts["allow"], parts["allow_health"], parts["trusted_proxies"])


def _words(text: str) -> list[str]:
    return [word for word in (part.strip() for part in text.split(",")) if word]


def _contradictions(settings: Settings) -> list[str]:
    """Settings that mean nothing without others, or that production does not allow."""
    problems = []
    tokens = bool(settings.jwt_jwks or settings.jwt_secret_file)
    if not settings.allow and (settings.allow_health or settings.trusted_proxies):
        problems.append("ADAPTER_ALLOW_HEALTH and ADAPTER_TRUSTED_PROXIES mean nothing without ADAPTER_ALLOW")
    given = [name for name in ("jwt_issuer", "jwt_audience", "jwt_scopes", "tenants") if getattr(settings, name)]
    if given and not tokens:
        names = ", ".join(f"ADAPTER_{name.upper()}" for name in given)
        problems.append(f"{names}: no token is asked for without ADAPTER_JWT_JWKS or ADAPTER_JWT_SECRET_FILE")
    if settings.policy and not (tokens or settings.tls_client_ca):
        problems.append(
            "ADAPTER_POLICY: nothing is asked for without ADAPTER_JWT_JWKS, _SECRET_FILE or ADAPTER_TLS_CLIENT_CA"
        )
    if "://" in settings.jwt_jwks:
        url = urlsplit(settings.jwt_jwks)
        if url.scheme not in ("http", "https") or not url.hostname:
            problems.append("ADAPTER_JWT_JWKS: expected http(s)://host/path or a file")
    if (settings.tls_key or settings.tls_client_ca) and not settings.tls_certificate:
        problems.append("ADAPTER_TLS_KEY and ADAPTER_TLS_CLIENT_CA mean nothing without ADAPTER_TLS_CERTIFICATE")
    if unknown := set(_words(settings.jwt_scopes)) - set(SCOPES):
        problems.append(
            f"ADAPTER_JWT_SCOPES: no such scope: {', '.join(sorted(unknown))}; there are {', '.join(SCOPES)}"
        )
    if settings.production and not tokens:
        problems.append(
            "ADAPTER_PRODUCTION: ADAPTER_JWT_JWKS or ADAPTER_JWT_SECRET_FILE is missing: in production tokens are asked for"
        )
    elif settings.production and not settings.jwt_audience:
        problems.append(
            "ADAPTER_PRODUCTION: ADAPTER_JWT_AUDIENCE is missing: without it, tokens meant for other services are taken too"
        )
    return problems
