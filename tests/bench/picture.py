"""`docs/benchmarks/latest.svg`: requests a second of every peer, one panel a workload, at its highest concurrency."""

from collections.abc import Mapping
from html import escape

from tests.bench.measure import Samples
from tests.bench.workloads import Workload

WIDTH, MARGIN, NAMES, VALUES = 760, 16, 110, 70
BAR, GAP, TITLE = 16, 5, 30
OURS, OTHERS, INK, QUIET = "#1f6feb", "#b6bcc4", "#1f2328", "#59636e"


def picture(samples: Samples, workloads: Mapping[str, Workload]) -> str:
    """The SVG document."""
    parts: list[str] = []
    y = MARGIN
    for workload in dict.fromkeys(sample.workload for sample in samples.all):
        concurrency = max(s.concurrency for s in samples.all if s.workload == workload)
        rates = {}
        for peer in dict.fromkeys(sample.peer for sample in samples.all):
            rate = samples.median("rate", peer, workload, concurrency)
            if rate:
                rates[peer] = rate
        if rates:
            title = f"{workloads[workload].text}: requests/s, {concurrency} at a time"
            y = _panel(parts, y, title, rates)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}"'
        ' font-family="system-ui, sans-serif" font-size="12">'
    )
    return "\n".join([head, f'<rect width="{WIDTH}" height="{y}" fill="#ffffff"/>', *parts, "</svg>"]) + "\n"


def _panel(parts: list[str], y: int, title: str, rates: Mapping[str, float]) -> int:
    """Draw one panel from `y` down; returns where it ends."""
    parts.append(f'<text x="{MARGIN}" y="{y + 14}" font-weight="600" fill="{INK}">{escape(title)}</text>')
    y += TITLE
    scale = (WIDTH - 2 * MARGIN - NAMES - VALUES) / max(rates.values())
    left = MARGIN + NAMES
    for peer, rate in rates.items():
        colour = OURS if peer.startswith("tandem") else OTHERS
        width, baseline = max(1.0, rate * scale), y + BAR - 4
        parts.append(f'<text x="{left - 8}" y="{baseline}" text-anchor="end" fill="{INK}">{escape(peer)}</text>')
        parts.append(f'<rect x="{left}" y="{y}" width="{width:.1f}" height="{BAR}" rx="2" fill="{colour}"/>')
        text = f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"
        parts.append(f'<text x="{left + width + 6:.1f}" y="{baseline}" fill="{QUIET}">{text}</text>')
        y += BAR + GAP
    return y + MARGIN
