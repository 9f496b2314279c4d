"""`tandem run`: the embedded group on this machine."""

import argparse
import asyncio
from pathlib import Path

from deploy.cli.output import Commands, add_bundle


def register(commands: Commands) -> None:
    """Add the verbs of this module."""
    run = commands.add_parser("run", help="run a bundle here: both tasks, as one allocation")
    add_bundle(run, "directory or packed bundle (default samples/digits)", nargs="?", default=Path("samples/digits"))
    run.add_argument("--port", type=int, default=8080, help="REST port (default 8080)")
    run.add_argument("--dir", type=Path, default=Path(".tandem"), help="where the allocation lives (default .tandem)")
    run.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from deploy.local.console import Console
    from deploy.local.group import EmbeddedGroup

    async def group() -> int:
        return await EmbeddedGroup(options.bundle, options.port, options.dir, Console()).run()

    return asyncio.run(group())
