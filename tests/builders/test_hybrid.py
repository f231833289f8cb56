"""Images that are assembled but for a step that has to be run: by Apptainer, as an ordinary user without any engine, or
by Docker or podman where no Apptainer is. The step finds the same, and the images agree."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from hpcbinder import contract
from hpcbinder.squashfs import Image
from images import Line
from rig import Apptainer, Builder, Charliecloud, Rig, User

LIKE = {"HPCBINDER_BUILD_COMPRESSION": "gzip"}
"""What else depends on the runtimes that are here: packages are squashed once for all tests that compress alike."""

ONLINE = """\
import socket
from setuptools import setup
if [name for _, name in socket.if_nameindex()] == ["lo"]:
    raise SystemExit("there is no network")
setup(name="online", version="1.0", py_modules=[])
"""

POST_BUILD = """\
#!/bin/sh
set -e
python -m ipykernel install --sys-prefix --name second --display-name Second
rm requirements.txt
rm -r /opt/env/lib/python3.11/site-packages/wheel* 2>/dev/null || true
mkdir made
ln notebook.ipynb made/again.ipynb
touch /usr/local/share/mine
id -u >made/id
pwd >made/place
env | grep -E '^(JUPYTER_PATH|PATH|HOME|UV_NO_CONFIG)=' | sort >made/environment
find /run/hpcbinder/step /run/hpcbinder/tools | sort >made/found
"""


@dataclass(frozen=True)
class Hybrid:
    """One way it was made.

    Attributes:
        built: What `build --json` printed.
        record: The catalog's.
        shown: What `show` prints.
        said: What the build said.
    """

    built: dict[str, Any]
    record: dict[str, Any]
    shown: str
    said: str


def change(work: Path) -> None:
    (work / "postBuild").write_text(POST_BUILD)
    (work / "postBuild").chmod(0o755)
    (work / "start").write_text('#!/bin/sh\nexport STARTED=yes\nexec "$@"\n')
    (work / "start").chmod(0o755)


@pytest.fixture(scope="module")
def source(line: Line) -> str:
    return line.repository("hybrid", change, of="edited")


@pytest.fixture(scope="module")
def by_docker(line: Line, charliecloud: Charliecloud, source: str) -> Hybrid:
    """`auto`, by root with Docker and a runtime that runs no build steps."""
    path = os.pathsep.join(p for p in line.environment["PATH"].split(os.pathsep) if shutil.which("apptainer", path=p))
    assert not path, "Apptainer is on PATH"
    build = ["build", source, "--engine", "auto", "--runtime", "charliecloud", "--format", "squashfs", "--json"]
    line = replace(line, environment={**line.environment, **LIKE})
    done = line.hpcbinder(*build, "--prefix", str(line.folder / "jupyter"))
    built = json.loads(done.stdout)
    shown = line.hpcbinder("show", built["id"])
    return Hybrid(
        built, json.loads(line.hpcbinder("show", built["id"], "--json").stdout), shown.stdout, done.stderr + built["id"]
    )


@pytest.fixture(scope="module")
def by_apptainer(line: Line, rig: Rig, apptainer: Apptainer, by_docker: Hybrid, source: str) -> Hybrid:
    """`none`, by an ordinary user without any engine's socket or program."""
    user = rig.user
    folder = line.folder / "hybrid"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    site, mine, path = folder / "site", folder / "store", folder / "bin"
    for place in (site, mine, path):
        place.mkdir()
    user.own(mine)
    # The packages and the base are there, and neither the image nor what its step left.
    for name in ("bases", "wheels"):
        (site / name).symlink_to(line.folder / "store" / name)
    (site / "version").write_text("1")
    (folder / "locks.json").write_text(json.dumps(by_docker.record))
    (path / "git").symlink_to("/usr/bin/git")
    given = {
        **{k: v for k, v in line.environment.items() if k.startswith(("HPCBINDER_", "GIT_", "PIP_", "UV_"))},
        **LIKE,
        **{"PATH": f"{path}:{apptainer.bin}", "HPCBINDER_STORE_SITE": str(site), "CI": "1"},
    }

    variables = [f"{name}={value}" for name, value in user.environment(given).items()]

    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        command = ["/usr/bin/env", "--ignore-environment", *variables, sys.executable, "-B", "-m", "hpcbinder"]
        return user.run([*command, "--store", str(mine), *argv], cwd=Path("/"), timeout=600)

    build = ["build", source, "--engine", "none", "--json", "--prefix", str(mine / "jupyter"), "--format", "squashfs"]
    done = run(*build, "--runtime", "apptainer", "--locks", str(folder / "locks.json"))
    built = json.loads(done.stdout)
    again = run(*build, "--runtime", "apptainer", "--locks", str(folder / "locks.json"), "--rebuild", "--no-register")
    assert json.loads(again.stdout)["id"] == built["id"]
    shown = run("show", built["id"])
    record = (mine / "images" / built["id"] / "record.json").read_text()
    return Hybrid(built, json.loads(record), shown.stdout, f"{done.stderr}\n--- again\n{again.stderr}")


def tree(hybrid: Hybrid) -> dict[str, Any]:
    """Everything in the image: kind, mode, owner, time, names, and content or target."""
    found: dict[str, Any] = {}
    with Image.open(Path(hybrid.built["formats"]["squashfs"])) as image:
        for path, node in image.walk():
            content: Any = node.target
            if node.kind == "file":
                content = image.read(path, 1 << 30) if path.startswith(("opt/env/share", "srv/", "usr/local")) else 0
            found[path] = (node.kind, f"{node.mode:o}", node.uid, node.gid, node.mtime, node.nlink, node.size, content)
    return found


