"""Which addresses get in: CIDRs for clients, for the proxies whose word on a client counts, and for health checkers.

Pure but for its memory of verdicts: `load` reads texts, `AddressRules` judges. A client behind trusted proxies is the
right-most address of `Forwarded` (RFC 7239) or `X-Forwarded-For` that is no trusted proxy's: what stands left of it is
the client's own invention.
"""

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Protocol

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAX_HOPS = 32
MAX_VERDICTS = 4096
_MAPPED = IPv6Network("::ffff:0:0/96")
# RFC 7239 §4: token or quoted-string; commas and semicolons inside quotes do not separate.
_PAIR = re.compile(r'\s*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)=("(?:[^"\\]|\\.)*"|[^\s",;]*)\s*')
_PORT = re.compile(r"(\d{1,3}(?:\.\d{1,3}){3}):\d{1,5}|\[([0-9A-Fa-f:.]+)\](?::\d{1,5})?", re.ASCII)


class Headers(Protocol):
    """A request's headers, as multidict has them."""

    def getall(self, name: str, default: Any) -> Sequence[str]: ...


class AddressError(Exception):
    """Networks that cannot be read, one line each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def networks(text: str) -> tuple[Network, ...]:
    """Networks separated by commas, spaces or line ends; `#` begins a comment. A single address is a network of one.

    Raises:
        AddressError: naming everything that is no network.
    """
    words = [word for line in text.splitlines() for word in re.split(r"[\s,]+", line.partition("#")[0]) if word]
    found, problems = [], []
    for word in words:
        try:
            found.append(_unmapped(ip_network(word)))
        except ValueError as error:
            problems.append(str(error) if "host bits" in str(error) else f"{word[:64]!r} is no address and no network")
    if problems:
        raise AddressError(problems)
    return tuple(found)


def _unmapped(network: Network) -> Network:
    """IPv4 in IPv6's clothes (`::ffff:10.0.0.0/104`) is IPv4."""
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        return IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
    return network


def address(text: str) -> Address | None:
    """The address that `text` writes, without port, brackets and zone; None if it writes none."""
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        match = _PORT.fullmatch(text)
        if match is None:
            return None
        try:
            found = ip_address(match[1] or match[2])
        except ValueError:
            return None
    return found.ipv4_mapped or found if isinstance(found, IPv6Address) else found


class Networks:
    """A set of networks."""

    def __init__(self, members: Iterable[Network]) -> None:
        self._members = {
            version: [(int(n.network_address), int(n.netmask)) for n in members_of]
            for version, members_of in _by_version(members).items()
        }

    def __contains__(self, asked: Address) -> bool:
        number = int(asked)
        return any(number & mask == network for network, mask in self._members[asked.version])


def _by_version(members: Iterable[Network]) -> dict[int, list[Network]]:
    parts: dict[int, list[Network]] = {4: [], 6: []}
    for member in members:
        parts[member.version].append(member)
    return parts


class AddressRules:
    """`allow` is for every resource, `health` for `/health` alone; behind `proxies` the client is whom they name."""

    def __init__(self, allow: Iterable[Network], health: Iterable[Network], proxies: Iterable[Network]) -> None:
        self._allow = Networks(allow)
        self._health = Networks(health)
        self._proxies = Networks(proxies)
        self._verdicts: dict[str, tuple[bool, bool, bool]] = {}
        self._clients: dict[tuple[str, str], str | None] = {}

    def admits(self, peer: str, headers: Headers, *, health: bool) -> tuple[str, bool]:
        """The client's address, and whether it gets in, given the connection's other end and the request's headers."""
        allowed, for_health, proxy = self._verdict(peer)
        client = peer
        if proxy:
            named = self._client(peer, headers)
            if named is None:
                return peer, False
            if named != peer:
                client = named
                allowed, for_health, _ = self._verdict(client)
        return client, allowed or (health and for_health)

    def may_admit(self, peer: str) -> bool:
        """Whether anything that comes from `peer` could get in."""
        return any(self._verdict(peer))

    def _verdict(self, text: str) -> tuple[bool, bool, bool]:
        """Allowed, allowed for health, trusted proxy."""
        verdict = self._verdicts.get(text)
        if verdict is None:
            found = address(text)
            verdict = (
                (False, False, False)
                if found is None
                else (found in self._allow, found in self._health, found in self._proxies)
            )
            if len(self._verdicts) >= MAX_VERDICTS:
                self._verdicts.clear()
            self._verdicts[text] = verdict
        return verdict

    def _client(self, peer: str, headers: Headers) -> str | None:
        """Whom the proxies name; None when they contradict each other or say nothing that can be read.

        A proxy speaks one of the two headers and passes the other on as the client wrote it: so where both are there,
        they must agree.
        """
        lists = headers.getall("X-Forwarded-For", ()), headers.getall("Forwarded", ())
        if not any(lists):
            return peer
        key = ",".join(lists[0]), ",".join(lists[1])
        if key not in self._clients:
            if len(self._clients) >= MAX_VERDICTS:
                self._clients.clear()
            self._clients[key] = self._told(*key)
        return self._clients[key]

    def _told(self, x_forwarded_for: str, forwarded: str) -> str | None:
        told = set()
        if x_forwarded_for:
            told.add(self._rightmost([hop.strip() for hop in x_forwarded_for.split(",")]))
        if forwarded:
            hops = forwarded_for(forwarded)
            told.add(None if hops is None else self._rightmost(hops))
        return told.pop() if len(told) == 1 else None

    def _rightmost(self, hops: list[str]) -> str | None:
        if not 0 < len(hops) <= MAX_HOPS:
            return None
        found: Address | None = None
        for hop in reversed(hops):
            found = address(hop)
            if found is None or found not in self._proxies:
                break
        return None if found is None else str(found)


def forwarded_for(text: str) -> list[str] | None:
    """The `for` of each element of a `Forwarded` header, "" where an element has none; None if it is malformed."""
    hops: list[str] = [""]
    position = 0
    while position < len(text):
        if text[position] == ",":
            hops.append("")
            position += 1
            continue
        if text[position] in "; \t":
            position += 1
            continue
        match = _PAIR.match(text, position)
        if match is None:
            return None
        if match[1].lower() == "for":
            if hops[-1]:
                return None
            value = match[2]
            hops[-1] = re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
        position = match.end()
        if position < len(text) and text[position] not in ",;":
            return None
    return hops
