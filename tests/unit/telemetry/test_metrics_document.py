"""docs/metrics.md names every metric that the adapter has, and no other."""

import re
from pathlib import Path

from prometheus_client import CollectorRegistry

from adapter.telemetry import metrics
from adapter.telemetry.scrape import Scraper

DOCUMENT = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text()


def test_every_metric_has_its_line_with_its_type_and_every_line_its_metric() -> None:
    scraping = CollectorRegistry()
    Scraper("http://127.0.0.1:1/", (), scraping)
    own = DOCUMENT.partition("\n## The adapter's own\n")[2].partition("\n## ")[0]
    listed = set(re.findall(r"^\| `(\w+)` \| (\w+) \|", own, re.MULTILINE))
    made = {
        (f"{family.name}_total" if family.type == "counter" else family.name, family.type)
        for registry in (metrics.REGISTRY, scraping)
        for family in registry.collect()
    }
    identity = {("target", "info"), ("target_info", "info")}  # there once the process knows who it is
    assert made - identity == listed - identity
