"""Who asks: what a verified token says of its bearer."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Principal:
    """`claims` are those that policies may look at; `expires` is the token's `exp` in Unix seconds."""

    subject: str
    issuer: str
    scopes: frozenset[str]
    tenant: str
    expires: float
