"""How every verb speaks: results on standard output, for people or (`--json`) for machines; all else on standard error.

Colours and progress bars only where standard error is a terminal. A refusal is one sentence, or with `--json` one
object `{"error": …}` on standard output.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

Commands = Any  # argparse's `_SubParsersAction`, which has no public name

DIRECTORIES = {"bash": "_shtab_compgen_dirs", "zsh": "_files -/", "tcsh": "d"}
FILES = {"bash": "_shtab_compgen_files", "zsh": "_files", "tcsh": "f"}


class Progress(Protocol):
    """Told of work done: `advance(bytes)`, at any rate."""

    def __call__(self, done: int, /) -> None: ...


def nothing(_: int) -> None:
    """Progress that nobody looks at."""


def add_json(parser: argparse.ArgumentParser) -> None:
    """The option `--json`."""
    parser.add_argument("--json", action="store_true", help="the result as one JSON object")


def add_bundle(parser: argparse.ArgumentParser, description: str, **more: Any) -> None:
    """The argument `bundle`, completed as a file."""
    argument = parser.add_argument("bundle", type=Path, help=description, **more)
    argument.complete = FILES  # type: ignore[attr-defined]  # shtab reads it


def tell(options: argparse.Namespace, result: dict[str, Any], text: str) -> None:
    """The result of a verb."""
    print(json.dumps(result, ensure_ascii=False) if getattr(options, "json", False) else text, flush=True)


def refuse(options: argparse.Namespace, sentence: str, status: int = 2) -> int:
    """Why nothing was done, in one sentence; returns `status`."""
    if getattr(options, "json", False):
        print(json.dumps({"error": sentence}, ensure_ascii=False), flush=True)
    print(f"tandem: {sentence}", file=sys.stderr, flush=True)
    return status


def say(text: str) -> None:
    """A word about what is going on."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def spinner(title: str) -> Iterator[None]:
    """A sign of life on standard error while work of unknown length goes on, where that is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(title):
        yield


@contextmanager
def bar(title: str, total: int) -> Iterator[Progress]:
    """A bar of bytes on standard error while work goes on, where that is a terminal."""
    if not sys.stderr.isatty():
        yield nothing
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn(title), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(title, total=total)
        yield lambda done: bars.update(task, advance=done)
