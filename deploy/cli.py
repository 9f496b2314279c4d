"""`tandem`: the command for people.

Exit status: 0 done, 1 failed while running, 2 wrong usage or a bundle or setting that cannot be used (nothing started).
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from adapter.bundle.manifest import BundleError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `tandem` with `arguments` (default: the command line's)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["model-server"]:  # its flags are TensorFlow Serving's, not argparse's
        from deploy.local.model_server import main as model_server

        return model_server(given[1:])
    options = _parser().parse_args(given)
    try:
        status: int = options.run(options)
    except BundleError as error:
        print(f"tandem: {error}", file=sys.stderr)
        return 2
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tandem", description="TensorFlow models as ordinary microservices.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run a bundle here: both tasks, as one allocation")
    run.add_argument("bundle", nargs="?", type=Path, default=Path("samples/digits"), help="directory or .tar.gz")
    run.add_argument("--port", type=int, default=8080, help="REST port (default 8080)")
    run.add_argument("--dir", type=Path, default=Path(".tandem"), help="where the allocation lives (default .tandem)")
    run.set_defaults(run=_run)

    packing = commands.add_parser("pack", help="pack a bundle into the file that ships; prints its name and SHA-256")
    packing.add_argument("bundle", type=Path, help="the bundle's source directory")
    packing.add_argument("-o", "--output", type=Path, help="default: NAME-VERSION.tar.gz here")
    packing.set_defaults(run=_pack)

    cluster = commands.add_parser("cluster", help="a real Nomad, Consul and Docker here, running the production job")
    verbs = cluster.add_subparsers(required=True, metavar="up|down")
    up = verbs.add_parser("up", help="start it unless it runs, and release a bundle on it")
    up.add_argument(
        "bundle", nargs="?", type=Path, default=Path("samples/digits"), help="the bundle's source directory"
    )
    up.set_defaults(run=_cluster_up)
    verbs.add_parser("down", help="stop it and leave nothing behind").set_defaults(run=_cluster_down)

    commands.add_parser("model-server", help="the local model server, with tensorflow_model_server's flags")
    return parser


def _run(options: argparse.Namespace) -> int:
    from deploy.local.console import Console
    from deploy.local.group import EmbeddedGroup

    async def group() -> int:
        return await EmbeddedGroup(options.bundle, options.port, options.dir, Console()).run()

    return asyncio.run(group())


def _pack(options: argparse.Namespace) -> int:
    from deploy import pack

    manifest = pack.build(options.bundle)
    target = options.output or Path(f"{manifest.name}-{manifest.version}.tar.gz")
    checksum = pack.pack(options.bundle, target)
    print(f"{target}  {manifest.name}@{manifest.version}  sha256:{checksum}")
    return 0


def _cluster_up(options: argparse.Namespace) -> int:
    from deploy.local import cluster

    return cluster.up(options.bundle)


def _cluster_down(_: argparse.Namespace) -> int:
    from deploy.local import cluster

    return cluster.down()


if __name__ == "__main__":
    sys.exit(main())
