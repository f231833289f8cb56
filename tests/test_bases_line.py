"""Repositories that want a Python which the Debian of the site does not have, from the URL to the kernel: with one of a
folder of interpreters, and with an image of a registry. Nothing is bootstrapped: Debian comes from the registry too.

The registry is the rig's, its images stand for those of Docker Hub: Debian as debootstrap makes it, and a Python on it.
The Python is Debian bookworm's, put where others have theirs, on Debian trixie, which does not have it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_line import EXECUTE, record

from hpcbinder.bases import ensure_base
from hpcbinder.bases.mmdebstrap import Mmdebstrap
from hpcbinder.bases.recipe import ARCHITECTURES, EPOCH
from hpcbinder.bases.rootfs import tidy
from hpcbinder.config import RegistryConfig, SiteConfig, load, mirrors
from hpcbinder.debian import sources_list
from hpcbinder.image import DockerArchive, write_docker_archive
from hpcbinder.model import BaseRef
from hpcbinder.plan import BASE_VARIANT
from hpcbinder.progress import Silent
from hpcbinder.registry import Registry, parse_reference
from images import Line
from rig import Charliecloud, Rig, User
from rig import Registry as RigRegistry

pytestmark = pytest.mark.heavy

ARCHITECTURE = "amd64"


@dataclasses.dataclass(frozen=True)
class Site:
    """What a site gives.

    Attributes:
        line: The command line, configured for it.
        images: Name -> reference in the registry, with its digest.
        prefix: An interpreter's folder.
        python: Its full version.
    """

    line: Line
    images: dict[str, str]
    prefix: Path
    python: str


@pytest.fixture(scope="module")
def site(rig: Rig, registry: RigRegistry, line: Line) -> Iterator[Site]:
    folder = rig.folder / "standins"
    folder.mkdir(exist_ok=True)
    real = load({}, user_file=Path("/nonexistent"), site_file=Path("/nonexistent")).site
    prefix, python = interpreter(rig, real, line.folder / "python" / "3.11")
    slim = debian_slim(folder, "trixie", real)
    with_python = python_slim(line.folder, slim, prefix, python)
    images = {
        "debian:trixie-slim": push(slim, f"{registry.host}/site/debian:trixie-slim", line.folder),
        "python:3.11-slim-trixie": push(with_python, f"{registry.host}/site/python:3.11", line.folder),
    }
    refuses = line.folder / "refuses"
    refuses.mkdir()
    (refuses / "mmdebstrap").write_text("#!/bin/sh\necho 'this test bootstraps nothing' >&2\nexit 1\n")
    (refuses / "mmdebstrap").chmod(0o755)
    named = ",".join(f"{name}={image.partition('@')[0]}" for name, image in images.items())
    environment = {
        **line.environment,
        "PATH": f"{refuses}:{line.environment['PATH']}",
        "HPCBINDER_BUILD_SUITE": "trixie",
        "HPCBINDER_BASES_SUITES": "trixie",
        "HPCBINDER_BASES_SOURCE": "registry",
        "HPCBINDER_BASES_IMAGES": named,
    }
    yield Site(Line(line.folder, environment), images, prefix, python)


def interpreter(rig: Rig, site: SiteConfig, prefix: Path) -> tuple[Path, str]:
    """Bookworm's Python in a folder of its own, out of a base; and its full version."""
    ref = BaseRef("debian:bookworm", "bookworm", "3.11", ARCHITECTURE, BASE_VARIANT)
    base = ensure_base(ref, folder=rig.folder / "bases", site=site, reporter=Silent())
    wanted = {"usr/bin/python3.11": "bin", "usr/lib/python3.11/": "lib/python3.11"}
    for _, stream in DockerArchive(base.archive).layers(base.config.diff_ids):
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                if member.isreg() and any(member.name.startswith(start) for start in wanted):
                    place = prefix / member.name.removeprefix("usr/")
                    place.parent.mkdir(parents=True, exist_ok=True)
                    file = tar.extractfile(member)
                    assert file is not None
                    place.write_bytes(file.read())
                    place.chmod(member.mode)
    done = subprocess.run([prefix / "bin/python3.11", "-IS", "-V"], capture_output=True, text=True, check=True)
    return prefix, done.stdout.split()[1]


def debian_slim(folder: Path, suite: str, site: SiteConfig) -> DockerArchive:
    """Debian with apt and nothing else, kept between test runs."""
    path = folder / f"debian-{suite}.tar"
    if not path.exists():
        layer = folder / f"debian-{suite}.layer"
        with layer.open("wb") as out:
            made = Mmdebstrap().bootstrap(
                suite,
                architecture=ARCHITECTURES[ARCHITECTURE],
                packages=("apt",),
                sources=sources_list(suite, mirrors(site)),
                slim="",
                site=site,
                epoch=EPOCH,
                take=lambda tar: tidy(tar, out, folders={}, files={}, newest=EPOCH),
                log=lambda line: None,
            )
        partial = path.with_suffix(".partial")
        with partial.open("wb") as out:
            write_docker_archive(out, config([]), [(made.diff_id, layer)], None)
        layer.unlink()
        partial.replace(path)
    return DockerArchive(path)


