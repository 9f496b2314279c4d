"""A service for the tests of the contract as a whole: a bundle's adapter over a model server, with tokens asked for."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.adapters import Adapter
from tests.golden.conftest import DATA
from tests.servers import ModelServer
from tests.tokens import AUDIENCE, ISSUER, SECRET


@contextmanager
def service(directory: Path, **settings: object) -> Iterator[Adapter]:
    """half_plus_two, ready. The documentation is open, for browsers send no token for a page."""
    model = directory / "models" / "half_plus_two"
    model.mkdir(parents=True)
    (model / "1").symlink_to(DATA / "models" / "half_plus_two" / "1")
    (directory / "bundle.toml").write_text(
        'name = "halves"\nversion = "1.2.3"\n[[models]]\nname = "half_plus_two"\nversion = 1\n'
    )
    (directory / "secret").write_text(SECRET)
    flags = ["--model_name=half_plus_two", f"--model_base_path={model}"]
    with (
        ModelServer(*flags) as server,
        Adapter(
            bundle=directory,
            tfs_grpc=server.target,
            jwt_secret_file=directory / "secret",
            jwt_issuer=ISSUER,
            jwt_audience=AUDIENCE,
            policy="/docs=open, /openapi.json=open",
            **settings,
        ) as adapter,
    ):
        yield adapter.ready()
