"""What every build makes, so that no generated file is committed: `protos/*.proto` compiled into `adapter/pb/`,
`openapi.yaml` written as JSON, and Swagger UI beside the page that starts it.
"""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
CONTRACT = ROOT / "adapter" / "contract"
SWAGGER_UI = ("LICENSE", "NOTICE", "javascripts/swagger-ui-bundle.js", "stylesheets/swagger-ui.css")


def compile_protos() -> None:
    """Generate `adapter/pb/*_pb2.py` and their type stubs with grpcio-tools; fails the build on any protoc error."""
    from importlib.resources import files

    from grpc_tools import protoc

    sources = sorted(f"adapter/pb/{path.name}" for path in (ROOT / "protos").glob("*.proto"))
    arguments = ["protoc", f"-Iadapter/pb={ROOT / 'protos'}", f"-I{files('grpc_tools') / '_proto'}"]
    arguments += [f"--python_out={ROOT}", f"--pyi_out={ROOT}", *sources]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc failed: see the messages above")


def compile_contract() -> None:
    """`openapi.yaml` → `openapi.json`; fails on what JSON cannot say, such as YAML's bare dates."""
    import yaml

    document = yaml.safe_load((CONTRACT / "openapi.yaml").read_text(encoding="utf-8"))
    (CONTRACT / "openapi.json").write_text(json.dumps(document, allow_nan=False), encoding="utf-8")


def copy_swagger_ui() -> None:
    """Copy Swagger UI and its licence from the package that holds them (docs/decisions/001-swagger-ui.md)."""
    spec = find_spec("mkdocs_swagger_ui_tag")
    if spec is None or spec.origin is None:
        raise SystemExit("mkdocs-swagger-ui-tag is not installed: see build-system.requires in pyproject.toml")
    for name in SWAGGER_UI:
        source = Path(spec.origin).parent / "swagger-ui" / name
        shutil.copyfile(source, CONTRACT / "swagger" / source.name)


class BuildWithGenerated(build_py):
    """`build_py` with everything generated first."""

    def run(self) -> None:
        compile_protos()
        compile_contract()
        copy_swagger_ui()
        super().run()


if __name__ == "__main__":
    setup(cmdclass={"build_py": BuildWithGenerated})
