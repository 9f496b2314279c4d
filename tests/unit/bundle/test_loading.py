"""From `handler.py` to a handler: found, checked, and refused in one sentence."""

import sys
from pathlib import Path

import pytest

from adapter.bundle.interface import Interface
from adapter.bundle.loading import HandlerError, load

HEAD = "from adapter.handler import Handler, Struct\nclass Q(Struct):\n    x: float\nclass A(Struct):\n    y: float\n"
STEPS = "    def preprocess(self, batch): return {}\n    def postprocess(self, outputs, batch): return []\n"
GOOD = HEAD + "class H(Handler[Q, A]):\n" + STEPS


def handler(directory: Path, text: str) -> Interface:
    (directory / "handler.py").write_text(text)
    return Interface(load(directory, "handler.py"), 1)


def test_the_one_class_is_found_and_knows_its_files(tmp_path: Path) -> None:
    interface = handler(tmp_path, GOOD)
    assert interface.handler.files == tmp_path
    assert (interface.request.__name__, interface.answer_type.__name__) == ("Q", "A")


def test_a_base_class_of_one_s_own_is_no_second_handler(tmp_path: Path) -> None:
    text = HEAD + "class Base(Handler[Q, A]):\n" + STEPS + "class H(Base):\n    inline = True\n"
    assert type(handler(tmp_path, text).handler).__name__ == "H"


def test_a_package_imports_its_own_modules_and_vendored_ones(tmp_path: Path) -> None:
    (tmp_path / "vendor").mkdir()
    (tmp_path / "vendor" / "only_vendored.py").write_text("FACTOR = 3\n")
    (tmp_path / "handler").mkdir()
    (tmp_path / "handler" / "words.py").write_text("import only_vendored\nFACTOR = only_vendored.FACTOR\n")
    (tmp_path / "handler" / "__init__.py").write_text("from .words import FACTOR\n" + GOOD + "    factor = FACTOR\n")
    try:
        assert load(tmp_path, "handler").factor == 3  # type: ignore[attr-defined]
    finally:
        sys.path.remove(str(tmp_path / "vendor"))
    assert not list(tmp_path.rglob("*.pyc"))  # a bundle stays as it was packed


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\n\nimport not_there", "ModuleNotFoundError: No module named 'not_there' (handler.py, line 3)"),
        ("def f(:\n", "handler.py cannot be imported: SyntaxError: invalid syntax (handler.py, line 1)"),
        ("raise SystemExit(3)", "handler.py cannot be imported: SystemExit: 3 (handler.py, line 1)"),
        (HEAD, "must define one class that derives from Handler, found none"),
        (GOOD + "class I(Handler[Q, A]):\n" + STEPS, "must define one class that derives from Handler, found H, I"),
        (GOOD.replace("Handler[Q, A]", "Handler"), "H must derive from Handler[Request, Answer], both of them msgspec structs"),
        (GOOD.replace("Handler[Q, A]", "Handler[dict, A]"), "both of them msgspec structs"),
        (HEAD + "class H(Handler[Q, A]):\n    pass\n", "preprocess and postprocess, or predict alone; it has none of them"),
        (HEAD + "class H(Handler[Q, A]):\n    def preprocess(self, batch): ...\n", "it has preprocess"),
        (GOOD + "    async def predict(self, ctx, batch): ...\n", "it has postprocess and predict and preprocess"),
        (HEAD + "class H(Handler[Q, A]):\n    def predict(self, ctx, batch): ...\n", "H.predict must be `async def`"),
        (GOOD.replace("def preprocess", "async def preprocess"), "H.preprocess must be a plain `def`"),
        (HEAD + "class H(Handler[Q, A]):\n    inline = True\n    async def predict(self, c, b): ...\n", "inline is for pre"),
        (GOOD + "    threads = 0\n", "H.threads must be between 1 and 64, not 0"),
        (GOOD + "    def __init__(self): self.words = open('no such file')\n", "H() fails: FileNotFoundError"),
        (GOOD.replace("x: float", "instances: float"), "Q has a field 'instances'"),
        (GOOD.replace("x: float", "x: object()"), "H: Type '<object object"),
    ],
)  # fmt: skip
def test_what_is_no_handler_is_refused_in_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(HandlerError) as caught:
        handler(tmp_path, text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
