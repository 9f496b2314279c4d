"""`tandem cluster`: a real Nomad, Consul and Docker on this machine."""

import argparse
from pathlib import Path

from deploy.cli.output import Commands, add_bundle


def register(commands: Commands) -> None:
    """Add the verbs of this module."""
    cluster = commands.add_parser("cluster", help="a real Nomad, Consul and Docker here, running the production job")
    verbs = cluster.add_subparsers(required=True, metavar="up|down")
    up = verbs.add_parser("up", help="start it unless it runs, and release a bundle on it")
    add_bundle(up, "the bundle's source directory", nargs="?", default=Path("samples/digits"))
    up.set_defaults(run=_up)
    verbs.add_parser("down", help="stop it and leave nothing behind").set_defaults(run=_down)


def _up(options: argparse.Namespace) -> int:
    from deploy.local import cluster

    return cluster.up(options.bundle)


def _down(_: argparse.Namespace) -> int:
    from deploy.local import cluster

    return cluster.down()
