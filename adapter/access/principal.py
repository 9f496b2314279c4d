"""Who asks: what a verified token says of its bearer."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Principal:
    """`scoped`: the token itself says its scopes; `expires` is its `exp` in Unix seconds."""

    subject: str
    issuer: str
    scopes: frozenset[str]
    scoped: bool
    tenant: str
    expires: float
