"""Judges of a metrics page: promtool, and prometheus_client's parsers for both formats."""

import os
import shutil
import subprocess

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

Page = dict[str, Metric]


def read_text(page: bytes) -> Page:
    """A page in Prometheus' text format, by family."""
    return {family.name: family for family in parse_text(page.decode())}


def read_openmetrics(page: bytes) -> Page:
    """A page in OpenMetrics, by family; its parser refuses what the specification forbids."""
    return {family.name: family for family in parse_openmetrics(page.decode())}


def value(page: Page, sample: str, **labels: str) -> float | None:
    """The value of the sample with these labels and no others."""
    found = [s.value for family in page.values() for s in family.samples if s.name == sample and s.labels == labels]
    assert len(found) <= 1, f"{sample} {labels} is there {len(found)} times"
    return found[0] if found else None


def promtool_complaints(page: bytes) -> str:
    """What `promtool check metrics` says of a page in the text format: nothing, if all is well."""
    promtool = shutil.which("promtool")
    if promtool is None:
        if os.environ.get("CI") == "true":
            pytest.fail("promtool is missing: install Debian's package prometheus")
        pytest.skip("promtool is missing: it is in Debian's package prometheus")
    done = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, check=False)
    return (done.stdout + done.stderr).decode() or ("" if done.returncode == 0 else f"exit status {done.returncode}")
