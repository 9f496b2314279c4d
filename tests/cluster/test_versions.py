"""Two bundles side by side during an upgrade, on a real Nomad: no answer is made of both."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import aiohttp
import pytest

from deploy.bundle.pack import pack
from deploy.cluster.bundles import Published
from deploy.cluster.cluster import Cluster
from tests.cluster.client import Directory, session
from tests.cluster.conftest import Service
from tests.cluster.jobfile import JOB

REQUESTS = 10_000
CLIENTS = 8
Deploy = Callable[..., Service]

BUILD = """
import sys, tensorflow as tf
class Model(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def predict(self, x):
        return {{"y": {formula}}}
model = Model()
tf.saved_model.save(model, sys.argv[1] + "/{name}/1", signatures={{"serving_default": model.predict}})
"""
# Each step has a mark of its own in the answer: mixed ones would be found whichever step they mixed.
HANDLER = """
import numpy as np
from adapter.handler import Handler, Struct

class Request(Struct):
    x: float

class Answer(Struct):
    asked: str
    y: float

class Scaled(Handler[Request, Answer]):
    def preprocess(self, batch):
        return {{"x": np.array([request.x for request in batch]) * {before}}}

    def postprocess(self, outputs, batch):
        return [Answer(f"{version}:{{r.x:g}}", y * {after}) for r, y in zip(batch, outputs["y"].tolist())]
"""


def bundle(directory: Path, version: str, model: str, formula: str, before: float, after: float) -> Path:
    """A packed bundle that answers `after * formula(before * x)`."""
    source = directory / version
    source.mkdir()
    (source / "build.py").write_text(BUILD.format(formula=formula, name=model))
    (source / "handler.py").write_text(HANDLER.format(before=before, after=after, version=version))
    (source / "bundle.toml").write_text(
        f'name = "scaled"\nversion = "{version}"\nhandler = "handler.py"\n'
        f'[[models]]\nname = "{model}"\nversion = 1\ncoalesce = true\n'
    )
    archive = directory / f"scaled-{version}.tar.zst"
    pack(source, archive)
    return archive


@pytest.fixture(scope="module")
def bundles(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Published, Published]:
    top = tmp_path_factory.mktemp("versions")
    first = bundle(top, "1.0.0", "half_plus_two", "x * 0.5 + 2.0", before=1, after=1)
    second = bundle(top, "2.0.0", "times_three", "x * 3.0", before=4, after=0.25)
    return cluster.bundles.publish(first), cluster.bundles.publish(second)


def wholly(headers: Mapping[str, str], answer: dict[str, object], x: int) -> str:
    """The version that made all of this answer; "mixed" if none did."""
    whole = {
        "1.0.0": ("scaled@1.0.0", "half_plus_two@1", {"asked": f"1.0.0:{x}", "y": x / 2 + 2}),
        "2.0.0": ("scaled@2.0.0", "times_three@1", {"asked": f"2.0.0:{x}", "y": 3.0 * x}),
    }
    found = (headers["X-Bundle"], headers["X-Model-Version"], answer)
    return next((version for version, expected in whole.items() if found == expected), f"mixed: {found}")


async def test_ten_thousand_answers_during_an_upgrade_are_wholly_one_bundles(
    cluster: Cluster, deploy: Deploy, bundles: tuple[Published, Published]
) -> None:
    first, second = bundles
    service = deploy("two-bundles", bundle_url=first.url, bundle_checksum=first.checksum, shutdown_delay=3)
    directory = Directory(cluster.consul.dns_port)
    seen: Counter[str] = Counter()
    numbers = itertools.count()
    upgraded = asyncio.Event()
    addresses = await directory.addresses(service.name)

    async def look() -> None:
        nonlocal addresses
        while True:
            addresses = await directory.addresses(service.name) or addresses
            await asyncio.sleep(0.2)

    async def client(http: aiohttp.ClientSession) -> None:
        while seen.total() < REQUESTS or not upgraded.is_set():
            x = next(numbers)
            try:
                async with http.post(f"http://{addresses[x % len(addresses)]}/predict", json={"x": x % 1000}) as answer:
                    body = await answer.json()
                    seen[
                        wholly(answer.headers, body, x % 1000) if answer.status == 200 else f"{answer.status}: {body}"
                    ] += 1
            except (aiohttp.ClientError, TimeoutError) as error:
                seen[repr(error)] += 1

    async def upgrade() -> None:
        while seen.total() < REQUESTS // 5:
            await asyncio.sleep(0.05)
        new = {**service.variables, "bundle_url": second.url, "bundle_checksum": second.checksum}
        await asyncio.to_thread(cluster.nomad.run, JOB, new)
        await asyncio.to_thread(cluster.nomad.deployed, service.name, 120)
        until = time.monotonic() + 6  # the old one has left Consul and is gone
        while time.monotonic() < until:
            await asyncio.sleep(0.1)
        upgraded.set()

    looking = asyncio.create_task(look())
    async with session() as http, asyncio.TaskGroup() as group:
        group.create_task(upgrade())
        for _ in range(CLIENTS):
            group.create_task(client(http))
    looking.cancel()

    assert set(seen) == {"1.0.0", "2.0.0"}, seen
    assert seen.total() >= REQUESTS
    assert min(seen.values()) >= REQUESTS // 10
