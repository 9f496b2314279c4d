"""docs/metrics.md names every metric that the adapter has."""

from pathlib import Path

from prometheus_client import CollectorRegistry

from adapter.telemetry import metrics
from adapter.telemetry.scrape import Scraper

DOCUMENT = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text()


def test_every_metric_has_its_line_with_its_type() -> None:
    scraping = CollectorRegistry()
    Scraper("http://127.0.0.1:1/", (), scraping)
    for registry in (metrics.REGISTRY, scraping):
        for family in registry.collect():
            name = f"{family.name}_total" if family.type == "counter" else family.name
            assert f"| `{name}` | {family.type} |" in DOCUMENT
