"""The release history in a real Consul: written once, whatever the number of instances, and served on without Consul."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from adapter.bundle.manifest import parse
from adapter.contract.history import History
from adapter.contract.release import Running
from adapter.group.consul import Agent
from adapter.settings import Settings
from deploy.cluster.consul import Consul
from tests.adapters import Adapter, Record, event
from tests.contract.document import contract

Start = Callable[..., Adapter]


def recorded(record: Record) -> bool:
    return event("tandem.release.recorded")(record) or event("tandem.release.known")(record)


@contextmanager
def released(adapter: Adapter) -> Iterator[Adapter]:
    """The adapter, running and in the history."""
    with adapter:
        adapter.ready().wait_for(recorded)
        yield adapter


def history(adapter: Adapter, query: str = "") -> Any:
    answer = adapter.request("GET", f"/changes{query}")
    assert answer.status == 200
    assert contract().answer_errors("GET", "/changes", answer) == []
    return answer.json


def versions(page: Any) -> list[str]:
    return [release["bundle"]["version"] for release in page["releases"]]


def test_a_release_is_recorded_once_by_all_its_instances(start: Start, bundle: Callable[[str], Path]) -> None:
    same = bundle("1.0.0")
    with ExitStack() as stack:
        instances = [stack.enter_context(released(start(bundle=same))) for _ in range(3)]
        said = [event("tandem.release.recorded")(r) for instance in instances for r in instance.records]
        assert sum(said) == 1
        pages = [history(instance) for instance in instances]
        assert [versions(page) for page in pages] == [["1.0.0"]] * 3
        assert pages[0]["source"] == "consul"
        assert not pages[0]["stale"]


def test_the_newest_comes_first_and_says_what_changed(start: Start) -> None:
    with released(start("1.0.0", request_timeout=5)):
        pass
    with released(start("1.1.0", request_timeout=6)) as second:
        page = history(second)
    assert versions(page) == ["1.1.0", "1.0.0"]
    assert page["releases"][0]["changed"] == ["bundle.version", "config_digest"]
    assert page["releases"][1]["changed"] == []


async def test_pages_follow_each_other_to_the_end(start: Start, consul: Consul) -> None:
    await happened(consul, "paged", [f"1.0.{number}" for number in range(4)])
    with released(start("1.0.4", service="paged")) as newest:
        page = await asyncio.to_thread(history, newest, "?limit=2")
        seen = versions(page)
        while page["next"]:
            page = await asyncio.to_thread(history, newest, page["next"].removeprefix("changes"))
            assert page["total"] == 5
            seen += versions(page)
    assert seen == ["1.0.4", "1.0.3", "1.0.2", "1.0.1", "1.0.0"]


async def test_the_history_is_bounded_and_the_oldest_leave(consul: Consul) -> None:
    await happened(consul, "bounded", [f"1.0.{number}" for number in range(5)], kept=2)
    agent = Agent(consul.address)
    left = await History(agent, "tandem", "default", "bounded", 2).releases()
    await agent.close()
    assert versions({"releases": left}) == ["1.0.4", "1.0.3"]


async def happened(consul: Consul, service: str, releases: list[str], kept: int = 100) -> None:
    """These versions were released, one after the other."""
    agent = Agent(consul.address)
    past = History(agent, "tandem", "default", service, kept)
    try:
        for version in releases:
            with TemporaryDirectory() as top:
                (Path(top) / "bundle.toml").write_text(
                    f'name = "halves"\nversion = "{version}"\n[[models]]\nname = "m"\nversion = 1\n'
                )
                running = Running({}, Settings(), parse(Path(top) / "bundle.toml"), service)
            moment = {"activated_at": "2026-03-01T09:30:04.112Z", "first_instance": running.instance}
            assert await past.record({**running.release, **moment})
            assert not await past.record({**running.release, **moment})
    finally:
        await agent.close()


def test_what_has_not_changed_is_not_sent_again(start: Start) -> None:
    with released(start()) as adapter:
        first = adapter.request("GET", "/changes")
        again = adapter.request("GET", "/changes", headers={"If-None-Match": first.headers["etag"]})
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", first.headers["etag"])
        assert contract().answer_errors("GET", "/changes", again) == []
        assert adapter.request("GET", "/changes", headers={"If-None-Match": 'W/"0"'}).status == 200


def test_without_consul_the_last_known_history_is_served_and_called_stale(start: Start, consul: Consul) -> None:
    with released(start("1.0.0")):
        pass
    with released(start("1.1.0")) as adapter:
        before = history(adapter)
        consul.stop()
        try:
            while not (stale := history(adapter))["stale"]:
                pass
            assert adapter.predict("half_plus_two", {"instances": [1.0]}).status == 200
        finally:
            consul.start()
        assert stale["releases"] == before["releases"]
        assert stale["as_of"] is not None
        assert "Consul cannot be reached" in stale["note"]


def test_a_release_that_starts_while_consul_is_away_is_recorded_when_it_is_back(start: Start, consul: Consul) -> None:
    consul.stop()
    with start("3.0.0") as adapter:
        try:
            adapter.ready()
            page = history(adapter)
            assert (page["stale"], versions(page)) == (True, ["3.0.0"])
            assert not adapter.request("GET", "/changes/current").json["recorded"]
        finally:
            consul.start()
        adapter.wait_for(recorded)
        assert adapter.request("GET", "/changes/current").json["recorded"]


def test_what_others_put_among_the_keys_is_passed_over(start: Start, consul: Consul) -> None:
    with released(start()) as adapter:
        service = history(adapter)["service"]
        folder = f"/kv/tandem/default/{service}/releases"
        consul.api.call("PUT", f"{folder}/odd", "no release")
        consul.api.call("PUT", f"{folder}/other", {"id": 7})
    with released(start("1.0.1")) as adapter:
        assert versions(history(adapter)) == ["1.0.1", "1.0.0"]


def test_the_token_goes_in_a_header_and_nowhere_else(start: Start, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("0f7d1a52-secret-of-the-test\n")
    with released(start(consul_token_file=token)) as adapter:
        history(adapter)
        adapter.stop()
        assert "secret-of-the-test" not in json.dumps(adapter.records)
