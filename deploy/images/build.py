"""Builds the images without a registry and without a network inside any build.

    base          Debian with Python, made by debootstrap
    adapter       base + requirements/adapter.lock + adapter/              (Dockerfile.adapter, the production one)
    model-server  base + model-server.lock + deploy/local/model_server/    (Dockerfile.model-server, a stand-in)
    pause         one static binary, for Nomad's bridge networks

A tag is a hash of what the image is made from, so an image that exists is up to date and nothing is done. The slow
parts, base system and wheels, are kept in the cache by themselves: a change of the source builds only the last layer.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.cluster.cache import cache, locked
from deploy.cluster.docker import Docker
from deploy.cluster.process import need
from deploy.cluster.say import say

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
ADAPTER_LOCK = ROOT / "requirements" / "adapter.lock"
ADAPTER = [ROOT / part for part in ("adapter", "protos", "pyproject.toml", "setup.py", "LICENSE")]
MODEL_SERVER_LOCK = HERE / "model-server.lock"
MODEL_SERVER = [ROOT / "deploy" / part for part in ("__init__.py", "local/__init__.py", "local/model_server")]
SUITE, INCLUDE = "bookworm", "python3,python3-venv,ca-certificates"
PYTHON, MACHINE, NEWEST_GLIBC = "3.11", "x86_64", 36  # what the base system has


@dataclass(frozen=True)
class Images:
    """The tags of up-to-date images."""

    adapter: str
    model_server: str
    pause: str


def build_all(docker: Docker) -> Images:
    """Every image that the cluster needs, built where missing."""
    with locked("images.lock"):
        base = _base(docker)
        return Images(adapter=adapter(docker, base), model_server=_model_server(docker, base), pause=_pause(docker))


def adapter(docker: Docker, base: str) -> str:
    """The adapter's image on `base`."""
    dockerfile = HERE / "Dockerfile.adapter"
    tag = f"tandem/adapter:{_hash([dockerfile, ADAPTER_LOCK, *ADAPTER], base)}"
    if not docker.has_image(tag):
        with _context(tag, ADAPTER_LOCK) as context:
            _package(context / "dist")
            docker.build(dockerfile, context, tag, base)
        docker.forget_older(tag)
    return tag


def _model_server(docker: Docker, base: str) -> str:
    dockerfile = HERE / "Dockerfile.model-server"
    tag = f"tandem/model-server:{_hash([dockerfile, MODEL_SERVER_LOCK, HERE / 'bin', *MODEL_SERVER], base)}"
    if not docker.has_image(tag):
        with _context(tag, MODEL_SERVER_LOCK) as context:
            _copy([HERE / "bin"], HERE, context)
            _copy(MODEL_SERVER, ROOT, context / "package")
            docker.build(dockerfile, context, tag, base)
        docker.forget_older(tag)
    return tag


@contextmanager
def _context(tag: str, lock: Path) -> Iterator[Path]:
    """A build context with the lock and its wheels."""
    say(f"building {tag}")
    wheels = _wheels(lock)
    with tempfile.TemporaryDirectory(dir=cache()) as directory:
        context = Path(directory)
        _copy([wheels], wheels.parent, context)
        (context / wheels.name).rename(context / "wheels")
        shutil.copy(lock, context / "requirements.lock")
        yield context


def _base(docker: Docker) -> str:
    tag = f"tandem/base:{_hash([], SUITE, INCLUDE)}"
    if docker.has_image(tag):
        return tag
    archive = cache() / f"{tag.replace('/', '-').replace(':', '-')}.tar"
    if not archive.exists():
        need("debootstrap")
        say("making the base system (debootstrap)")
        with tempfile.TemporaryDirectory(dir=cache()) as directory:
            root = Path(directory) / "root"
            log = cache() / "debootstrap.log"
            with log.open("wb") as output:
                command = ["debootstrap", "--variant=minbase", f"--include={INCLUDE}", SUITE, str(root)]
                subprocess.run(command, check=True, stdout=output, stderr=output)
            excluded = ("./var/cache/apt/*", "./var/lib/apt/lists/*", "./usr/share/doc/*", "./usr/share/locale/*")
            part = Path(directory) / "part.tar"
            subprocess.run(
                ["tar", "-C", str(root), *(f"--exclude={path}" for path in excluded), "-cf", str(part), "."], check=True
            )
            part.rename(archive)
    docker.client("import", str(archive), tag)
    return tag


