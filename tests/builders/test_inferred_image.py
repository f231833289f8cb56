"""A repository that names no package in any file: assembled by an ordinary user without an engine, and its notebook
runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from base_layer import base_layer

from images import REPOS
from rig import Apptainer, Rig, RigError, User


@dataclass(frozen=True)
class Person:
    """An ordinary user with a copy of the repository and a store, beside a site's store that has a base."""

    user: User
    folder: Path
    variables: dict[str, str]

    @property
    def source(self) -> Path:
        return self.folder / "work"

    def hpcbinder(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        words = [f"{name}={value}" for name, value in self.variables.items()]
        command = ["/usr/bin/env", "--ignore-environment", *words, sys.executable, "-B", "-m", "hpcbinder", *arguments]
        return subprocess.run(
            self.user.command(command), cwd=self.folder, capture_output=True, text=True, timeout=580, check=False
        )

    def told(self, *arguments: str) -> dict[str, Any]:
        done = self.hpcbinder(*arguments, "--json")
        assert done.returncode == 0, done.stderr[-6000:]
        value = json.loads(done.stdout)
        assert isinstance(value, dict)
        return value


@pytest.fixture(scope="module")
def person(rig: Rig, apptainer: Apptainer) -> Iterator[Person]:
    try:
        ordinary = rig.user
    except RigError as error:
        pytest.skip(f"rig: {error}")
    layer = base_layer(rig)
    folder = Path(tempfile.mkdtemp(prefix="inferred-", dir=rig.folder))
    folder.chmod(0o755)
    site = folder / "site"
    site.mkdir()
    (site / "bases").symlink_to(rig.folder / "bases")
    (site / "layers").symlink_to(layer.parent)
    (site / "version").write_text("1")
    shutil.copytree(REPOS / "infer-small", folder / "work")
    for name in ("store", "jupyter", "cache", "written"):
        (folder / name).mkdir()
        os.chown(folder / name, ordinary.uid, ordinary.uid)
    given = {
        name: value
        for name, value in os.environ.items()
        if name in ("PIP_INDEX_URL", "UV_INDEX_URL", "SSL_CERT_FILE") or name.lower().endswith("_proxy")
    }
    given |= {
        "HPCBINDER_STORE_PATH": str(folder / "store"),
        "HPCBINDER_STORE_SITE": str(site),
        "HPCBINDER_BUILD_COMPRESSION": "lz4",
        "HPCBINDER_BUILD_FORMATS": "squashfs",
        "XDG_CACHE_HOME": str(folder / "cache"),
        "PATH": f"{apptainer.bin}:/usr/bin:/bin",
    }
    yield Person(ordinary, folder, ordinary.environment(given))
    shutil.rmtree(folder, ignore_errors=True)


def test_what_its_code_imports_is_built_and_runs(person: Person) -> None:
    words = ("--engine", "none", "--runtime", "apptainer", "--prefix", str(person.folder / "jupyter"))
    built = person.told("build", str(person.source), *words)
    assert [kernel["language"] for kernel in built["kernels"]] == ["python"]
    verified = person.told("verify", built["id"], "--runtime", "apptainer")
    assert verified["missing"] == [] and verified["passed"]
    assert [(each["notebook"], each["status"]) for each in verified["notebooks"]] == [("analysis.ipynb", "runs")]


def test_what_init_writes_is_the_same_environment(person: Person) -> None:
    """Of the store and the cache of the first test little is needed: it plans the same by the files alone."""
    inferred = person.told("plan", str(person.source))
    found = person.told("init", str(person.source), "-o", str(person.folder / "written"))
    assert [Path(file["path"]).name for file in found["files"] if file["written"]] == [
        "requirements.txt",
        "runtime.txt",
    ]
    written = {name: (person.folder / "written" / name).read_text() for name in ("requirements.txt", "runtime.txt")}
    assert written["runtime.txt"] == f"python-{inferred['python']['version']}\n"
    assert "cowsay==" in written["requirements.txt"] and "BY ITS NAME ALONE" in written["requirements.txt"]
    for name, text in written.items():
        (person.source / name).write_text(text)
    planned = person.told("plan", str(person.source))
    assert planned["inferred"] == []
    assert _versions(planned) == _versions(inferred)
    refused = person.hpcbinder("init", str(person.source), "--buildpack", "infer", "-o", str(person.folder / "written"))
    assert refused.returncode == 2 and refused.stderr.splitlines()[-1].startswith("hpcbinder: ")
    assert "there already, nothing was written" in refused.stderr


def _versions(plan: dict[str, Any]) -> dict[str, str]:
    return {package["name"]: package["version"] for lock in plan["locks"] for package in lock["packages"]}
