"""What Nomad, its network plugins and containers leave on a machine: found by comparing with before, and removed.

Nomad makes a bridge, firewall chains and control groups that it never takes back, and turns on forwarding; a client
that ended badly leaves mounts too. Only what was not there before is touched, and only of these kinds.
"""

import contextlib
import re
import shlex
import shutil
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
CGROUPS = Path("/sys/fs/cgroup")
CNI_STATE = Path("/var/lib/cni")
CHAIN = re.compile(r"^:((?:CNI|NOMAD)-\S+)")
LINK = re.compile(r"^\d+: (nomad|veth[0-9a-f]{8})[:@]")


@dataclass(frozen=True)
class Residue:
    """What a machine has of the kinds that we clean up."""

    chains: list[str]
    links: list[str]
    cgroups: list[str]
    cni: bool
    forwarding: str

    @classmethod
    def now(cls) -> "Residue":
        """What there is at this moment."""
        chains = [
            f"{table} {found[1]}"
            for table in ("nat", "filter")
            for line in _output("iptables-save", "-t", table).splitlines()
            if (found := CHAIN.match(line))
        ]
        links = [found[1] for line in _output("ip", "-oneline", "link").splitlines() if (found := LINK.match(line))]
        cgroups = [str(path) for pattern in ("nomad*", "*/nomad*") for path in CGROUPS.glob(pattern) if path.is_dir()]
        return cls(chains, links, cgroups, CNI_STATE.exists(), FORWARDING.read_text().strip())

    def saved(self) -> dict[str, object]:
        """For a JSON file; `Residue(**saved)` is its inverse."""
        return asdict(self)


def remove_since(before: Residue) -> None:
    """Remove what has appeared since `before`."""
    now = Residue.now()
    _remove_chains(set(now.chains) - set(before.chains))
    for link in set(now.links) - set(before.links):
        _try("ip", "link", "delete", link)
    for root in sorted(set(now.cgroups) - set(before.cgroups)):
        for path in sorted((path for path in Path(root).rglob("*") if path.is_dir()), reverse=True):
            _rmdir(path)
        _rmdir(Path(root))
    if now.cni and not before.cni:
        shutil.rmtree(CNI_STATE, ignore_errors=True)
    if now.forwarding != before.forwarding:
        FORWARDING.write_text(before.forwarding)


def unmount_below(directory: Path) -> None:
    """Unmount everything below `directory`, innermost first: secrets of allocations, network namespaces of containers."""
    inside = f"{directory}/"
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for target in sorted((path for path in mounts if path.startswith(inside)), reverse=True):
        _try("umount", "--lazy", target)


def _remove_chains(found: set[str]) -> None:
    """Rules that jump to a chain go first, then the rules in it, then the chain."""
    for table in ("nat", "filter"):
        names = {chain.split()[1] for chain in found if chain.startswith(f"{table} ")}
        for rule in _output("iptables-save", "-t", table).splitlines():
            words = shlex.split(rule)
            if words[:1] == ["-A"] and words[1] not in names and names & set(words):
                _try("iptables", "-w", "-t", table, "-D", *words[1:])
        for action in ("-F", "-X"):
            for name in names:
                _try("iptables", "-w", "-t", table, action, name)


def _rmdir(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.rmdir()


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _try(*command: str) -> None:
    subprocess.run(command, check=False, capture_output=True)
