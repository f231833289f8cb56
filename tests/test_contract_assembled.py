"""The image contract (docs/image-contract.md), on an image that no engine made: assembled by an ordinary user, with
Apptainer as what runs the steps that have to be run. The tests are those of `test_contract`; and the image is, by
meaning, the one that Docker makes of the same plan.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import test_contract
from test_contract import Inside

from hpcbinder.squashfs import Image
from images import Line
from rig import Apptainer, Charliecloud, Rig, User

pytestmark = pytest.mark.heavy

LEFT_OUT = (
    "test_the_server_environment_is_the_same_layer_in_every_image",
    "test_the_bill_of_materials_has_what_the_catalog_has",
)
"""What asks for more than one image, or for nothing of an engine's."""

globals().update(
    {name: test for name, test in vars(test_contract).items() if name.startswith("test_") and name not in LEFT_OUT}
)

MARKS = {f"opt/jupyter/{name}" for name in (".gitignore", ".lock", "CACHEDIR.TAG")}
"""What uv leaves in an environment for tools that look after somebody's folders."""


@dataclass(frozen=True)
class Assembled:
    """tests/repos/contract, assembled.

    Attributes:
        built: What `build --json` printed.
        record: The catalog's.
        said: What the build said.
        warmed: What `warm --json` printed before, of its apt.txt.
    """

    built: dict[str, Any]
    record: dict[str, Any]
    said: str
    warmed: dict[str, Any]


@pytest.fixture(scope="module")
def assembled(line: Line, rig: Rig, apptainer: Apptainer, contract_image: dict[str, Any]) -> Assembled:
    user, folder = rig.user, line.folder / "contract-assembled"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    store, site, path = folder / "store", folder / "site", folder / "bin"
    for place in (store, site, path):
        place.mkdir()
    user.own(store)
    # The base and packages that tests squashed before, not the image.
    for name in ("bases", "wheels"):
        (site / name).symlink_to(line.folder / "store" / name)
    (site / "version").write_text("1")
    (folder / "locks.json").write_text(line.hpcbinder("show", contract_image["id"], "--json").stdout)
    (path / "git").symlink_to("/usr/bin/git")
    mine = ("HOME", "PATH", "USER", "LOGNAME", "SHELL", "DOCKER_HOST", "TMPDIR")
    given = {k: v for k, v in line.environment.items() if k not in mine and not k.startswith("XDG_")}
    # Packages are squashed once for all tests that compress alike.
    given |= {"HPCBINDER_BUILD_COMPRESSION": "gzip"}
    given |= {"PATH": f"{path}:{apptainer.bin}", "HPCBINDER_STORE_SITE": str(site)}

    variables = [f"{name}={value}" for name, value in user.environment(given).items()]

    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        command = ["/usr/bin/env", "--ignore-environment", *variables, sys.executable, "-B", "-m", "hpcbinder"]
        return user.run([*command, "--store", str(store), *argv], cwd=Path("/"), timeout=900)

    source = line.repository("contract")
    warmed = run("warm", str(line.folder / "work/contract/apt.txt"), "--base", "bookworm", "--json")
    done = run(
        *("build", source, "--engine", "none", "--locks", str(folder / "locks.json"), "--json"),
        *("--format", "sif", "--format", "squashfs", "--prefix", str(store / "jupyter"), "--runtime", "apptainer"),
    )
    built = json.loads(done.stdout)
    record = (store / "images" / built["id"] / "record.json").read_text()
    return Assembled(built, json.loads(record), done.stderr, json.loads(warmed.stdout))


@pytest.fixture(params=["apptainer", "charliecloud"])
def inside(request: pytest.FixtureRequest, assembled: Assembled, user: User) -> Inside:
    formats = assembled.built["formats"]

    def run(*argv: str, env: dict[str, str] | None = None) -> str:
        runtime: Apptainer | Charliecloud = request.getfixturevalue(request.param)
        start: list[Any] = [runtime.path, "-s", "exec", formats["sif"]]
        if request.param == "charliecloud":
            start = [runtime.path, "--set-env", "--home", formats["squashfs"], "--"]
        return user.run([*start, *argv], env=env, network=False).stdout

    return run


@pytest.fixture
def record(assembled: Assembled) -> dict[str, Any]:
    return assembled.record


@pytest.fixture
def tree(assembled: Assembled) -> dict[str, Any]:
    with Image.open(Path(assembled.built["formats"]["squashfs"])) as image:
        return dict(image.walk())


def files(squashfs: str) -> dict[str, Any]:
    """Everything in an image: kind, mode, owner, time, and what of it tells one content from another."""
    found: dict[str, Any] = {}
    with Image.open(Path(squashfs)) as image:
        for path, node in image.walk():
            content: Any = node.target
            if node.kind == "file":
                content = image.read(path, 1 << 30) if path.startswith(("etc/", "opt/", "srv/")) else node.size
            if path.endswith(".dist-info/direct_url.json"):
                content = json.loads(content)
            found[path] = (node.kind, f"{node.mode:o}", node.uid, node.gid, node.mtime, content)
    return found


def test_it_is_the_image_that_docker_makes(assembled: Assembled, contract_image: dict[str, Any]) -> None:
    assert assembled.built["id"] == contract_image["id"]
    theirs, mine = (files(image["formats"]["squashfs"]) for image in (contract_image, assembled.built))
    different = {path for path in theirs.keys() | mine.keys() if theirs.get(path) != mine.get(path)}
    # As in test_assembled_image: who installed a package, uv's programs and its marks; and what uv notes of its builds.
    installed = {path for path in different if path.endswith((".dist-info/INSTALLER", ".dist-info/RECORD"))}
    programs = {path for path in different if path.startswith(("opt/env/bin/", "opt/jupyter/bin/"))}
    noted = {path for path in different if path.endswith(".dist-info/uv_build.json")}
    left = different - installed - programs - noted - MARKS
    assert left == set(), {path: (theirs.get(path), mine.get(path)) for path in sorted(left)[:20]}


def test_the_record_says_how(assembled: Assembled) -> None:
    assert assembled.record["image"]["engine"] == "none"
    assert (assembled.record["image"]["ran"], assembled.record["image"]["ran_by"]) == ("postbuild/run", "apptainer")


def test_debian_packages_were_squashed_ahead(assembled: Assembled) -> None:
    """By `warm`: the build finds them, and installs none."""
    assert (assembled.warmed["refused"], assembled.warmed["failed"]) == (0, 0)
    (part,) = (part for part in assembled.warmed["parts"] if part["what"].startswith("apt/"))
    assert (part["new"], part["there"], part["left"]) == (1, 0, "")
    assert "installed on debian:bookworm before" in assembled.said
    assert "installing them" not in assembled.said
