"""The image build steps mount their tools from: uv, as this very installation has it."""

from __future__ import annotations

import importlib.metadata
import platform
import tarfile
import tempfile
from pathlib import Path

from hpcbinder.engine.api import Engine
from hpcbinder.errors import BuildError
from hpcbinder.image import write_docker_archive

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64le"}


def tools_tag() -> str:
    """Name of the tools image in an engine."""
    return f"localhost/hpcbinder/tools:uv-{importlib.metadata.version('uv')}"


def ensure_tools_image(engine: Engine, scratch: Path) -> str:
    """Make the engine hold the tools image (`/uv`, nothing else) and return its tag.

    Args:
        scratch: Folder for temporary files (about 150 MB).

    Raises:
        BuildError: uv's program is not there, or the engine fails.
    """
    tag = tools_tag()
    if engine.image(tag) is not None:
        return tag
    import uv

    try:
        program = Path(uv.find_uv_bin())
        with tempfile.TemporaryDirectory(prefix="tools-", dir=scratch) as name:
            archive = Path(name) / "image.tar"
            _write(program, Path(name) / "layer.tar", archive, tag)
            engine.load(archive, tag)
    except OSError as error:  # FileNotFoundError is what uv raises
        raise BuildError(
            f"the tools of a build cannot be packed: {error.strerror or error}",
            hint="reinstall the package uv from PyPI",
        ) from error
    return tag


def _write(program: Path, layer: Path, archive: Path, tag: str) -> None:
    import hashlib

    member = tarfile.TarInfo("uv")
    member.mode = 0o755
    member.size = program.stat().st_size
    with (
        layer.open("wb") as out,
        program.open("rb") as file,
        tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        tar.addfile(member, file)
    with layer.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    config = {"architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()), "os": "linux", "config": {}}
    with archive.open("wb") as out:
        write_docker_archive(out, config, [(f"sha256:{digest.hexdigest()}", layer)], tag)
