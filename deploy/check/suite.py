"""All checks, in their order. Each is a function whose first line says what holds; see `expectations.py` for how it fails.

No check changes the service or ends it: what is sent is read-only, or refused by any service that keeps the contract.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from deploy.check import inference, resources
from deploy.check.expectations import Failed, NotHere, hold
from deploy.check.service import Service, Unreachable

Check = Callable[[Service], None]


def one_bundle(service: Service) -> None:
    """Every answer names the same bundle"""
    hold(len(service.bundles) == 1, f"answers named {', '.join(map(str, sorted(map(str, service.bundles))))}")


CHECKS: tuple[Check, ...] = (
    resources.health,
    resources.health_is_open,
    resources.alive,
    resources.request_id,
    resources.unknown_resource,
    resources.unknown_method,
    resources.openapi,
    resources.pages_are_as_documented,
    resources.docs,
    resources.metrics,
    resources.what_runs,
    resources.history,
    resources.shutdown_needs_a_valid_document,
    resources.tokens,
    inference.own_endpoint,
    inference.v1_predicts,
    inference.v1_refuses,
    inference.v2,
    one_bundle,
)


@dataclass(frozen=True)
class Result:
    """What came of one check."""

    name: str
    title: str
    outcome: Literal["passed", "failed", "not here"]
    reason: str
    seconds: float


def run(service: Service) -> Iterator[Result]:
    """Every check, one after the other. Raises Unreachable when nobody answers at all."""
    service.request("GET", "/health/live")
    for check in CHECKS:
        began = time.perf_counter()
        outcome: Literal["passed", "failed", "not here"] = "passed"
        reason = ""
        try:
            check(service)
        except NotHere as error:
            outcome, reason = "not here", str(error)
        except Failed as error:
            outcome, reason = "failed", str(error)
        except (Unreachable, ValueError, KeyError, TypeError) as error:
            outcome, reason = "failed", f"{type(error).__name__}: {error}"
        title = (check.__doc__ or "").strip().splitlines()[0]
        yield Result(check.__name__, title, outcome, reason, time.perf_counter() - began)
