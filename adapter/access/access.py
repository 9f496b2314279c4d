"""Settings → the gate, and what keeps it current while the service runs."""

from pathlib import Path

from adapter.access.allowlist import AddressError, AddressRules, Network, networks
from adapter.access.denials import Denials
from adapter.access.files import Rendered, Unusable, follow
from adapter.access.gate import Gate
from adapter.settings import Settings, SettingsError


class Access:
    """`gate` is None where nothing is asked of anybody; `run` follows the files that `watches` names.

    Raises:
        SettingsError: naming everything that cannot be read.
    """

    def __init__(self, settings: Settings) -> None:
        self.watches: list[Rendered] = []
        self.gate: Gate | None = None
        self._problems: list[str] = []
        self._networks: dict[str, tuple[Network, ...]] = {}
        for name in ("allow", "allow_health", "trusted_proxies"):
            self._networks[name] = ()
            self._add(name, getattr(settings, name))
        if settings.allow:
            self.gate = Gate(None, Denials())
        elif settings.allow_health or settings.trusted_proxies:
            self._problems.append("ADAPTER_ALLOW_HEALTH and ADAPTER_TRUSTED_PROXIES mean nothing without ADAPTER_ALLOW")
        if self._problems:
            raise SettingsError(self._problems)
        self._rule()

    async def run(self) -> None:
        """Keep current what comes from files, for ever."""
        await follow(self.watches)

    def _add(self, name: str, value: str) -> None:
        try:
            if value.startswith("@"):
                file = Rendered(Path(value[1:]), lambda content: self._take(name, content))
                file.read()
                self.watches.append(file)
            else:
                self._networks[name] = networks(value)
        except (AddressError, Unusable) as error:
            self._problems.append(f"ADAPTER_{name.upper()}: {error}")

    def _take(self, name: str, content: bytes) -> None:
        try:
            found = networks(content.decode("utf-8-sig"))
        except (AddressError, UnicodeDecodeError) as error:
            raise Unusable(str(error)) from None
        if not found and name == "allow":
            raise Unusable("no network in it, which would let nobody in")
        self._networks[name] = found
        self._rule()

    def _rule(self) -> None:
        if self.gate is not None:
            parts = self._networks
            self.gate.addresses = AddressRules(parts["allow"], parts["allow_health"], parts["trusted_proxies"])
