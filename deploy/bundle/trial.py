"""A bundle's source, tried before it ships: built, read, its handler imported, and run as both tasks."""

import asyncio
from pathlib import Path

from adapter.bundle.manifest import BundleError, Manifest
from deploy.bundle import golden, imports, source, verify
from deploy.bundle.golden import Outcome


def run(directory: Path) -> tuple[Manifest, Outcome]:
    """Build the bundle, run it here and ask it all that it says it can answer.

    Raises:
        BundleError: it cannot be built, imported or loaded.
    """
    manifest, contents = _read(directory)
    return manifest, asyncio.run(golden.ask(directory, manifest, contents.models))


def ready_to_pack(directory: Path, run: bool = True) -> Manifest:
    """The manifest of a bundle that may ship. Raises BundleError for the first thing that speaks against it."""
    manifest, contents = _read(directory)
    if run:
        outcome = asyncio.run(golden.ask(directory, manifest, contents.models))
        if outcome.wrong:
            raise BundleError(f"{directory}: {outcome.sentence}")
    return manifest


def _read(directory: Path) -> tuple[Manifest, verify.Contents]:
    manifest = source.build(directory)
    contents = verify.look(directory)
    imports.check(directory, manifest)
    return manifest, contents
