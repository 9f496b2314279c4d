"""Who shares the service, and what each of them may use: a TOML file, read again when it changes.

[default]                       # for tokens of no tenant below; without this table they are refused
rate = 5

[tenants.fraud]
models = ["digits"]             # that it may call; left out: every one
rate = 100                      # requests a second
burst = 200                     # that may come at once; left out: a second's worth
concurrency = 16                # requests in flight
max_body = 1048576              # bytes of one request's body
scopes = ["predict"]            # for its tokens that bring no scope claim
"""

import re
import time
import tomllib
from collections.abc import Callable
from typing import Annotated

import msgspec
from msgspec import Meta

from adapter.access.files import Unusable
from adapter.access.limits import Meter, Quota
from adapter.access.policy import SCOPES
from adapter.telemetry.metrics import TENANT_ACTIVE

MAX_TENANTS = 256
DEFAULT = "default"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    models: Annotated[list[str], Meta(min_length=1, max_length=256)] | None = None
    rate: Annotated[float, Meta(gt=0, le=1e6)] | None = None
    burst: Annotated[float, Meta(ge=1, le=1e6)] | None = None
    concurrency: Annotated[int, Meta(ge=1, le=65536)] | None = None
    max_body: Annotated[int, Meta(ge=1024)] | None = None
    scopes: Annotated[list[str], Meta(max_length=16)] = []

    def quota(self) -> Quota:
        models = frozenset(self.models) if self.models is not None else None
        return Quota(self.rate, self.burst, self.concurrency, self.max_body, models, frozenset(self.scopes))


class _File(msgspec.Struct, forbid_unknown_fields=True):
    default: _Entry | None = None
    tenants: Annotated[dict[str, _Entry], Meta(max_length=MAX_TENANTS)] = {}


def read(content: bytes) -> tuple[dict[str, Quota], Quota | None]:
    """Each tenant's quota, and the one for all others (None: they are refused).

    Raises:
        Unusable: naming the entry that is wrong.
    """
    try:
        file = msgspec.convert(tomllib.loads(content.decode("utf-8-sig")), _File)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise Unusable(str(error)) from None
    for name in file.tenants:
        if not _NAME.fullmatch(name) or name == DEFAULT:
            raise Unusable(
                f"tenant {name[:128]!r}: a name of letters, digits and ._:/- is expected, other than default"
            )
    for name, entry in {**file.tenants, DEFAULT: file.default or _Entry()}.items():
        if unknown := set(entry.scopes) - set(SCOPES):
            raise Unusable(f"tenant {name}: no such scope: {', '.join(sorted(unknown))}")
    default = file.default.quota() if file.default is not None else None
    return {name: entry.quota() for name, entry in file.tenants.items()}, default


class Tenants:
    """The meters of all tenants. Those of the file have one each, all others share `default`'s."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._meters: dict[str, Meter] = {}
        self._default: Meter | None = None

    def take(self, content: bytes) -> None:
        """The quotas of a file, from now on. Raises Unusable."""
        quotas, default = read(content)
        before = {**self._meters, **({DEFAULT: self._default} if self._default else {})}
        meters = {name: self._meter(before.get(name), name, quota) for name, quota in quotas.items()}
        self._default = self._meter(before.get(DEFAULT), DEFAULT, default) if default else None
        self._meters = meters

    def meter(self, tenant: str) -> Meter | None:
        """The meter of a token's tenant; None for a tenant that may use nothing."""
        return self._meters.get(tenant, self._default)

    def _meter(self, before: Meter | None, name: str, quota: Quota) -> Meter:
        if before is not None:
            before.change(quota)
            return before
        meter = Meter(name, quota, self._now())
        TENANT_ACTIVE.labels(name).set_function(lambda: meter.active)
        return meter