def _pause(docker: Docker) -> str:
    source = HERE / "pause" / "main.go"
    tag = f"tandem/pause:{_hash([source])}"
    if docker.has_image(tag):
        return tag
    with tempfile.TemporaryDirectory(dir=cache()) as directory:
        output = Path(directory) / "pause"
        command = ["env", "CGO_ENABLED=0", "go", "build", "-ldflags=-s -w", "-o", str(output), str(source)]
        subprocess.run(command, check=True)
        archive = Path(directory) / "pause.tar"
        subprocess.run(["tar", "-C", directory, "-cf", str(archive), "pause"], check=True)
        docker.client("import", "--change", 'ENTRYPOINT ["/pause"]', str(archive), tag)
    return tag


def _wheels(lock: Path) -> Path:
    """The lock's wheels for the base system's Python, whatever this machine runs; downloaded once per lock."""
    directory = cache() / "wheels" / lock.stem
    marker = directory / ".complete"
    wanted = _hash([lock])
    if not marker.exists() or marker.read_text() != wanted:
        say(f"downloading the wheels of {lock.name}")
        glibc = [f"manylinux_2_{minor}_{MACHINE}" for minor in range(5, NEWEST_GLIBC + 1)]
        platforms = [*glibc, *(f"manylinux{year}_{MACHINE}" for year in ("1", "2010", "2014"))]
        abis = (f"cp{PYTHON.replace('.', '')}", "abi3", "none")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        command += ["--only-binary=:all:", "--implementation=cp", f"--python-version={PYTHON}"]
        command += [f"--platform={platform}" for platform in platforms] + [f"--abi={abi}" for abi in abis]
        shutil.rmtree(directory, ignore_errors=True)
        subprocess.run([*command, "--dest", str(directory), "--requirement", str(lock)], check=True)
        marker.write_text(wanted)
    return directory


def _package(destination: Path) -> None:
    """The adapter's wheel, built from a copy: setuptools would leave, and reuse, a build/ in the checkout."""
    with tempfile.TemporaryDirectory(dir=cache()) as directory:
        _copy(ADAPTER, ROOT, Path(directory))
        (Path(directory) / "README.md").touch()
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
        subprocess.run([*command, "--wheel-dir", str(destination), directory], check=True)


def _copy(sources: Iterable[Path], root: Path, destination: Path) -> None:
    """Copy files and directories, keeping their places below `root`."""
    for source in sources:
        target = destination / source.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", ".complete"))
        else:
            shutil.copy(source, target)


def _hash(paths: Iterable[Path], *words: str) -> str:
    """Twelve digits that change with the content of `paths` (files, or directories of sources) and with `words`."""
    digest = hashlib.sha256(repr(words).encode())
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            generated = file.parent.name in ("__pycache__", "pb") and file.name != "__init__.py"
            if file.is_file() and not generated:
                digest.update(f"{file.relative_to(ROOT)}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def main() -> None:
    """`python -m deploy.images.build`: print the tags; with `--base`, only the adapter's, on that base image."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--base", help="base image of the adapter, e.g. python:3.11-slim-bookworm")
    base = parser.parse_args().base
    docker = Docker()
    started = docker.start()
    try:
        print(adapter(docker, base) if base else build_all(docker))
    finally:
        if started:
            docker.stop()


if __name__ == "__main__":
    main()
