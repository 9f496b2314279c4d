"""The keys that tokens are checked with: public ones from a JWK set (RFC 7517), shared ones from a rendered file.

Each key says which algorithms it is for, by what it is, never by what a token says: so no public key can serve as an
HMAC secret, and no curve stands in for another. PyJWT, and cryptography with it, is imported with the first key.
"""

from dataclasses import dataclass
from typing import Any

import orjson

from adapter.access.files import Unusable
from adapter.access.secret import Secret

MAX_KEYS = 100
MAX_SECRETS = 8
MIN_RSA_BITS = 2048
RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
EDWARDS = frozenset({"Ed25519", "Ed448"})
HMAC_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}  # RFC 7518 §3.2: no key shorter than the hash


@dataclass(frozen=True, slots=True)
class Key:
    """A key and the algorithms that it may be used with; `key` is what PyJWT's algorithms want."""

    identifier: str | None
    algorithms: frozenset[str]
    key: Any

    def verifies(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        """Whether `signature` is this key's of `signed`."""
        return algorithm in self.algorithms and bool(_algorithm(algorithm).verify(signed, self.key, signature))


class KeySet:
    """Keys by their identifiers."""

    def __init__(self, keys: tuple[Key, ...]) -> None:
        self.keys = keys
        self._named = {key.identifier: key for key in keys if key.identifier is not None}

    def named(self, identifier: str) -> Key | None:
        """The key called so."""
        return self._named.get(identifier)

    def only(self, algorithm: str) -> Key | None:
        """The key for `algorithm`, if there is but one."""
        found = [key for key in self.keys if algorithm in key.algorithms]
        return found[0] if len(found) == 1 else None


def read_set(content: bytes) -> KeySet:
    """The keys of a JWK set that can verify signatures; those of other kinds and uses are passed over.

    Raises:
        Unusable: it is no JWK set, or holds no key that can be used.
    """
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError:
        raise Unusable("no JSON document") from None
    members = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(members, list) or len(members) > MAX_KEYS:
        raise Unusable(f'no JWK set: expected {{"keys": [at most {MAX_KEYS} keys]}}')
    found = [key for member in members if (key := _key(member)) is not None]
    identifiers = [key.identifier for key in found if key.identifier is not None]
    if len(set(identifiers)) != len(identifiers):
        raise Unusable("two keys have the same kid")
    if not found:
        raise Unusable("no public key in it that can verify RS, PS, ES or EdDSA signatures")
    return KeySet(tuple(found))


def _key(member: Any) -> Key | None:
    if not isinstance(member, dict) or member.get("use", "sig") != "sig":
        return None
    operations = member.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    kind, curve = member.get("kty"), member.get("crv")
    if kind == "RSA":
        algorithms, reader = RSA, "RS256"
    elif kind == "EC" and isinstance(curve, str) and curve in CURVES:
        algorithms, reader = frozenset({CURVES[curve]}), CURVES[curve]
    elif kind == "OKP" and isinstance(curve, str) and curve in EDWARDS:
        algorithms, reader = frozenset({"EdDSA"}), "EdDSA"
    else:
        return None  # among them `oct`: a secret that is published is none
    if (named := member.get("alg")) is not None:
        algorithms = algorithms & {named} if isinstance(named, str) else frozenset()
    identifier = member.get("kid")
    if not algorithms or not isinstance(identifier, str | None):
        return None
    public = {name: value for name, value in member.items() if name in ("kty", "crv", "x", "y", "n", "e")}
    try:
        key = _algorithm(reader).from_jwk(public)
    except Exception:  # whatever a stranger's numbers make cryptography raise
        return None
    if kind == "RSA" and key.key_size < MIN_RSA_BITS:
        return None
    return Key(identifier, algorithms, key)


def read_secrets(content: bytes) -> tuple[Secret, ...]:
    """The shared secrets in a file, one a line: while one is replaced by another, both are there.

    Raises:
        Unusable: there is none, too many, one too short, or what is there is no secret but a public key.
    """
    lines = [line.strip() for line in content.splitlines() if line.strip()]
    if b"-----BEGIN" in content or any(line.startswith((b"ssh-", b"ecdsa-", b"{")) for line in lines):
        raise Unusable("a key file: shared secrets are expected, one a line")
    if not 0 < len(lines) <= MAX_SECRETS:
        raise Unusable(f"{len(lines)} lines: 1 to {MAX_SECRETS} secrets are expected, one a line")
    shortest = HMAC_BYTES["HS256"]
    if any(len(line) < shortest for line in lines):
        raise Unusable(f"a secret of less than {shortest} bytes, which HS256 does not allow (RFC 7518 §3.2)")
    return tuple(Secret(line) for line in lines)


def signed_with(secrets: tuple[Secret, ...], algorithm: str, signed: bytes, signature: bytes) -> bool:
    """Whether `signature` is of one of the secrets that are long enough for `algorithm`."""
    return any(
        len(secret) >= HMAC_BYTES[algorithm] and _algorithm(algorithm).verify(signed, secret.reveal(), signature)
        for secret in secrets
    )


def _algorithm(name: str) -> Any:
    if not _ALGORITHMS:
        from jwt.algorithms import get_default_algorithms

        _ALGORITHMS.update(get_default_algorithms())
    return _ALGORITHMS[name]


_ALGORITHMS: dict[str, Any] = {}
