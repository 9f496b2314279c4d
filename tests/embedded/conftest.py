"""The bundle that most of these groups run."""

from pathlib import Path

import pytest

from tests.adapter.conftest import HALF_PLUS_TWO


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A bundle's source directory with its model in place."""
    top = tmp_path / "source"
    (top / "models" / "half_plus_two").mkdir(parents=True)
    (top / "models" / "half_plus_two" / "1").symlink_to(HALF_PLUS_TWO / "1")
    (top / "request.json").write_text('{"instances": [1.0]}')
    (top / "bundle.toml").write_text(
        'name = "halves"\nversion = "1.2.3"\n[[models]]\nname = "half_plus_two"\nversion = 1\n'
    )
    return top
