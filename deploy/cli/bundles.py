"""`tandem pack`: from a source directory to the file that ships."""

import argparse
from pathlib import Path

from deploy.cli.output import Commands, add_bundle, add_json, bar, tell


def register(commands: Commands) -> None:
    """Add the verbs of this module."""
    packing = commands.add_parser("pack", help="pack a bundle into the file that ships; prints its name and SHA-256")
    add_bundle(packing, "the bundle's source directory")
    packing.add_argument("-o", "--output", type=Path, help="default: NAME-VERSION.tar.zst here")
    add_json(packing)
    packing.set_defaults(run=_pack)

    commands.add_parser("schema", help="print the JSON Schema of bundle.toml").set_defaults(run=_schema)


def _pack(options: argparse.Namespace) -> int:
    from deploy.bundle import pack, source

    manifest = source.build(options.bundle)
    target = options.output or Path(f"{manifest.name}-{manifest.version}.tar.zst")
    contents = pack.parts(options.bundle, manifest)
    with bar(f"packing {target.name}", sum(part.size for part in contents)) as progress:
        checksum = pack.write(contents, target, progress)
    tell(
        options,
        {
            "bundle": f"{manifest.name}@{manifest.version}",
            "file": str(target),
            "checksum": f"sha256:{checksum}",
            "size": target.stat().st_size,
        },
        f"{target}  {manifest.name}@{manifest.version}  sha256:{checksum}",
    )
    return 0


def _schema(_: argparse.Namespace) -> int:
    from adapter.bundle.manifest import schema

    print(schema(), end="")
    return 0
