"""A handler is imported before it ships, in a process of its own that has what the adapter's image has."""

from pathlib import Path

import pytest

from adapter.bundle.manifest import BundleError, Manifest, Model
from deploy.bundle import imports

GOOD = """
from adapter.handler import Handler, Struct

class Request(Struct):
    x: float

class Answer(Struct):
    y: float

class Halves(Handler[Request, Answer]):
    def preprocess(self, batch):
        return {"x": [request.x for request in batch]}

    def postprocess(self, outputs, batch):
        return [Answer(y) for y in outputs["y"]]
"""


def check(top: Path, code: str, timeout: float = 30.0) -> None:
    (top / "handler.py").write_text(code)
    imports.check(top, Manifest("m", "1", (Model("m", 1),), handler="handler.py"), timeout)


def test_a_handler_that_can_be_imported_passes(tmp_path: Path) -> None:
    check(tmp_path, GOOD)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import nonsense_that_nobody_has", "handler.py cannot be imported: ModuleNotFoundError"),
        ("x = (", r"handler\.py cannot be imported: SyntaxError"),
        ("raise SystemExit(3)", "handler.py cannot be imported: SystemExit"),
        ("import os\nos._exit(7)", "its import ended with status 7"),
        ("x = 1", "must define one class that derives from Handler"),
        (
            "import tensorflow",
            r"No module named 'tensorflow' .*: neither the adapter's image nor requirements.txt has it",
        ),
        ("print('token')\nimport sys\nprint('token', file=sys.stderr)\nraise ValueError('bad')", "ValueError: bad"),
    ],
)
def test_one_that_cannot_is_refused_with_one_sentence(code: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=said) as refused:
        check(tmp_path, code)
    assert "\n" not in str(refused.value)
    assert "token" not in str(refused.value)


def test_one_that_hangs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not imported after 2 s: it hangs"):
        check(tmp_path, "import time\ntime.sleep(600)", timeout=2)


def test_a_package_that_is_vendored_is_found_though_the_image_lacks_it(tmp_path: Path) -> None:
    (tmp_path / "vendor" / "PIL").mkdir(parents=True)
    (tmp_path / "vendor" / "PIL" / "__init__.py").write_text("VENDORED = True\n")
    check(tmp_path, "from PIL import VENDORED\n" + GOOD)
