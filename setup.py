"""Compiles `protos/*.proto` into `adapter/pb/` as part of every build, so that no generated file is committed."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


def compile_protos() -> None:
    """Generate `adapter/pb/*_pb2.py` and their type stubs with grpcio-tools; fails the build on any protoc error."""
    from importlib.resources import files

    from grpc_tools import protoc

    sources = sorted(f"adapter/pb/{path.name}" for path in (ROOT / "protos").glob("*.proto"))
    arguments = ["protoc", f"-Iadapter/pb={ROOT / 'protos'}", f"-I{files('grpc_tools') / '_proto'}"]
    arguments += [f"--python_out={ROOT}", f"--pyi_out={ROOT}", *sources]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc failed: see the messages above")


class BuildWithProtos(build_py):
    """`build_py` with the protos compiled first."""

    def run(self) -> None:
        compile_protos()
        super().run()


if __name__ == "__main__":
    setup(cmdclass={"build_py": BuildWithProtos})
