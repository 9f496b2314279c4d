"""What a bundle is, as one plain object: for `tandem inspect --json`, and for the tables that people read."""

from pathlib import Path
from typing import Any

import msgspec

from deploy.bundle import minisign, verify
from deploy.bundle.savedmodel import SavedModel, Signature, Tensor


def summary(path: Path) -> dict[str, Any]:
    """Of a packed bundle or a directory. Raises BundleError."""
    contents = verify.look(path)
    manifest = contents.manifest
    models = [
        {
            **msgspec.to_builtins(model),
            "size": sum(size for name, size in contents.files.items() if name.startswith(f"models/{model.name}/")),
            **_saved(contents.models[model.name]),
        }
        for model in manifest.models
    ]
    memory = [model.memory for model in manifest.models]
    return {
        "bundle": f"{manifest.name}@{manifest.version}",
        **({} if path.is_dir() else _file(path)),
        "handler": manifest.handler,
        "limits": msgspec.to_builtins(manifest.limits),
        "models": models,
        "memory": sum(m for m in memory if m) if all(memory) else None,
        "examples": [
            {"name": e.name, "path": manifest.path_of(e), "golden": e.response is not None, "warmup": e.warmup}
            for e in manifest.examples
        ],
        "packages": list(contents.vendored),
        "provenance": {name: value for name, value in msgspec.to_builtins(manifest.provenance).items() if value},
        "files": len(contents.files),
        "unpacked": sum(contents.files.values()),
    }


def _file(path: Path) -> dict[str, Any]:
    sums = verify.sums(path)
    signed = path.with_name(path.name + minisign.SUFFIX).is_file()
    return {"file": str(path), "size": sums.size, "checksum": f"sha256:{sums.sha256}", "signed": signed}


def _saved(model: SavedModel) -> dict[str, Any]:
    return {
        "tensorflow": model.tensorflow,
        "signatures_found": {name: _signature(signature) for name, signature in model.signatures.items()},
    }


def _signature(signature: Signature) -> dict[str, Any]:
    return {
        "method": signature.method,
        "inputs": {name: _tensor(tensor) for name, tensor in signature.inputs.items()},
        "outputs": {name: _tensor(tensor) for name, tensor in signature.outputs.items()},
    }


def _tensor(tensor: Tensor) -> dict[str, Any]:
    return {"dtype": tensor.dtype, "shape": tensor.shape, "text": str(tensor)}
