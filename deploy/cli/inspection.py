"""`tandem inspect`: what a bundle is, for a person's eyes."""

import argparse
import io
import sys
from typing import Any

from deploy.cli.output import Commands, add_bundle, add_json, tell


def register(commands: Commands) -> None:
    """Add the verbs of this module."""
    inspect = commands.add_parser("inspect", help="say what a bundle is: models, signatures, sizes, origin, checksum")
    add_bundle(inspect, "packed bundle or source directory")
    add_json(inspect)
    inspect.set_defaults(run=_inspect)


def _inspect(options: argparse.Namespace) -> int:
    from deploy.bundle.summary import summary

    found = summary(options.bundle)
    tell(options, found, "" if options.json else _text(found))
    return 0


def _text(found: dict[str, Any]) -> str:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    out = io.StringIO()
    terminal = sys.stdout.isatty()
    console = Console(file=out, force_terminal=terminal, highlight=False, width=None if terminal else 1000)
    facts = Table.grid(padding=(0, 2))
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in _facts(found):
        facts.add_row(f"[dim]{name}[/]", escape(value))
    console.print(f"[bold]{escape(found['bundle'])}[/]")
    console.print(facts)
    for model in found["models"]:
        traits = [f"TensorFlow {model['tensorflow']}", size_of(model["size"])]
        traits += ["requests share calls"] if model["coalesce"] else []
        traits += [f"label {label}" for label in model["labels"]]
        traits += [f"{model['memory']} MiB expected"] if model["memory"] else []
        traits += [f"at most {model['max_calls']} calls"] if model["max_calls"] else []
        console.print(f"\n[bold]{escape(model['name'])}[/] version {model['version']}: {escape(', '.join(traits))}")
        table = Table.grid(padding=(0, 2))
        for name, signature in model["signatures_found"].items():
            for arrow, tensors in (("→", signature["inputs"]), ("←", signature["outputs"])):
                for tensor, is_ in tensors.items():
                    table.add_row(f"  {escape(name)}", arrow, escape(tensor), escape(is_["text"]))
                    name = ""
        console.print(table)
    if found["examples"]:
        console.print("\n[bold]examples[/]")
        table = Table.grid(padding=(0, 2))
        for example in found["examples"]:
            kinds = ", ".join(kind for kind in ("golden", "warmup") if example[kind])
            table.add_row(f"  {escape(example['name'])}", escape(example["path"]), kinds)
        console.print(table)
    return out.getvalue().rstrip("\n")


def _facts(found: dict[str, Any]) -> list[tuple[str, str]]:
    facts = []
    if "checksum" in found:
        facts += [("file", f"{found['file']}, {size_of(found['size'])}"), ("checksum", found["checksum"])]
        facts += [("signature", "beside it" if found["signed"] else "none")]
    facts += [("holds", f"{found['files']} files, {size_of(found['unpacked'])}")]
    facts += [("handler", found["handler"] or "none: TensorFlow Serving's own interface")]
    if found["memory"]:
        facts += [("memory", f"{found['memory']} MiB expected for the models")]
    limits = {name: value for name, value in found["limits"].items() if value is not None}
    facts += [("limits", ", ".join(f"{name} {value:g}" for name, value in limits.items()))]
    facts += [("packages", ", ".join(found["packages"]))] if found["packages"] else []
    return facts + [(name.replace("_", " "), value) for name, value in found["provenance"].items()]


def size_of(size: float) -> str:
    """Bytes as people say them."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
