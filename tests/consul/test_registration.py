"""Registration with a real Consul from here: found while ready, gone at the drain, back after the agent forgot it."""

from collections.abc import Callable

import pytest

from adapter.group.registration import address_of
from deploy.cluster.consul import Consul
from tests.adapters import Adapter, event
from tests.servers import ModelServer

Start = Callable[..., Adapter]


def registered(start: Start, name: str, **settings: object) -> Adapter:
    return start(service=name, consul_register=1, consul_tags="blue, fast", **settings)


@pytest.mark.parametrize("check", ["ttl", "http"])
def test_a_ready_instance_is_found_with_its_tags_and_what_it_runs(start: Start, consul: Consul, check: str) -> None:
    name = f"found-{check}"
    with registered(start, name, consul_check=check) as adapter:
        adapter.ready()
        assert consul.passing(name, 1, seconds=15) == [f"127.0.0.1:{adapter.port}"]
        (entry,) = consul.api.get(f"/health/service/{name}")
        assert entry["Service"]["Tags"] == ["blue", "fast"]
        told = {"bundle": "halves", "version": "1.0.0", "device": ""}
        assert entry["Service"]["Meta"].items() >= told.items()
        (srv,) = consul.dig(f"{name}.service.consul", "SRV")
        assert srv.split()[2] == str(adapter.port)
        assert consul.dig(f"{name}.service.consul", "A") == ["127.0.0.1"]
        assert adapter.stop() == 0
        consul.gone(name, f"127.0.0.1:{adapter.port}", seconds=5)


def test_consul_stops_naming_an_instance_before_its_port_closes(start: Start, consul: Consul) -> None:
    with registered(start, "leaving", shutdown_delay=2) as adapter:
        adapter.ready()
        consul.passing("leaving", 1, seconds=15)
        adapter.request("POST", "/shutdown", "{}")
        consul.gone("leaving", f"127.0.0.1:{adapter.port}", seconds=2)
        assert adapter.predict("half_plus_two", {"instances": [1.0]}).status == 200
        adapter.wait()


def test_an_unready_instance_is_critical_and_says_why(start: Start, consul: Consul, tmp_path: object) -> None:
    with registered(start, "alone", tfs_grpc=f"unix://{tmp_path}/nobody.sock") as adapter:
        adapter.wait_for(event("tandem.registered"))

        said = ""
        while "cannot be reached" not in said:  # what an agent's check says goes to its servers minutes later
            said = consul.api.get("/agent/checks")[f"service:alone-127.0.0.1-{adapter.port}"]["Output"]
        assert consul.passing("alone", 0, seconds=5) == []


def test_an_agent_that_was_restarted_is_told_again(start: Start, consul: Consul) -> None:
    with registered(start, "again") as adapter:
        adapter.ready()
        consul.passing("again", 1, seconds=15)
        seen = len(adapter.records)
        consul.stop()
        consul.start()
        adapter.wait_for(event("tandem.registered"), after=seen)
        assert consul.passing("again", 1, seconds=15) == [f"127.0.0.1:{adapter.port}"]


def test_a_drain_waits_for_no_consul_that_is_away(start: Start, consul: Consul, model_server: ModelServer) -> None:
    with registered(start, "orphan") as adapter:
        adapter.ready()
        consul.passing("orphan", 1, seconds=15)
        consul.stop()
        try:
            assert adapter.stop() == 0
        finally:
            consul.start()


@pytest.mark.parametrize(
    ("advertise", "host", "expected"),
    [
        ("10.0.0.7:80", "0.0.0.0", ("10.0.0.7", 80)),
        ("[2001:db8::1]:80", "::", ("2001:db8::1", 80)),
        ("", "10.0.0.8", ("10.0.0.8", 8080)),
        ("", "0.0.0.0", ("127.0.0.1", 8080)),
    ],
)
def test_the_address_is_what_was_set_or_the_one_towards_consul(
    advertise: str, host: str, expected: tuple[str, int]
) -> None:
    assert address_of(advertise, host, 8080, "127.0.0.1:8500") == expected
