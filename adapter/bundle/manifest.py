"""`bundle.toml`: what one bundle holds. Read once at start; every mistake is named with its line, all at once.

The structs are the schema: `schema()` says the same in JSON Schema, and `docs/bundle.schema.json` keeps it for editors.
"""

import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated

import msgspec
from msgspec import Meta

NAME = r"^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$"
VERSION = r"^[0-9A-Za-z][0-9A-Za-z.+_-]{0,63}$"
MIB = 1 << 20

Text = Annotated[str, Meta(max_length=1024)]
File = Annotated[str, Meta(min_length=1, max_length=512, description="A path inside the bundle.")]
ServableVersion = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Label = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One SavedModel: `models/<name>/<version>/`."""

    name: Annotated[
        str,
        Meta(pattern=r"^[A-Za-z0-9_.-]{1,128}$", description="As in /v1/models/<name>:predict and `ctx.infer`."),
    ]
    version: Annotated[ServableVersion, Meta(description="Exactly this version must be AVAILABLE before ready.")]
    coalesce: Annotated[bool, Meta(description="Its rows do not know of each other: requests may share a call.")] = (
        False
    )
    signatures: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=256)], ...],
        Meta(description="The signatures that the handler uses; each must exist in the SavedModel."),
    ] = ()
    labels: Annotated[
        Mapping[Label, ServableVersion],
        Meta(description="TensorFlow Serving's version labels; a bundle holds one version, so they name that one."),
    ] = msgspec.field(default_factory=dict)
    max_calls: Annotated[int, Meta(ge=1, le=65536, description="Calls in flight for this model at most.")] | None = None
    memory: Annotated[int, Meta(ge=1, le=1 << 24, description="MiB that this model is expected to need.")] | None = None


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds of one `/predict`; the service's own (ADAPTER_MAX_BODY, ADAPTER_REQUEST_TIMEOUT) hold as well."""

    max_body: Annotated[int, Meta(ge=1, le=2048 * MIB, description="Bytes of the body, decompressed.")] | None = None
    timeout: Annotated[float, Meta(gt=0, le=3600, description="Seconds that it may take.")] | None = None
    max_batch: Annotated[int, Meta(ge=1, le=1 << 20, description="Instances in one request.")] = 1024


class Provenance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the bundle comes from; told, never acted on."""

    git_commit: Text = ""
    training: Text = ""
    data: Text = ""
    author: Text = ""
    built_by: Text = ""
    built_at: Text = ""


class Example(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A request that the bundle answers: golden where `response` is given, sent before ready where `warmup` is."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    request: File
    path: Annotated[
        str,
        Meta(
            pattern=r"^(/.*)?$",
            max_length=512,
            description="Default: /predict with a handler, else /v1/models/<the first>:predict.",
        ),
    ] = ""
    content_type: Annotated[str, Meta(pattern=r"^[!-~]+/[ -~]+$", max_length=256)] = "application/json"
    response: Annotated[File, Meta(description="The answer expected, as JSON.")] | None = None
    tolerance: Annotated[
        float, Meta(ge=0, le=1, description="Relative and absolute, on every number of the answer.")
    ] = 1e-5
    warmup: bool = False


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A bundle: its name and version, its models, the handler between them and the world, and examples of its use."""

    name: Annotated[str, Meta(pattern=NAME)]
    version: Annotated[str, Meta(pattern=VERSION)]
    models: Annotated[tuple[Model, ...], Meta(min_length=1, max_length=64)]
    handler: Annotated[File, Meta(description="A Python file, or a package's directory.")] | None = None
    limits: Limits = Limits()
    provenance: Provenance = Provenance()
    examples: Annotated[tuple[Example, ...], Meta(max_length=256)] = ()

    @property
    def checks(self) -> tuple[str, ...]:
        """The checks that it brings beside those of its models."""
        signatures = self.handler or any(model.signatures for model in self.models)
        return (*(("handler",) if self.handler else ()), *(("signatures",) if signatures else ()))

    def model(self, name: str) -> Model | None:
        """The model of this name."""
        return next((model for model in self.models if model.name == name), None)

    def path_of(self, example: Example) -> str:
        """Where an example is sent: its own path, or the default."""
        if example.path:
            return example.path
        return "/predict" if self.handler else f"/v1/models/{self.models[0].name}:predict"


class BundleError(Exception):
    """The bundle cannot be used; the message says which file and why, one line for each mistake."""


