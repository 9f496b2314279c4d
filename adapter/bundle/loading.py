"""From a bundle's `handler.py` (or package) to an instance of its handler. Runs the author's code: call it off the event loop.

`vendor/` holds the bundle's own packages. They come last on the path: where the adapter has a package itself, one process
cannot hold another version of it.
"""

import importlib.util
import inspect
import sys
import traceback
from pathlib import Path
from typing import Any

import msgspec

from adapter.bundle.api import Handler
from adapter.bundle.manifest import handler_files

MODULE = "bundle_handler"


class HandlerError(Exception):
    """The handler cannot be used; one sentence says why."""


def load(directory: Path, handler: str) -> Handler[Any, Any]:
    """The handler of the bundle at `directory`, made but not started.

    Raises:
        HandlerError: it cannot be imported, or is not what the API asks for.
    """
    vendor = str(directory / "vendor")
    if vendor not in sys.path:
        sys.path.append(vendor)
    module = _import(directory, handler)
    found = [
        kind
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Handler) and kind is not Handler and _is_own(kind)
    ]
    # Of several, the one that no other is made from: a base class of one's own is no second handler.
    last = [kind for kind in found if not any(other is not kind and issubclass(other, kind) for other in found)]
    if len(last) != 1:
        names = ", ".join(kind.__name__ for kind in last) or "none"
        raise HandlerError(f"{handler} must define one class that derives from Handler, found {names}")
    (kind,) = last
    check(kind)
    try:
        instance = kind()
    except BaseException as error:
        raise HandlerError(f"{handler}: {kind.__name__}() fails: {sentence(error, directory)}") from error
    instance.files = directory
    return instance


def check(kind: type[Handler[Any, Any]]) -> tuple[type[msgspec.Struct], type[msgspec.Struct]]:
    """The structs of the requests and the answers of a handler class. Raises HandlerError where it breaks the API's rules."""
    types: tuple[Any, ...] = next(
        (
            getattr(base, "__args__", ())
            for ancestor in kind.__mro__
            for base in getattr(ancestor, "__orig_bases__", ())
            if getattr(base, "__origin__", None) is Handler
        ),
        (),
    )
    if len(types) != 2 or not all(isinstance(each, type) and issubclass(each, msgspec.Struct) for each in types):
        raise HandlerError(f"{kind.__name__} must derive from Handler[Request, Answer], both of them msgspec structs")
    written = {name for name in ("preprocess", "postprocess", "predict") if _overrides(kind, name)}
    if written not in ({"preprocess", "postprocess"}, {"predict"}):
        has = " and ".join(sorted(written)) or "none of them"
        raise HandlerError(f"{kind.__name__} must define preprocess and postprocess, or predict alone; it has {has}")
    if "predict" in written and not inspect.iscoroutinefunction(kind.predict):
        raise HandlerError(f"{kind.__name__}.predict must be `async def`")
    for name in written - {"predict"}:
        if inspect.iscoroutinefunction(getattr(kind, name)):
            raise HandlerError(f"{kind.__name__}.{name} must be a plain `def`; `async def predict` takes its place")
    if kind.inline and "predict" in written:
        raise HandlerError(f"{kind.__name__}.inline is for preprocess and postprocess, not for predict")
    if not 1 <= kind.threads <= 64:
        raise HandlerError(f"{kind.__name__}.threads must be between 1 and 64, not {kind.threads}")
    return types[0], types[1]


def sentence(error: BaseException, directory: Path) -> str:
    """One line: the error, and where in the bundle it happened."""
    said = " ".join(str(error).split())[:512]
    place = ""
    if isinstance(error, SyntaxError) and error.filename:
        place = f" ({Path(error.filename).name}, line {error.lineno})"
        said = error.msg
    else:
        for frame in traceback.extract_tb(error.__traceback__):
            path = Path(frame.filename)
            if path.is_relative_to(directory) and "vendor" not in path.relative_to(directory).parts:
                place = f" ({path.relative_to(directory)}, line {frame.lineno})"
    return f"{type(error).__name__}{': ' if said else ''}{said}{place}"


def _import(directory: Path, handler: str) -> Any:
    path = next((path for path in handler_files(directory, handler) if path.is_file()), directory / handler)
    package = [str(path.parent)] if path.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(MODULE, path, submodule_search_locations=package)
    if spec is None or spec.loader is None:
        raise HandlerError(f"{handler} is neither a Python file nor a package")
    module = importlib.util.module_from_spec(spec)
    for name in [name for name in sys.modules if name == MODULE or name.startswith(f"{MODULE}.")]:
        del sys.modules[name]
    sys.modules[MODULE] = module
    sys.dont_write_bytecode = True  # a bundle stays as it was packed
    try:
        spec.loader.exec_module(module)
    except BaseException as error:  # SystemExit too: a handler does not end the service
        raise HandlerError(f"{handler} cannot be imported: {sentence(error, directory)}") from error
    return module


def _is_own(kind: type) -> bool:
    return kind.__module__ == MODULE or kind.__module__.startswith(f"{MODULE}.")


def _overrides(kind: type, name: str) -> bool:
    return getattr(kind, name) is not getattr(Handler, name)
