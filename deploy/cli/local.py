"""`tandem run` and `tandem test`: the embedded group on this machine."""

import argparse
import asyncio
from pathlib import Path

from deploy.cli.output import Commands, add_bundle, add_json, refuse, spinner, tell


def register(commands: Commands) -> None:
    """Add the verbs of this module."""
    run = commands.add_parser("run", help="run a bundle here: both tasks, as one allocation")
    add_bundle(run, "directory or packed bundle (default samples/digits)", nargs="?", default=Path("samples/digits"))
    run.add_argument("--port", type=int, default=8080, help="REST port (default 8080)")
    run.add_argument("--dir", type=Path, default=Path(".tandem"), help="where the allocation lives (default .tandem)")
    run.add_argument("--watch", action="store_true", help="reload handler and models whenever a file of DIR is saved")
    run.set_defaults(run=_run)

    test = commands.add_parser("test", help="run a bundle's golden examples and show where its answers differ")
    add_bundle(test, "the bundle's source directory")
    add_json(test)
    test.set_defaults(run=_test)


def _test(options: argparse.Namespace) -> int:
    from deploy.bundle import trial

    with spinner(f"testing {options.bundle}"):
        manifest, outcome = trial.run(options.bundle)
    bundle = f"{manifest.name}@{manifest.version}"
    lines = []
    for question in outcome.asked:
        problems = outcome.wrong.get(question, [])
        lines += [f"{'differs' if problems else 'ok':<8} {question}", *(f"           {line}" for line in problems)]
    total = f"{len(outcome.asked)} questions, {len(outcome.wrong)} answered wrongly"
    result = {"bundle": bundle, "asked": outcome.asked, "wrong": outcome.wrong}
    tell(options, result, "\n".join([*lines, f"{bundle}: {total}"]))
    return 1 if outcome.wrong else 0


def _run(options: argparse.Namespace) -> int:
    from deploy.local.console import Console
    from deploy.local.group import EmbeddedGroup

    if options.watch and not options.bundle.is_dir():
        return refuse(options, f"{options.bundle}: only a source directory can be watched")

    async def group() -> int:
        return await EmbeddedGroup(options.bundle, options.port, options.dir, Console(), watch=options.watch).run()

    return asyncio.run(group())
