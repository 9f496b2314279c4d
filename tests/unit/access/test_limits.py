"""Tenants' quotas: what is let in, what is told to who has to wait, and that a flood of one does not harm another."""

import heapq
import random
from itertools import count

import pytest

from adapter.access.files import Unusable
from adapter.access.limits import Meter, Quota
from adapter.access.tenants import Tenants, read


def test_without_bounds_everything_is_let_in() -> None:
    meter = Meter("a", Quota(), 0)
    assert [meter.enter(0) for _ in range(1000)] == [None] * 1000


def test_a_burst_is_let_in_at_once_and_the_rest_at_the_rate() -> None:
    meter = Meter("a", Quota(rate=10, burst=5), 0)
    assert [meter.enter(0) is None for _ in range(7)] == [True] * 5 + [False] * 2
    assert [meter.enter(0.1 * step) is None for step in range(1, 11)] == [True] * 10
    assert [meter.enter(100) is None for _ in range(7)] == [True] * 5 + [False] * 2


def test_who_has_to_wait_is_told_how_long_and_what_the_quota_is() -> None:
    meter = Meter("a", Quota(rate=0.5, burst=3), 0)
    for _ in range(3):
        assert meter.enter(0) is None
    refused = meter.enter(0)
    assert refused is not None
    assert (refused.reason, refused.wait) == ("rate", 2.0)
    assert refused.headers == {"RateLimit-Policy": '"rate";q=3;w=6', "RateLimit": '"rate";r=0;t=2'}


def test_a_refused_request_costs_no_quota() -> None:
    meter = Meter("a", Quota(rate=1, burst=1), 0)
    meter.enter(0)
    for _ in range(100):
        meter.enter(0.5)
    assert meter.enter(1.0) is None


def test_requests_in_flight_are_bounded_and_counted_out() -> None:
    meter = Meter("a", Quota(concurrency=2), 0)
    assert [meter.enter(0) is None for _ in range(3)] == [True, True, False]
    meter.leave()
    assert [meter.enter(0) is None for _ in range(2)] == [True, False]
    refused = meter.enter(0)
    assert refused is not None
    assert refused.headers["RateLimit-Policy"] == '"concurrency";q=2;qu="concurrent-requests"'


def test_a_request_refused_for_its_concurrency_costs_no_rate() -> None:
    meter = Meter("a", Quota(rate=1, burst=2, concurrency=1), 0)
    meter.enter(0)
    meter.enter(0)
    meter.leave()
    assert meter.enter(0) is None


FILE = b"""
[default]
rate = 5
[tenants.fraud]
models = ["digits"]
rate = 100
burst = 200
concurrency = 16
max_body = 1048576
scopes = ["predict"]
[tenants."team/b"]
"""


class TestTheFile:
    def test_says_what_each_tenant_may_use(self) -> None:
        quotas, default = read(FILE)
        assert quotas["fraud"] == Quota(100, 200, 16, 1048576, frozenset({"digits"}), frozenset({"predict"}))
        assert quotas["team/b"] == Quota()
        assert default == Quota(rate=5)

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("[tenants", "end of document"),
            ("[tenants.a]\nrate = 0", "tenants"),
            ("[tenants.a]\nrate = '5'", "tenants"),
            ("[tenants.a]\nrates = 5", "rates"),
            ("[tenants.a]\nmodels = []", "models"),
            ("[tenants.a]\nconcurrency = 0", "concurrency"),
            ("[tenants.a]\nscopes = ['root']", "no such scope: root"),
            ("[default]\nscopes = ['root']", "no such scope: root"),
            ("[tenants.default]", "other than default"),
            ("[tenants.'a b']", "letters"),
            ("[tenants.'']", "letters"),
            ("[tenant.a]", "tenant"),
            ("\n".join(f"[tenants.t{number}]" for number in range(257)), "256"),
        ],
    )
    def test_names_its_mistake(self, text: str, says: str) -> None:
        with pytest.raises(Unusable, match=says):
            read(text.encode())

    def test_gives_every_tenant_a_meter_and_strangers_the_default_one(self) -> None:
        tenants = Tenants(lambda: 0.0)
        tenants.take(FILE)
        fraud = tenants.meter("fraud")
        assert fraud is not None
        assert fraud.name == "fraud"
        assert tenants.meter("nobody") is tenants.meter("") is tenants.meter("default")
        tenants.take(b"[tenants.fraud]\n")
        assert tenants.meter("nobody") is None

    def test_that_changes_does_not_forget_what_is_in_flight(self) -> None:
        tenants = Tenants(lambda: 0.0)
        tenants.take(b"[tenants.a]\nconcurrency = 1\n")
        meter = tenants.meter("a")
        assert meter is not None
        meter.enter(0)
        tenants.take(b"[tenants.a]\nconcurrency = 2\n")
        assert tenants.meter("a") is meter
        assert [meter.enter(0) is None for _ in range(2)] == [True, False]

    def test_that_cannot_be_used_changes_nothing(self) -> None:
        tenants = Tenants(lambda: 0.0)
        tenants.take(FILE)
        meter = tenants.meter("fraud")
        with pytest.raises(Unusable):
            tenants.take(b"[tenants.fraud]\nrate = -1")
        assert tenants.meter("fraud") is meter
        assert meter is not None
        assert meter.quota.rate == 100


def simulated(flood: bool, bounded: bool) -> float:
    """The 99th percentile of tenant b's times at a server of 8 slots, 10 ms a request, while a floods it with 100 clients
    that ask again the moment they are answered (a refusal takes 0.25 s, as `Denials` has it)."""
    chance = random.Random(1)
    quota = Quota(concurrency=4) if bounded else Quota()
    meters = {"a": Meter("a", quota, 0), "b": Meter("b", quota, 0)}
    order = count()
    arrivals: list[tuple[float, int, str]] = []
    when = 0.0
    while when < 60:  # b: 50 requests a second, at random
        when += chance.expovariate(50)
        heapq.heappush(arrivals, (when, next(order), "b"))
    if flood:
        for _ in range(100):
            heapq.heappush(arrivals, (0.0, next(order), "a"))
    free = [0.0] * 8
    leaving: list[tuple[float, int, str]] = []
    times = []
    while arrivals and arrivals[0][0] < 60:
        now, _, tenant = heapq.heappop(arrivals)
        while leaving and leaving[0][0] <= now:
            meters[heapq.heappop(leaving)[2]].leave()
        if meters[tenant].enter(now) is not None:
            if tenant == "a":
                heapq.heappush(arrivals, (now + 0.25, next(order), "a"))
            continue
        done = max(now, heapq.heappop(free)) + chance.uniform(0.008, 0.012)
        heapq.heappush(free, done)
        heapq.heappush(leaving, (done, next(order), tenant))
        if tenant == "a":
            heapq.heappush(arrivals, (done, next(order), "a"))
        else:
            times.append(done - now)
    return sorted(times)[int(len(times) * 0.99)]


def test_one_tenants_flood_does_not_double_anothers_99th_percentile() -> None:
    alone = simulated(flood=False, bounded=True)
    assert simulated(flood=True, bounded=True) < 2 * alone
    assert simulated(flood=True, bounded=False) > 5 * alone, "the flood is none: the simulation shows nothing"
