"""How much one tenant may use: requests by a token bucket, requests at one time, bytes of one body. Pure: time comes in.

Told in the fields of draft-ietf-httpapi-ratelimit-headers-10: `RateLimit-Policy` has the quota, `RateLimit` what is left.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Quota:
    """What a tenant may use; None = no bound. `models` None = every model; `scopes` for tokens that bring none."""

    rate: float | None = None
    burst: float | None = None
    concurrency: int | None = None
    max_body: int | None = None
    models: frozenset[str] | None = None
    scopes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class TooMuch:
    """A request beyond a quota: which one, in how many seconds there is room, and the fields that tell so."""

    reason: str
    wait: float
    headers: dict[str, str]


class Meter:
    """One tenant's use of its quota."""

    __slots__ = ("_at", "_tokens", "active", "name", "quota")

    def __init__(self, name: str, quota: Quota, now: float) -> None:
        self.name = name
        self.active = 0
        self.quota = quota
        self._tokens = _burst(quota)
        self._at = now

    def change(self, quota: Quota) -> None:
        """Another quota from now on; what is in flight stays counted, what was saved up stays within the new burst."""
        self.quota = quota
        self._tokens = min(self._tokens, _burst(quota))

    def enter(self, now: float) -> TooMuch | None:
        """Count a request in, or say why it has to wait."""
        quota = self.quota
        if quota.concurrency is not None and self.active >= quota.concurrency:
            limit = f'"concurrency";q={quota.concurrency};qu="concurrent-requests"'
            return TooMuch("concurrency", 1.0, {"RateLimit-Policy": limit, "RateLimit": '"concurrency";r=0'})
        if quota.rate is not None:
            burst = _burst(quota)
            self._tokens = min(burst, self._tokens + (now - self._at) * quota.rate)
            self._at = now
            if self._tokens < 1.0:
                wait = (1.0 - self._tokens) / quota.rate
                policy = f'"rate";q={int(burst)};w={max(1, math.ceil(burst / quota.rate))}'
                return TooMuch(
                    "rate", wait, {"RateLimit-Policy": policy, "RateLimit": f'"rate";r=0;t={math.ceil(wait)}'}
                )
            self._tokens -= 1.0
        self.active += 1
        return None

    def leave(self) -> None:
        """Count it out."""
        self.active -= 1


def _burst(quota: Quota) -> float:
    """Requests that may come at once: the quota's own, or a second's worth."""
    if quota.burst is not None:
        return quota.burst
    return max(1.0, quota.rate or 1.0)
