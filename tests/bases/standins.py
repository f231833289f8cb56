"""What a registry would give: images small enough to make in no time, that say to be Debian."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

from hpcbinder.config import RegistryConfig, SiteConfig
from hpcbinder.image import DockerArchive, OciImage, write_docker_archive
from hpcbinder.registry import Registry, parse_reference

OS_RELEASE = 'PRETTY_NAME="Debian GNU/Linux"\nID=debian\nVERSION_CODENAME={}\n'


def image(
    folder: Path,
    files: dict[str, str],
    *,
    python: str = "",
    architecture: str = "amd64",
    below: DockerArchive | None = None,
) -> DockerArchive:
    """An image of one layer, or of one more than another has.

    Args:
        files: Path -> content.
        python: What PYTHON_VERSION says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    layer = folder / "layer.tar"
    with tarfile.open(layer, "w") as tar:
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(content.encode())
            tar.addfile(entry, io.BytesIO(content.encode()))
    env = ["PATH=/usr/local/bin:/usr/bin:/bin", "GPG_KEY=F00", *([f"PYTHON_VERSION={python}"] if python else [])]
    values = {"architecture": architecture, "os": "linux", "config": {"Env": env, "Cmd": ["python3"]}}
    digest = f"sha256:{hashlib.sha256(layer.read_bytes()).hexdigest()}"
    layers = [(digest, layer)]
    for diff_id, stream in below.layers(below.config.diff_ids) if below is not None else ():
        layers.insert(len(layers) - 1, (diff_id, folder / diff_id.removeprefix("sha256:")))
        layers[-2][1].write_bytes(stream.read())
    with (folder / "image.tar").open("wb") as out:
        write_docker_archive(out, values, layers, None)
    return DockerArchive(folder / "image.tar")


def debian(folder: Path, suite: str = "bookworm", *, mark: str = "", **options: str) -> DockerArchive:
    """A Debian of a suite, all but empty; `mark` makes it another one."""
    return image(folder, {"usr/lib/os-release": OS_RELEASE.format(suite), "etc/mark": mark}, **options)


def push(archive: OciImage, name: str, folder: Path) -> str:
    """Push to the rig's registry; returns the digest it has there."""
    return Registry(SiteConfig(), RegistryConfig()).push(archive, parse_reference(name), scratch=folder)
