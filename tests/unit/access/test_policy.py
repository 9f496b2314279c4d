"""What each resource asks for."""

import pytest

from adapter.access.policy import TABLE, Policy, PolicyError


@pytest.mark.parametrize(
    ("route", "path", "demand"),
    [
        ("/health", "/health", "open"),
        ("/health/ready", "/health/ready", "open"),
        ("/v2/{other}", "/v2/health/live", "open"),
        ("/v2/{other}", "/v2/health/ready", "open"),
        ("/v2/{other}", "/v2/health/live/", "predict"),
        ("/v2/{other}", "/v2/health/../models/m/infer", "predict"),
        ("/v2/{other}", "/v2/models/health/live", "predict"),
        ("/v2/{other}", "/v2", "predict"),
        ("/v1/{other}", "/v1/models/m:predict", "predict"),
        ("/v1/{other}", "/V1/MODELS/m:predict", "predict"),
        ("/predict", "/predict", "predict"),
        ("/metrics", "/metrics", "metrics"),
        ("/changes", "/changes", "docs"),
        ("/changes/current", "/changes/current", "docs"),
        ("/docs", "/docs", "docs"),
        ("/docs/start.js", "/docs/start.js", "docs"),
        ("/openapi.json", "/openapi.json", "docs"),
        ("/shutdown", "/shutdown", "admin"),
        ("other", "/nope", "any"),
        ("other", "/healthy", "any"),
        ("/something/new", "/something/new", "any"),
    ],
)
def test_everything_but_health_is_closed(route: str, path: str, demand: str) -> None:
    assert Policy().demand(route, path) == demand


def test_a_change_holds_for_a_resource_and_what_is_below_it() -> None:
    policy = Policy("/metrics=open, /docs = any,/shutdown=closed")
    asked = [
        policy.demand(route, route) for route in ("/metrics", "/docs", "/docs/start.js", "/shutdown", "/openapi.json")
    ]
    assert asked == ["open", "any", "any", "closed", "docs"]
    assert TABLE["/metrics"] == "metrics"


@pytest.mark.parametrize(
    "text", ["/nope=open", "/metrics=maybe", "/metrics", "metrics=open", "=open", "/metrics=open=any"]
)
def test_a_change_that_means_nothing_is_named(text: str) -> None:
    with pytest.raises(PolicyError) as caught:
        Policy(f"/docs=open,{text}")
    (problem,) = caught.value.problems
    assert problem.startswith(repr(text))
