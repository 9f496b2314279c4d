"""`python -m tests.bench`: measure and write `docs/benchmarks/`. `--help` tells the options."""

import argparse
import dataclasses
import json
import sys
import tempfile
from pathlib import Path

from tests.bench.life import Beside, Idle, Largest, beside_the_largest, idle, small_beside_large
from tests.bench.measure import Bench, Running, Samples, Wrong, machine
from tests.bench.observing import Observed, observed
from tests.bench.peers import OURS, Backend, peers
from tests.bench.picture import picture
from tests.bench.processes import Cores, Processes
from tests.bench.report import report
from tests.bench.tools import ROOT
from tests.bench.workloads import workloads

BESIDE = (OURS, "fastapi")


def main() -> int:
    options = _options()
    every, wanted = workloads(), options.workloads.split(",")
    chosen = {name: peer for name, peer in peers().items() if not options.peers or name in options.peers.split(",")}
    samples, left_out, beside = Samples(), dict[str, str](), list[Beside]()
    resting: Idle | None = None
    watched: Observed | None = None
    largest: Largest | None = None
    cores = Cores.of_this_machine(pinned=not options.unpinned)
    with tempfile.TemporaryDirectory(prefix="tandem-bench-") as directory, Processes(Path(directory)) as processes:
        bench = Bench(processes, cores)
        if OURS in chosen:
            resting = idle(bench, chosen[OURS], 3 if options.quick else 10)
            print(f"ready {resting.ready:.2f} s, idle {resting.rss >> 20} MiB, {resting.cpu:.2%} CPU", flush=True)
            watched = observed(bench, chosen[OURS])
            print(watched, flush=True)
        backend = bench.backend()
        running: dict[str, Running] = {}
        for name, peer in chosen.items():
            try:
                running[name] = bench.start(peer, backend)
                bench.wait_until_right(running[name], (every[w] for w in wanted if peer.takes(w)), backend)
            except Wrong as error:  # one that does not run is a finding, not the end
                left_out[name] = str(error)
                print(f"{name} left out: {error}", flush=True)
                running.pop(name)
        for workload in wanted:
            for concurrency in _concurrencies(workload, options):
                _rounds(bench, running, workload, concurrency, backend, options, samples)
        for name in BESIDE:
            if name in running and {"small", "large"} <= set(wanted):
                beside.append(
                    small_beside_large(bench, running[name], every["small"], every["large"], 3 if options.quick else 6)
                )
                print(f"beside large ones: {beside[-1]}", flush=True)
        if OURS in running and "large" in wanted:
            largest = beside_the_largest(running[OURS])
            print(f"beside the largest: {largest}", flush=True)
    placed = "everything on the same cores" if cores.peer == cores.rest else "peers on a core of their own"
    how = f"{options.rounds} rounds of {options.seconds:g} s, {placed}."
    met = {name: chosen[name] for name in running}
    text = report(machine(), how, samples, met, every, left_out, resting, beside, watched, largest)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "latest.md").write_text(text, encoding="utf-8")
    (options.out / "latest.svg").write_text(picture(samples, every), encoding="utf-8")
    if options.json:
        options.json.write_text(json.dumps([dataclasses.asdict(sample) for sample in samples.all]))
    print(text)
    return 0


def _rounds(
    bench: Bench,
    running: dict[str, Running],
    workload: str,
    concurrency: int,
    backend: Backend,
    options: argparse.Namespace,
    samples: Samples,
) -> None:
    asked = workloads()[workload]
    takers = [one for one in running.values() if one.peer.takes(workload)]
    for number in range(options.rounds + 1):
        for one in takers:
            seconds = options.seconds if number else min(0.5, options.seconds)  # round 0 warms up
            sample = bench.sample(one, asked, backend, concurrency, seconds, number)
            if number:
                samples.all.append(sample)
    line = [
        f"{one.peer.name} {samples.median('rate', one.peer.name, workload, concurrency) or 0:.0f}" for one in takers
    ]
    print(f"{workload} {concurrency}: {', '.join(line)}", flush=True)


def _concurrencies(workload: str, options: argparse.Namespace) -> list[int]:
    given = [int(number) for number in options.concurrency.split(",")]
    return given if not options.quick or workload == "small" else given[:1] if workload == "large" else given[-1:]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure the adapter beside its peers.")
    parser.add_argument(
        "--quick", action="store_true", help="minutes instead of half an hour: fewer rounds, fewer concurrencies"
    )
    parser.add_argument("--peers", default="", help=f"of {','.join(peers())} (all)")
    parser.add_argument("--workloads", default=",".join(workloads()), help="of %(default)s (all)")
    parser.add_argument("-c", "--concurrency", default="1,16,64", help="comma-separated (%(default)s)")
    parser.add_argument("--rounds", type=int, help="rounds of each peer (3; quick: 2)")
    parser.add_argument("--seconds", type=float, help="seconds a round (2; quick: 1)")
    parser.add_argument("--unpinned", action="store_true", help="let the kernel place everything")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks", help="where the report goes")
    parser.add_argument("--json", type=Path, help="write every sample here too")
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else 3)
    options.seconds = options.seconds or (1.0 if options.quick else 2.0)
    return options


if __name__ == "__main__":
    sys.exit(main())