def python_slim(folder: Path, slim: DockerArchive, prefix: Path, version: str) -> DockerArchive:
    """The same with a Python in /usr/local, as the official images have it."""
    layers: list[tuple[str, Path]] = []
    for diff_id, stream in slim.layers(slim.config.diff_ids):
        layers.append((diff_id, folder / "slim.layer"))
        layers[-1][1].write_bytes(stream.read())
    path = folder / "python.layer"
    with tarfile.open(path, "w") as tar:
        for name in ("bin", "lib"):
            tar.add(prefix / name, arcname=f"usr/local/{name}", filter=owned_by_root)
        link = tarfile.TarInfo("usr/local/bin/python3")
        link.type, link.linkname = tarfile.SYMTYPE, "python3.11"
        tar.addfile(link, io.BytesIO())
    layers.append((f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}", path))
    with (folder / "python.tar").open("wb") as out:
        write_docker_archive(out, config([f"PYTHON_VERSION={version}", "GPG_KEY=F00"]), layers, None)
    return DockerArchive(folder / "python.tar")


def owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def config(env: list[str]) -> dict[str, Any]:
    path = "PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"architecture": ARCHITECTURE, "os": "linux", "config": {"Env": [path, *env], "Cmd": ["bash"]}}


def push(image: DockerArchive, name: str, scratch: Path) -> str:
    digest = Registry(SiteConfig(), RegistryConfig()).push(image, parse_reference(name), scratch=scratch)
    return f"{name}@{digest}"


def in_image(site: Site, charliecloud: Charliecloud, id_: str, *command: str) -> str:
    """Run a command in an image as it is, without our launcher."""
    squashfs = record(site.line, id_)["formats"]["squashfs"]
    argv = [charliecloud.path, "--unset-env=*", "--set-env", squashfs, "--", *command]
    done = subprocess.run(argv, env={"PATH": "/usr/bin:/bin", "USER": "root"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_notebook(site: Site, charliecloud: Charliecloud, user: User, id_: str, folder: str) -> str:
    """Run the repository's notebook with the image's kernel, as an ordinary user without a network."""
    prefix = site.line.folder / folder
    environment = {**site.line.environment, "PATH": f"{Path(charliecloud.path).parent}:/usr/bin:/bin"}
    command = [sys.executable, "-m", "hpcbinder", "--store", str(site.line.folder / "store"), "register"]
    command += ["--kernel", id_, "--prefix", str(prefix), "--runtime", "charliecloud"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    path = {"JUPYTER_PATH": str(prefix / "share/jupyter"), "PATH": f"{Path(charliecloud.path).parent}:/usr/bin:/bin"}
    (kernel,) = (prefix / "share/jupyter/kernels").iterdir()
    notebook = site.line.folder / "work/interpreter/notebook.ipynb"
    return user.run([sys.executable, "-c", EXECUTE, notebook, kernel.name], env=path, network=False).stdout


def test_an_interpreter_from_a_folder(site: Site, charliecloud: Charliecloud, user: User) -> None:
    site.line.environment["HPCBINDER_BASES_PYTHONS"] = str(site.prefix.parent)
    try:
        built = site.line.build(site.line.repository("interpreter"), "--format", "squashfs")
    finally:
        del site.line.environment["HPCBINDER_BASES_PYTHONS"]
    shown = record(site.line, built["id"])
    assert shown["base"]["name"] == "debian:trixie"
    assert shown["base"]["image"] == site.images["debian:trixie-slim"]
    assert (shown["python"]["full"], shown["python"]["origin"]) == (site.python, "folder")
    assert shown["config"]["labels"]["org.opencontainers.image.base.digest"] == shown["base"]["image"].split("@")[1]

    said = run_notebook(site, charliecloud, user, built["id"], "jupyter-folder")
    assert said == f"{site.python} /opt/python/3.11/bin/python3.11\n"

    # The server is on Debian's own Python; the base has what every base has, and nothing of where things came from.
    assert in_image(site, charliecloud, built["id"], "/opt/jupyter/bin/python", "-IV").startswith("Python 3.13")
    for program in ("git", "curl", "less", "python3"):
        in_image(site, charliecloud, built["id"], "/bin/sh", "-c", f"command -v {program}")
    for folder in ("/scratch", "/gpfs"):
        assert in_image(site, charliecloud, built["id"], "ls", "-A", folder) == ""
    assert in_image(site, charliecloud, built["id"], "ls", "-A", "/var/lib/apt/lists").split() in ([], ["partial"])
    look = 'grep -rl "$1" /opt /etc /srv || test $? = 1'
    assert in_image(site, charliecloud, built["id"], "/bin/sh", "-c", look, "sh", str(site.prefix)) == ""


def test_an_image_that_has_the_python(site: Site, charliecloud: Charliecloud, user: User) -> None:
    built = site.line.build(site.line.repository("interpreter"), "--format", "squashfs")
    shown = record(site.line, built["id"])
    image = site.images["python:3.11-slim-trixie"]
    assert (shown["base"]["name"], shown["base"]["image"]) == ("python:3.11-slim-trixie", image)
    assert (shown["python"]["full"], shown["python"]["digest"]) == (site.python, image.split("@")[1])
    said = run_notebook(site, charliecloud, user, built["id"], "jupyter-image")
    assert said == f"{site.python} /usr/local/bin/python3.11\n"
    # Nothing of the image's own settings is in ours.
    assert "GPG_KEY" not in shown["config"]["env"] and "PYTHON_VERSION" not in shown["config"]["env"]
    manifest = json.loads(in_image(site, charliecloud, built["id"], "cat", "/opt/hpcbinder/manifest.json"))
    assert manifest["base"]["image"] == image
    assert manifest["python"]["version"] == site.python


def test_what_nobody_has_is_refused_with_what_there_is(site: Site) -> None:
    def ask(work: Path) -> None:
        (work / "runtime.txt").write_text("python-3.5\n")

    source = site.line.repository("interpreter-3.5", ask, of="interpreter")
    done = site.line.hpcbinder("plan", source, check=False)
    assert done.returncode == 4
    assert "asks for Python 3.5, which no base has" in done.stderr and "3.13 (Debian trixie)" in done.stderr
