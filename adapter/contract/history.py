"""The service's releases in Consul's key/value store: each written once, by the first of its instances that is ready.

    PREFIX/NAMESPACE/SERVICE/releases/ID → the release, when it was first ready, and which instance said so

Check-and-set makes it once: of N instances one creates the key and the others find it there. The order is Consul's own
(CreateIndex), which no clock disturbs. The oldest beyond `kept` are removed by whoever has added one.
"""

from typing import Any
from urllib.parse import quote

import orjson

from adapter.group.consul import Agent

Release = dict[str, Any]


class History:
    """The releases of `service`, at most `kept`; `prefix` is the first part of the keys, before Nomad's namespace."""

    def __init__(self, agent: Agent, prefix: str, namespace: str, service: str, kept: int) -> None:
        self._agent = agent
        self._folder = "/".join(quote(part, safe="") for part in (prefix, namespace, service)) + "/releases/"
        self._kept = kept

    async def releases(self) -> list[Release]:
        """All of them, newest first. Raises ConsulFailed."""
        return await self._agent.call(self._list)

    async def record(self, release: Release) -> bool:
        """Add a release unless it is there; whether this call was the one that did. Raises ConsulFailed."""
        return await self._agent.call(lambda client: self._record(client, release))

    def _list(self, client: Any) -> list[Release]:
        return [found for entry in self._entries(client) if (found := _decoded(entry["Value"])) is not None]

    def _record(self, client: Any, release: Release) -> bool:
        if not client.kv.put(self._folder + quote(release["id"], safe=""), orjson.dumps(release), cas=0):
            return False
        for entry in self._entries(client)[self._kept :]:
            client.kv.delete(entry["Key"], cas=entry["ModifyIndex"])
        return True

    def _entries(self, client: Any) -> list[dict[str, Any]]:
        _, entries = client.kv.get(self._folder, recurse=True)
        return sorted(entries or [], key=lambda entry: -entry["CreateIndex"])


def _decoded(value: bytes | None) -> Release | None:
    """A release; None for what somebody else has put there."""
    try:
        found = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("id"), str) else None


def changed(newer: Release, older: Release | None) -> list[str]:
    """What differs between two releases, as the names of their fields: `bundle.version`, `config_digest`."""
    return sorted(_differences("", _compared(newer), _compared(older or {}))) if older else []


def _compared(release: Release) -> Release:
    """Without what differs between any two."""
    left_out = {"id", "activated_at", "first_instance", "changed"}
    return {name: value for name, value in release.items() if name not in left_out}


def _differences(path: str, one: object, other: object) -> list[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        names = [*one, *(name for name in other if name not in one)]
        return [found for name in names for found in _differences(f"{path}.{name}", one.get(name), other.get(name))]
    return [] if one == other else [path.removeprefix(".")]
