"""`make soak`: the adapter's memory from the 10,000th to the 100,000th request, the largest body included.

Each ten thousand requests are of every kind: mostly small ones on 64 connections, some medium, strings and images, large
ones, and one whose body is near the limit (`ADAPTER_MAX_BODY`). The first ten thousand set the mark; after that memory may not
move by more than 5 %. Ends with status 1 if it did.
"""

import sys
import tempfile
import time
from pathlib import Path

from tests.bench.measure import Bench, Running, machine
from tests.bench.peers import COALESCED, OURS, adapter
from tests.bench.processes import Cores, Processes
from tests.bench.tools import ROOT
from tests.bench.workloads import Workload, floats, workloads

STEPS = 10
EACH = 10_000
TOLERANCE = 0.05
# (workload, connections, requests) in each ten thousand; the rest is small.
MIX = (("medium", 16, 600), ("strings", 16, 200), ("image", 16, 100), ("large", 8, 100), ("largest", 1, 1))
MIB = 1 << 20


def soak() -> int:
    """Run it, write `docs/benchmarks/soak.md`; returns the exit status."""
    every = workloads() | {"largest": floats("largest", "40x224x224x3 floats", 40, 224, 224, 3)}
    body = len(every["largest"].v1()[1]) / MIB
    with tempfile.TemporaryDirectory(prefix="tandem-soak-") as directory, Processes(Path(directory)) as processes:
        bench = Bench(processes, Cores.of_this_machine())
        backend = bench.stub()
        running = bench.start(adapter(OURS, "", coalesce=COALESCED), backend)
        bench.wait_until_right(running, every.values(), backend)
        rows: list[tuple[int, float, float]] = []
        for step in range(1, STEPS + 1):
            begun = time.monotonic()
            _ten_thousand(bench, running, every)
            rows.append((step * EACH, running.usage().rss / MIB, time.monotonic() - begun))
            print(f"{rows[-1][0]:7} requests: {rows[-1][1]:.0f} MiB", flush=True)
    mark = rows[0][1]
    worst = max((memory / mark - 1 for _, memory, _ in rows), key=abs)
    flat = abs(worst) <= TOLERANCE
    verdict = "within" if flat else "**beyond**"
    text = f"""# Memory under load

Made by `make soak`. {machine()}. Each ten thousand requests are small, medium, large, strings and images, and one of
{body:.0f} MiB of JSON. Largest change against the 10,000th request: {worst:+.1%}, {verdict} ±{TOLERANCE:.0%}.

| requests | memory MiB | seconds |
|---|---|---|
"""
    text += "".join(f"| {number:,} | {memory:.0f} | {seconds:.0f} |\n" for number, memory, seconds in rows)
    target = ROOT / "docs" / "benchmarks" / "soak.md"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    print(f"largest change {worst:+.1%}; see {target.relative_to(ROOT)}")
    return 0 if flat else 1


def _ten_thousand(bench: Bench, running: Running, every: dict[str, Workload]) -> None:
    small = EACH - sum(requests for _, _, requests in MIX)
    for name, connections, requests in (*MIX, ("small", 64, small)):
        result = bench.load(running, every[name], connections, requests=requests)
        if result["failures"] or result["requests"] != requests:
            raise SystemExit(f"soak: {name}: {result['failures']} failures, the first: {result['first_failure']}")


if __name__ == "__main__":
    sys.exit(soak())
