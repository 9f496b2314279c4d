"""`tandem`: the command for people.

Each module of verbs has `register(commands)`, which adds its verbs to the parser; a verb's parser names the function
that does it (`set_defaults(run=…)`), which takes the parsed options and returns the exit status.

Exit status: 0 done; 1 it was tried and failed, or a difference was found; 2 wrong usage, or a bundle or setting that
cannot be used (nothing was started).
"""

import argparse
import sys
from collections.abc import Sequence

import shtab

from adapter.bundle.manifest import BundleError
from deploy.cli import audit, bundles, check, cluster, inspection, local
from deploy.cli.output import refuse

VERBS = (local, bundles, inspection, check, audit, cluster)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `tandem` with `arguments` (default: the command line's)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["model-server"]:  # its flags are TensorFlow Serving's, not argparse's
        from deploy.local.model_server import main as model_server

        return model_server(given[1:])
    options = parser().parse_args(given)
    try:
        status: int = options.run(options)
    except BundleError as error:
        return refuse(options, str(error))
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as shells say it
    return status


def parser() -> argparse.ArgumentParser:
    """Every verb."""
    top = argparse.ArgumentParser(prog="tandem", description="TensorFlow models as ordinary microservices.")
    shtab.add_argument_to(top, ["--print-completion"], help="print a completion script for this shell and exit")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for verbs in VERBS:
        verbs.register(commands)
    commands.add_parser("model-server", help="the local model server, with tensorflow_model_server's flags")
    return top
