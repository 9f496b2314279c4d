"""`docs/benchmarks/latest.md`: what was reached, then every table. Pure functions of the samples."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tests.bench.life import LARGE_IN_FLIGHT, Beside, Idle, Largest
from tests.bench.measure import Samples
from tests.bench.observing import PAGES, Observed
from tests.bench.peers import OURS, Peer
from tests.bench.workloads import Workload

MIB = 1 << 20


@dataclass(frozen=True)
class Goal:
    """`value` of `ours` by that of `theirs`, both (peer, workload), at a concurrency: at least `bound`, or at most."""

    text: str
    value: str
    ours: tuple[str, str]
    theirs: tuple[str, str]
    concurrency: int
    bound: float
    at_least: bool = True


def _rate(ours: str, theirs: str, workload: str, concurrency: int, bound: float) -> Goal:
    return Goal("requests/s", "rate", (ours, workload), (theirs, workload), concurrency, bound)


GOALS = (
    _rate(OURS, "fastapi", "small", 64, 5),
    _rate(OURS, "kserve", "small", 64, 10),
    _rate(OURS, "kserve-rest", "small", 64, 45),
    _rate(OURS, "tfs-rest", "small", 64, 1.5),
    _rate(OURS, "tfs-rest", "small", 16, 1.2),
    _rate("tandem-alone", "fastapi", "small", 16, 1.4),
    _rate("tandem-traced", OURS, "small", 64, 0.95),
    Goal("p50", "p50", (OURS, "small"), ("floor", "small"), 1, 1.5, at_least=False),
    _rate(OURS, "fastapi", "medium", 64, 3.5),
    _rate(OURS, "tfs-rest", "medium", 64, 3),
    _rate(OURS, "fastapi", "large", 1, 3.5),
    Goal("requests/s", "rate", ("tandem-v2", "large"), (OURS, "large"), 1, 8),
)
NOTES = """\
Ratios are medians, over the rounds, of the two figures within one round; read them before the absolute numbers, which are this
machine's. CPU is user and system time of a server and its children by the answers it gave; for the floor, of the client. Every
answer was compared, byte for byte, with one whose values had been checked."""
COLUMNS = (
    "peer", "requests/s (least to most)", "p50 ms", "p99 ms", "CPU µs", "backend CPU µs", "memory MiB",
    "tandem's rate by this", "this CPU by tandem's",
)  # fmt: skip
RSS_GOAL, READY_GOAL, CPU_GOAL, BEHIND_GOAL = 96 * MIB, 1.0, 0.0099, 0.020
LINES_GOAL, ADDED_GOAL, PAGE_GOAL = 50_000, 8 * MIB, 0.020


def report(
    machine: str,
    how: str,
    samples: Samples,
    peers: Mapping[str, Peer],
    workloads: Mapping[str, Workload],
    left_out: Mapping[str, str],
    idle: Idle | None,
    beside: Sequence[Beside],
    observed: Observed | None,
    largest: Largest | None = None,
) -> str:
    """The whole document."""
    parts = [
        "# The adapter beside its peers",
        "",
        f"Made by `make bench`. {machine}. {how}",
        "",
        NOTES,
        "",
        "![Requests a second of each peer](latest.svg)",
        "",
        "| peer | what it is |",
        "|---|---|",
        *(f"| {peer.name} | {peer.text} |" for peer in peers.values()),
        *(f"| {name} | *left out: {_cell(why)}* |" for name, why in left_out.items()),
        "",
        "## Reached",
        "",
        *_goals(samples, idle, beside, observed, largest),
    ]
    for name, concurrency in dict.fromkeys((s.workload, s.concurrency) for s in samples.all):
        parts += ["", f"## {name}: {workloads[name].text}, {concurrency} at a time", ""]
        parts += _table(samples, name, concurrency)
    if beside:
        parts += ["", f"## small, one at a time, while {LARGE_IN_FLIGHT} large ones are in flight", ""]
        parts += [
            "| peer | alone: p50 / p99 / longest, ms | beside large ones | large requests/s meanwhile |",
            "|---|---|---|---|",
        ]
        parts += [f"| {b.peer} | {_times(b.alone)} | {_times(b.beside)} | {b.large_rate:.1f} |" for b in beside]
    return "\n".join(parts) + "\n"


def _goals(
    samples: Samples,
    idle: Idle | None,
    beside: Sequence[Beside],
    observed: Observed | None,
    largest: Largest | None,
) -> list[str]:
    rows = ["| what | goal | measured | |", "|---|---|---|---|"]
    for goal in GOALS:
        found = samples.ratio(goal.value, goal.ours, goal.theirs, goal.concurrency)
        if found is None:
            continue
        (ours, workload), (theirs, other) = goal.ours, goal.theirs
        against = theirs if other == workload else f"{theirs} {other}"
        what = f"{workload}, {goal.concurrency} at a time: {goal.text}, {ours} by {against}"
        rows.append(_goal(what, goal.bound, found, goal.at_least, lambda value: f"{value:.2f}"))
    if idle:
        rows.append(_goal("ready after the backend listens", READY_GOAL, idle.ready, False, lambda s: f"{s:.2f} s"))
        rows.append(_goal("memory when idle", RSS_GOAL, idle.rss, False, lambda b: f"{b / MIB:.0f} MiB"))
        rows.append(_goal("CPU when idle", CPU_GOAL, idle.cpu, False, lambda share: f"{share:.2%}"))
    for found_beside in beside:
        if found_beside.peer == OURS:
            waited = found_beside.beside[1] - found_beside.alone[1]
            what = f"small behind {LARGE_IN_FLIGHT} large: p99 beyond its own"
            rows.append(_goal(what, BEHIND_GOAL, waited, False, lambda s: f"{s * 1e3:.1f} ms"))
    if largest:
        what = f"`/health/live` beside a body of {largest.size / 1e6:.0f} MB: longest"
        rows.append(_goal(what, BEHIND_GOAL, largest.waited, False, lambda s: f"{s * 1e3:.1f} ms"))
    if observed:
        followed = "lines of TensorFlow Serving's log followed a second of CPU"
        rows.append(_goal(followed, LINES_GOAL, observed.lines, True, lambda lines: f"{lines:,.0f}"))
        rows.append(_goal("memory that this takes", ADDED_GOAL, observed.added, False, lambda b: f"{b / MIB:.1f} MiB"))
        page = f"`/metrics` of {observed.series:,} series: p50 of {PAGES}"
        rows.append(_goal(page, PAGE_GOAL, observed.page, False, lambda s: f"{s * 1e3:.1f} ms"))
    if idle:
        rows += ["", f"From its start the adapter is ready after {idle.start:.2f} s when the backend is there already."]
    return rows


def _goal(what: str, bound: float, found: float, at_least: bool, text: Callable[[float], str]) -> str:
    reached = found >= bound if at_least else found <= bound
    return f"| {what} | {'≥' if at_least else '≤'} {text(bound)} | {text(found)} | {'reached' if reached else '**missed**'} |"


def _table(samples: Samples, workload: str, concurrency: int) -> list[str]:
    rows = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for peer in dict.fromkeys(s.peer for s in samples.all if (s.workload, s.concurrency) == (workload, concurrency)):
        if failure := samples.failure(peer, workload, concurrency):
            rows.append(f"| {peer} | *invalid: {_cell(failure)}* | | | | | | | |")
            continue
        rounds = samples.of(peer, workload, concurrency)
        rates = sorted(sample.rate for sample in rounds)

        def median(value: str, peer: str = peer) -> float:
            return samples.median(value, peer, workload, concurrency) or 0.0

        rate = samples.ratio("rate", (OURS, workload), (peer, workload), concurrency)
        cpu = samples.ratio("cpu", (peer, workload), (OURS, workload), concurrency)
        cells = [
            peer,
            f"{_number(median('rate'))} ({_number(rates[0])} to {_number(rates[-1])})",
            _number(median("p50") * 1e3),
            _number(median("p99") * 1e3),
            _number(median("cpu") * 1e6) if median("cpu") else "",
            _number(median("backend_cpu") * 1e6) if median("backend_cpu") else "",
            f"{median('rss') / MIB:.0f}" if median("rss") else "",
            f"{rate:.2f}" if rate else "",
            f"{cpu:.2f}" if cpu else "",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def _times(times: Sequence[float]) -> str:
    return " / ".join(_number(seconds * 1e3) for seconds in times)


def _number(value: float) -> str:
    """Three digits, or all of a whole number."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")[:200]
