"""`tandem pack`, `verify`, `sign`, `keygen`, `new`: the file that ships, and whether it is the one that it should be."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.cli.output import Commands, add_bundle, add_json, bar, tell

if TYPE_CHECKING:
    from deploy.bundle import minisign


def register(commands: Commands) -> None:
    """Add the verbs of this module."""
    pack = commands.add_parser("pack", help="pack a bundle into the file that ships; prints its name and SHA-256")
    add_bundle(pack, "the bundle's source directory")
    pack.add_argument("-o", "--output", type=Path, help="default: NAME-VERSION.tar.zst here")
    pack.add_argument(
        "--no-run", action="store_true", help="do not run it: no example is asked, no claim of `coalesce` is tried"
    )
    pack.add_argument("--sign", type=Path, metavar="KEYFILE", help="sign it with this secret key (tandem keygen)")
    add_json(pack)
    pack.set_defaults(run=_pack)

    verify = commands.add_parser("verify", help="check a packed bundle: its checksum, its signature, what it holds")
    add_bundle(verify, "the packed bundle")
    verify.add_argument("--checksum", metavar="sha256:…", help="default: what stands in BUNDLE.sha256")
    verify.add_argument("--key", metavar="PUBLIC", help="it must be signed by this key: a file, or the key itself")
    add_json(verify)
    verify.set_defaults(run=_verify)

    sign = commands.add_parser("sign", help="sign a packed bundle; writes BUNDLE.minisig")
    add_bundle(sign, "the packed bundle")
    sign.add_argument("--key", type=Path, required=True, metavar="KEYFILE", help="the secret key")
    add_json(sign)
    sign.set_defaults(run=_sign)

    new = commands.add_parser("new", help="write the source of a new bundle that runs and passes its tests")
    new.add_argument("directory", type=Path, help="where to; its name becomes the bundle's")
    add_json(new)
    new.set_defaults(run=_new)

    keygen = commands.add_parser("keygen", help="make a pair of keys for signing: NAME.key and NAME.pub")
    keygen.add_argument("name", type=Path, help="where to, without .key and .pub")
    add_json(keygen)
    keygen.set_defaults(run=_keygen)


def _pack(options: argparse.Namespace) -> int:
    from deploy.bundle import minisign, pack, trial

    key = minisign.secret_key(options.sign) if options.sign else None
    manifest = trial.ready_to_pack(options.bundle, run=not options.no_run)
    target = options.output or Path(f"{manifest.name}-{manifest.version}.tar.zst")
    contents = pack.parts(options.bundle, manifest)
    with bar(f"packing {target.name}", sum(part.size for part in contents)) as progress:
        checksum = pack.write(contents, target, progress)
    bundle = f"{manifest.name}@{manifest.version}"
    result = {"bundle": bundle, "file": str(target), "checksum": f"sha256:{checksum}", "size": target.stat().st_size}
    if key:
        result["signature"] = str(_signed(target, key))
    tell(options, result, f"{target}  {bundle}  sha256:{checksum}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    from deploy.bundle import minisign
    from deploy.bundle.verify import verify

    key = minisign.public_key(options.key) if options.key else None
    with bar(f"verifying {options.bundle.name}", _size(options.bundle)) as progress:
        found = verify(options.bundle, options.checksum, key, progress)
    manifest = found.contents.manifest
    bundle, files = f"{manifest.name}@{manifest.version}", len(found.contents.files)
    result = {
        "bundle": bundle,
        "checksum": f"sha256:{found.sums.sha256}",
        "size": found.sums.size,
        "files": files,
        "signed_by": key.name if key else None,
        "comment": found.comment or None,
    }
    signed = f", signed by {key.name}" if key else ""
    tell(options, result, f"{options.bundle}  {bundle}  sha256:{found.sums.sha256}{signed}, {files} files")
    return 0


def _sign(options: argparse.Namespace) -> int:
    from deploy.bundle import minisign

    signature = _signed(options.bundle, minisign.secret_key(options.key))
    tell(options, {"signature": str(signature)}, str(signature))
    return 0


def _new(options: argparse.Namespace) -> int:
    from deploy.bundle.scaffold import scaffold

    files = scaffold(options.directory)
    steps = "\n".join(f"  tandem {verb} {options.directory}" for verb in ("test", "run --watch", "pack"))
    tell(
        options,
        {"directory": str(options.directory), "files": files},
        f"{options.directory}: {', '.join(files)}\n{steps}",
    )
    return 0


def _keygen(options: argparse.Namespace) -> int:
    from deploy.bundle import minisign

    secret, public = (options.name.with_name(f"{options.name.name}.{kind}") for kind in ("key", "pub"))
    key = minisign.generate(secret, public)
    result = {"id": key.name, "secret": str(secret), "public": str(public)}
    tell(options, result, f"{public}  {key.name}  (keep {secret} secret: it is not encrypted)")
    return 0


def _signed(bundle: Path, key: "minisign.SecretKey") -> Path:
    from deploy.bundle import minisign
    from deploy.bundle.verify import sums

    with bar(f"signing {bundle.name}", _size(bundle)) as progress:
        found = sums(bundle, progress)
    path = bundle.with_name(bundle.name + minisign.SUFFIX)
    path.write_text(minisign.sign(found.blake2b, key, f"{bundle.name} sha256:{found.sha256}"))
    return path


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