def test_the_images_agree(by_docker: Hybrid, by_apptainer: Hybrid) -> None:
    assert by_docker.built["id"] == by_apptainer.built["id"]
    one, other = tree(by_docker), tree(by_apptainer)
    different = {path for path in one.keys() | other.keys() if one.get(path) != other.get(path)}
    assert different == set(), {path: (one.get(path), other.get(path)) for path in sorted(different)[:10]}
    assert "srv/repo/made/again.ipynb" in one and "srv/repo/requirements.txt" not in one
    assert one["srv/repo/made/again.ipynb"][5] == 2


def test_what_the_step_found(by_apptainer: Hybrid) -> None:
    with Image.open(Path(by_apptainer.built["formats"]["squashfs"])) as image:
        assert image.read(f"{contract.REPO_DIR}/made/id") == b"0\n"
        assert image.read(f"{contract.REPO_DIR}/made/place") == b"/srv/repo\n"
        variables = image.read(f"{contract.REPO_DIR}/made/environment").decode()
        assert f":{contract.ENV_PREFIX}/bin:" in variables and "UV_NO_CONFIG=1" in variables
        assert b"/run/hpcbinder/tools/uv" in image.read(f"{contract.REPO_DIR}/made/found")


def test_the_catalog_says_who_ran_what(by_docker: Hybrid, by_apptainer: Hybrid) -> None:
    for hybrid, name in ((by_docker, "docker"), (by_apptainer, "apptainer")):
        assert hybrid.record["image"]["engine"] == "none"
        assert hybrid.record["image"]["ran"] == "postbuild/run"
        if name == "docker":
            assert hybrid.record["image"]["ran_by"] == name
            assert f"postbuild/run was run by {name}" in hybrid.shown.replace("\n", " ")
    assert by_docker.record["kernels"] == by_apptainer.record["kernels"]
    assert {kernel["name"] for kernel in by_docker.record["kernels"]} == {"python3", "second"}


def test_a_step_is_not_run_again(by_apptainer: Hybrid) -> None:
    first, _, again = by_apptainer.said.partition("--- again")
    assert "step postbuild/run: apptainer" in first
    assert "step postbuild/run: run before" in again
    # The second build ran nothing, and so its record names nobody.
    assert "ran_by" not in by_apptainer.record["image"]


def test_its_kernels_run(by_docker: Hybrid, by_apptainer: Hybrid, user: User, apptainer: Apptainer) -> None:
    program = "import os, six; print(six.__version__, os.environ['STARTED'], os.getcwd())"
    for hybrid in (by_docker, by_apptainer):
        assert {kernel["language"] for kernel in hybrid.built["kernels"]} == {"python"}
        command = [apptainer.path, "-s", "exec", hybrid.built["formats"]["squashfs"], contract.ENTRYPOINT]
        done = user.run([*command, "python", "-c", program], network=False)
        assert done.stdout.startswith("1.17.0 yes ")
        kernels = user.run([*command, f"{contract.SERVER_PREFIX}/bin/jupyter-kernelspec", "list"], network=False)
        assert "second" in kernels.stdout


@pytest.mark.heavy
def test_podman_runs_what_cannot_be_built_apart(
    line: Line, builder: Builder, charliecloud: Charliecloud, by_docker: Hybrid
) -> None:
    """A package without a wheel, where nothing but an engine builds one: it is built apart, without a network. One that
    takes a network is left to its whole step, and then so is what comes behind it. The other packages, the server and
    the base are those of a site's store; Debian's are installed for all."""

    def ask(work: Path) -> None:
        (work / "requirements.txt").write_text("six==1.17.0\ndocopt==0.6.2\n./online\n")
        (work / "online").mkdir()
        (work / "online" / "setup.py").write_text(ONLINE)
        (work / "apt.txt").write_text("tree\n")
        script = "import docopt, online, six; print(docopt.__version__, six.__version__)"
        (work / "postBuild").write_text(f"#!/bin/sh\nset -e\npython -c '{script}' >made\ntree --version >>made\n")
        (work / "postBuild").chmod(0o755)

    source = line.repository("unbuildable", ask, of="edited")
    store = builder.home / "store-unbuildable"
    builder.run(["rm", "-rf", store])
    mine = ("HOME", "PATH", "USER", "LOGNAME", "SHELL", "DOCKER_HOST", "TMPDIR", "HPCBINDER_BUILD_ENGINE")
    given = {k: v for k, v in line.environment.items() if k not in mine and not k.startswith("XDG_")}
    given |= {**LIKE, "HPCBINDER_STORE_SITE": str(line.folder / "store")}
    command = [sys.executable, "-B", "-m", "hpcbinder", "--store", store, "build", source, "--runtime", "charliecloud"]
    done = builder.run([*command, "--format", "squashfs", "--no-register", "--json"], env=given, timeout=900)
    try:
        said = " ".join(done.stderr.split())
        assert "an engine is needed: Debian packages have to be installed; nothing here runs build steps" in said
        assert "building the wheel of docopt 0.6.2, without a network: podman" in said
        assert "step python/project is run as a whole: online: step build of online failed" in said
        assert "step python/project: podman" in done.stderr and "step python/packages: podman" not in done.stderr
        built = json.loads(done.stdout)
        assert (built["image"]["engine"], built["image"]["ran_by"]) == ("none", "podman")
        assert built["image"]["ran"] == "python/project, postbuild/run"
        with Image.open(Path(built["formats"]["squashfs"])) as image:
            made = image.read(f"{contract.REPO_DIR}/made").decode().splitlines()
            assert made[0] == "0.6.2 1.17.0" and made[1].startswith("tree v2")
    finally:
        builder.run(["rm", "-rf", store])
