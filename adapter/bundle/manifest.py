"""`bundle.toml`: what one bundle holds. Read once at start; every mistake is named."""

import re
import tomllib
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

NAME = r"^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$"
VERSION = r"^[0-9A-Za-z][0-9A-Za-z.+_-]{0,63}$"


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One SavedModel: `models/<name>/<version>/`. `coalesce`: its rows are independent of each other."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]
    version: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
    coalesce: bool = False


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A bundle's name, version and models."""

    name: Annotated[str, Meta(pattern=NAME)]
    version: Annotated[str, Meta(pattern=VERSION)]
    models: Annotated[tuple[Model, ...], Meta(min_length=1, max_length=64)]


class BundleError(Exception):
    """The bundle cannot be used; the message says which file and why."""


def read(directory: Path) -> Manifest:
    """The manifest of the bundle unpacked at `directory`, its models' directories checked.

    Raises:
        BundleError: naming the file, the field and what was expected.
    """
    path = directory / "bundle.toml"
    manifest = parse(path)
    missing = [
        f"models/{m.name}/{m.version}/saved_model.pb"
        for m in manifest.models
        if not (directory / "models" / m.name / str(m.version) / "saved_model.pb").is_file()
    ]
    if missing:
        raise BundleError(f"{directory}: {', '.join(missing)} missing, which {path.name} lists")
    return manifest


def parse(path: Path) -> Manifest:
    """The manifest alone, without looking at the models. Raises BundleError."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        manifest = msgspec.convert(document, Manifest)
    except FileNotFoundError:
        raise BundleError(f"{path}: no such file; a bundle has a bundle.toml at its top") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BundleError(f"{path}: {error}") from None
    except msgspec.ValidationError as error:
        raise BundleError(f"{path}: {re.sub(r' - at `[$][.]?', ' at `', str(error))}") from None
    names = [model.name for model in manifest.models]
    if len(set(names)) != len(names):
        raise BundleError(f"{path}: models: every name only once, found {', '.join(names)}")
    return manifest
