"""Bearer token → who asks. JSON Web Tokens (RFC 7519) under the rules of RFC 8725.

A token is refused before any cryptography is done for it unless its header is one that we understand in full: an
algorithm that the key itself allows, no duplicate and no critical members. Headers that name keys (`jku`, `jwk`, `x5u`,
`x5c`) are not looked at. Verified tokens are remembered by digest until they expire or the keys change, since checking
a signature costs a hundred times what the digest does.
"""

import base64
import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from adapter.access.keys import HMAC_BYTES, KeySet, signed_with
from adapter.access.principal import Principal
from adapter.access.secret import Secret

MAX_TOKEN = 6144
MAX_CLAIM = 512
MAX_REMEMBERED = 4096
ASYMMETRIC = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"})
_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt", "application/jwt"})
_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")


class InvalidToken(Exception):
    """A token that is not taken; the message may be told to who sent it."""


class NoKeys(Exception):
    """No key has been had yet, so no token can be judged."""


@dataclass(frozen=True)
class TokenRules:
    """What a token must say. `scopes` has who brings no scope claim."""

    issuer: str = ""
    audiences: frozenset[str] = frozenset()
    leeway: float = 10.0
    required: tuple[str, ...] = ("exp",)
    scope_claim: str = "scope"
    scopes: frozenset[str] = frozenset()
    tenant_claim: str = "tenant"


class PublicKeys(Protocol):
    """Where public keys are had from."""

    keys: KeySet | None

    async def unknown(self, identifier: str | None) -> None:
        """Ask for newer keys, and wait for them within reason."""


class Tokens:
    """Checks tokens by `rules` with public keys, shared secrets, or both."""

    def __init__(
        self,
        rules: TokenRules,
        public: PublicKeys | None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._rules = rules
        self._public = public
        self._now = now
        self._secrets: tuple[Secret, ...] = ()
        self._seen: dict[bytes, Principal] = {}

    def use_secrets(self, secrets: tuple[Secret, ...]) -> None:
        """Check HS tokens with these from now on."""
        self._secrets = secrets
        self.forget()

    def forget(self) -> None:
        """The keys have changed: judge every token anew."""
        self._seen.clear()

    def remembered(self, token: str) -> Principal | None:
        """Whose token this is, if it was verified before and still holds."""
        principal = self._seen.get(_digest(token))
        if principal is None or self._now() >= principal.expires + self._rules.leeway:
            return None
        return principal

    async def verify(self, token: str) -> Principal:
        """Whose token this is.

        Raises:
            InvalidToken: it cannot be trusted; the message says why.
            NoKeys: nobody can say, for now.
        """
        if len(token) > MAX_TOKEN:
            raise InvalidToken(f"longer than {MAX_TOKEN} bytes")
        header, payload, signed, signature = _parts(token)
        algorithm = _checked(header)
        if algorithm in HMAC_BYTES:
            good = signed_with(self._secrets, algorithm, signed, signature)
        else:
            good = await self._verified(header.get("kid"), algorithm, signed, signature)
        if not good:
            raise InvalidToken("the signature is not of a known key")
        principal = principal_of(_object(payload, "payload"), self._rules, self._now())
        if len(self._seen) >= MAX_REMEMBERED:
            del self._seen[next(iter(self._seen))]
        self._seen[_digest(token)] = principal
        return principal

    async def _verified(self, identifier: str | None, algorithm: str, signed: bytes, signature: bytes) -> bool:
        public = self._public
        if public is None:
            return False
        key = _pick(public.keys, identifier, algorithm)
        if key is None:
            await public.unknown(identifier)
            if public.keys is None:
                raise NoKeys
            key = _pick(public.keys, identifier, algorithm)
        return key is not None and key.verifies(algorithm, signed, signature)


def _pick(keys: KeySet | None, identifier: str | None, algorithm: str) -> Any:
    if keys is None:
        return None
    return keys.only(algorithm) if identifier is None else keys.named(identifier)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _parts(token: str) -> tuple[dict[str, Any], bytes, bytes, bytes]:
    match = _COMPACT.fullmatch(token)
    if match is None:
        raise InvalidToken("not three parts of base64url")
    head, body, end = (_decoded(part) for part in match.groups())
    return _object(head, "header"), body, token[: match.end(2)].encode(), end


def _decoded(part: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError:
        raise InvalidToken("not three parts of base64url") from None


def _object(text: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(text, object_pairs_hook=_without_doubles, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise InvalidToken(f"the {what} is no JSON object whose members all differ") from None
    if not isinstance(found, dict):
        raise InvalidToken(f"the {what} is no JSON object")
    return found


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _checked(header: Mapping[str, Any]) -> str:
    """The algorithm of a header that is understood in full."""
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or not (algorithm in ASYMMETRIC or algorithm in HMAC_BYTES):
        raise InvalidToken("its algorithm is not one of RS, PS, ES, EdDSA and HS")
    if "crit" in header or "b64" in header:
        raise InvalidToken("it has critical header members, and none is understood")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise InvalidToken("it is of another type than an access token")
    if not isinstance(header.get("kid", ""), str) or len(header.get("kid", "")) > MAX_CLAIM:
        raise InvalidToken("its kid is no short string")
    return algorithm


def principal_of(claims: Mapping[str, Any], rules: TokenRules, now: float) -> Principal:
    """Whom the verified `claims` name.

    Raises:
        InvalidToken: they break a rule.
    """
    for name in rules.required:
        if claims.get(name) is None:
            raise InvalidToken(f"the claim {name} is missing")
    expires, begins, issued = (_date(claims, name) for name in ("exp", "nbf", "iat"))
    if expires is not None and now >= expires + rules.leeway:
        raise InvalidToken("it has expired")
    if begins is not None and now < begins - rules.leeway:
        raise InvalidToken("it is not valid yet")
    if issued is not None and now < issued - rules.leeway:
        raise InvalidToken("it was issued in the future")
    issuer = _text(claims, "iss")
    if rules.issuer and issuer != rules.issuer:
        raise InvalidToken("its issuer is not the expected one")
    if rules.audiences and not rules.audiences & _audiences(claims):
        raise InvalidToken("it is for another audience")
    return Principal(
        subject=_text(claims, "sub"),
        issuer=issuer,
        scopes=_scopes(claims, rules),
        scoped=claims.get(rules.scope_claim) is not None,
        tenant=_text(claims, rules.tenant_claim),
        expires=expires if expires is not None else float("inf"),
    )


def _date(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e12:
        raise InvalidToken(f"the claim {name} is no date in seconds")
    return float(value)


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > MAX_CLAIM:
        raise InvalidToken(f"the claim {name} is no short string")
    return value


def _audiences(claims: Mapping[str, Any]) -> frozenset[str]:
    value = claims.get("aud")
    members = value if isinstance(value, list) else [value]
    return frozenset(member for member in members if isinstance(member, str))


def _scopes(claims: Mapping[str, Any], rules: TokenRules) -> frozenset[str]:
    """A string of words (RFC 8693 §4.2), or a list of them as some issuers write."""
    value = claims.get(rules.scope_claim)
    if value is None:
        return rules.scopes
    words = value.split(" ") if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise InvalidToken(f"the claim {rules.scope_claim} is no list of words")
    return frozenset(word for word in words if word)
