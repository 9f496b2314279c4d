"""Does a bundle answer as it says? Its golden examples, asked through both tasks as clients would.

    each by itself            every example is answered, and as its golden answer says where it has one
    all as one batch          where every model claims `coalesce`, examples of one path go into one request
    rows made up              each signature of a model that claims `coalesce`: a few rows at once and one by one

A model that mixes rows (statistics over the batch, a ranking) answers the same row differently in another company: it is
refused the claim, for under load its answers would depend on who else asks.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from adapter.bundle.manifest import Example, Manifest
from deploy.bundle import rows
from deploy.bundle.comparison import differences
from deploy.bundle.savedmodel import SavedModel
from deploy.local.running import running

# Requests and answers hold their rows here: in `/v1` and in `/predict`.
INSTANCES, PREDICTIONS = "instances", "predictions"
TIMEOUT = aiohttp.ClientTimeout(total=60)


@dataclass
class Outcome:
    """What was asked, and what was wrong with each of the questions that are named here."""

    asked: list[str] = field(default_factory=list)
    wrong: dict[str, list[str]] = field(default_factory=dict)

    def note(self, question: str, problems: list[str]) -> None:
        """A question, and what is wrong with its answer."""
        self.asked.append(question)
        if problems:
            self.wrong[question] = problems

    @property
    def sentence(self) -> str:
        """The first thing that is wrong."""
        question, problems = next(iter(self.wrong.items()))
        return f"{question}: {problems[0]}"


async def ask(source: Path, manifest: Manifest, models: dict[str, SavedModel]) -> Outcome:
    """Run the bundle at `source` and put every question to it.

    Raises:
        BundleError: it does not get ready.
    """
    async with running(source) as url, aiohttp.ClientSession(url, timeout=TIMEOUT) as client:
        return await put(client, source, manifest, models)


async def put(
    client: aiohttp.ClientSession, source: Path, manifest: Manifest, models: dict[str, SavedModel]
) -> Outcome:
    """Every question to the service that `client` speaks with."""
    outcome = Outcome()
    for example in manifest.examples:
        body = (source / example.request).read_bytes()
        status, answer = await _post(client, manifest.path_of(example), body, example.content_type)
        outcome.note(f"example {example.name}", _judge(source, example, status, answer))
    if not outcome.wrong:
        for batch in _batches(source, manifest):
            status, answer = await _post(client, batch.path, batch.body, "application/json")
            outcome.note(f"examples {', '.join(batch.names)} as one batch", batch.judge(status, answer))
    for model in manifest.models:
        if model.coalesce:
            for question, problems in await rows.mixed(client, model.name, models[model.name]):
                outcome.note(question, problems)
    return outcome


@dataclass(frozen=True)
class Batch:
    """Examples of one path as one request, and what each row of the answer should be."""

    path: str
    names: list[str]
    instances: list[Any]
    expected: list[Any]
    tolerance: float

    @property
    def body(self) -> bytes:
        return json.dumps({INSTANCES: self.instances}).encode()

    def judge(self, status: int, answer: bytes) -> list[str]:
        """What is wrong with the answer."""
        if status != 200:
            return [f"answered {status}: {_told(answer)}"]
        return differences({PREDICTIONS: self.expected}, json.loads(answer), self.tolerance)


def _batches(source: Path, manifest: Manifest) -> Iterator[Batch]:
    """Of every path that is asked by two golden examples or more, whose models all claim `coalesce`."""
    claims = {model.name for model in manifest.models if model.coalesce}
    found: dict[str, Batch] = {}
    for example in manifest.examples:
        path = manifest.path_of(example)
        named = next((model.name for model in manifest.models if path.startswith(f"/v1/models/{model.name}:")), None)
        coalesced = named in claims if named else len(claims) == len(manifest.models)
        if not example.response or example.content_type != "application/json" or not coalesced:
            continue
        pairs = _rows(
            json.loads((source / example.request).read_bytes()), json.loads((source / example.response).read_bytes())
        )
        if pairs is None:
            continue
        batch = found.setdefault(path, Batch(path, [], [], [], max(e.tolerance for e in manifest.examples)))
        batch.names.append(example.name)
        batch.instances.extend(pairs[0])
        batch.expected.extend(pairs[1])
    yield from (batch for batch in found.values() if len(batch.names) > 1)


def _rows(request: Any, response: Any) -> tuple[list[Any], list[Any]] | None:
    """The rows of an example and of its answer; None where it has none that could go together with others'."""
    if not isinstance(request, dict) or not isinstance(response, dict) or "inputs" in request:
        return None
    if INSTANCES not in request:
        return [request], [response]
    if set(request) != {INSTANCES} or set(response) != {PREDICTIONS}:
        return None
    return request[INSTANCES], response[PREDICTIONS]


def _judge(source: Path, example: Example, status: int, answer: bytes) -> list[str]:
    if not 200 <= status <= 299:
        return [f"answered {status}: {_told(answer)}"]
    if example.response is None:
        return []
    try:
        expected = json.loads((source / example.response).read_bytes())
    except ValueError as error:
        return [f"{example.response} is no JSON: {error}"]
    try:
        given = json.loads(answer)
    except ValueError:
        return [f"the answer is no JSON: {_told(answer)}"]
    return differences(expected, given, example.tolerance)


async def _post(client: aiohttp.ClientSession, path: str, body: bytes, content_type: str) -> tuple[int, bytes]:
    async with client.post(path, data=body, headers={"Content-Type": content_type}) as response:
        return response.status, await response.read()


def _told(answer: bytes) -> str:
    return answer[:400].decode("utf-8", "replace")