def read(directory: Path) -> Manifest:
    """The manifest of the bundle unpacked at `directory`; every file that it names is there, and lies inside.

    Raises:
        BundleError: naming the file, the line, the field and what was expected.
    """
    path = directory / "bundle.toml"
    manifest = parse(path)
    missing = missing_files(directory, manifest)
    if missing:
        raise BundleError(f"{directory}: {', '.join(missing)} missing, which {path.name} lists")
    files = [file for _, file in _named_files(manifest)]
    top = directory.resolve()
    outside = [file for file in files if not (directory / file).resolve().is_relative_to(top)]
    if outside:
        raise BundleError(f"{directory}: {', '.join(outside)}: lies outside of the bundle")
    return manifest


def missing_files(directory: Path, manifest: Manifest) -> list[str]:
    """The files that the manifest names and `directory` lacks."""
    models = [f"models/{m.name}/{m.version}/saved_model.pb" for m in manifest.models]
    missing = [file for file in models if not (directory / file).is_file()]
    if manifest.handler and not any(p.is_file() for p in handler_files(directory, manifest.handler)):
        missing.append(manifest.handler)
    examples = [file for e in manifest.examples for file in (e.request, e.response) if file]
    return missing + sorted({file for file in examples if not (directory / file).is_file()})


def handler_files(directory: Path, handler: str) -> tuple[Path, Path]:
    """Where Python's code begins: the file itself, or the package's `__init__.py`."""
    return directory / handler, directory / handler / "__init__.py"


def parse(path: Path) -> Manifest:
    """The manifest alone, without looking at the files that it names. Raises BundleError."""
    try:
        text = path.read_text(encoding="utf-8")
        document = tomllib.loads(text)
    except FileNotFoundError:
        raise BundleError(f"{path}: no such file; a bundle has a bundle.toml at its top") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BundleError(f"{path}: {error}") from None
    try:
        manifest = msgspec.convert(document, Manifest)
    except msgspec.ValidationError:
        from adapter.bundle.mistakes import mistakes

        raise BundleError(_told(path, text, mistakes(document, Manifest))) from None
    contradictions = list(_contradictions(manifest))
    if contradictions:
        raise BundleError(_told(path, text, contradictions))
    return manifest


def schema() -> str:
    """The manifest's JSON Schema, as it is kept in `docs/bundle.schema.json`."""
    said = {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(Manifest)}
    return json.dumps(said, indent=2) + "\n"


Mistake = tuple[tuple[str | int, ...], str]
"""Where in the document, and what is wrong."""


def _contradictions(manifest: Manifest) -> Iterator[Mistake]:
    """What no single field can tell."""
    for table, entries in (("models", manifest.models), ("examples", manifest.examples)):
        names = [entry.name for entry in entries]
        for i, name in enumerate(names):
            if name in names[:i]:
                yield (table, i, "name"), f"every name only once, found {name!r} again"
    for i, model in enumerate(manifest.models):
        wrong = {label: version for label, version in model.labels.items() if version != model.version}
        for label, version in wrong.items():
            where = ("models", i, "labels", label)
            yield where, f"expected {model.version}, the only version that the bundle holds, got {version}"
    without = [i for i, example in enumerate(manifest.examples) if example.path == "/predict" and not manifest.handler]
    yield from ((("examples", i, "path"), "/predict needs a handler, and the bundle names none") for i in without)
    yield from _problems_of_paths(manifest)
    handler = manifest.handler
    if handler and not handler.removesuffix(".py").isidentifier():
        yield ("handler",), f"expected a .py file or a package at the bundle's top, got {handler!r}"


def _named_files(manifest: Manifest) -> list[tuple[tuple[str | int, ...], str]]:
    found: list[tuple[tuple[str | int, ...], str]] = []
    for i, example in enumerate(manifest.examples):
        found.append((("examples", i, "request"), example.request))
        if example.response:
            found.append((("examples", i, "response"), example.response))
    if manifest.handler:
        found.append((("handler",), manifest.handler))
    return found


def _problems_of_paths(manifest: Manifest) -> Iterator[Mistake]:
    for where, file in _named_files(manifest):
        path = PurePosixPath(file)
        if path.is_absolute() or ".." in path.parts or "\\" in file or "\0" in file:
            yield where, f"expected a path inside the bundle, got {file!r}"


def _told(path: Path, text: str, found: list[Mistake]) -> str:
    from adapter.bundle.toml_lines import line_of

    told = []
    for where, problem in found:
        line = line_of(text, where)
        told.append((line, f"{path}:{line}: {_name(where)}: {problem}" if where else f"{path}: {problem}"))
    return "\n".join(message for _, message in sorted(told))


def _name(where: tuple[str | int, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where).removeprefix(".")
