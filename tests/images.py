"""Images built through the command line, once per session: what the contract and the whole line are tested on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rig import Dockerd, Rig
from rig.githttp import commit_folder

REPOS = Path(__file__).parent / "repos"


@dataclass(frozen=True)
class Line:
    """The command line with a store and an engine of its own.

    Attributes:
        folder: Readable for ordinary users, unlike pytest's own temporary folders.
    """

    folder: Path
    environment: dict[str, str]

    def hpcbinder(self, *arguments: str, check: bool = True, **extra: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "hpcbinder", "--store", str(self.folder / "store"), *arguments]
        done = subprocess.run(
            command, env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=900, **extra
        )
        if check and done.returncode:
            pytest.fail(f"{' '.join(arguments)}: exit {done.returncode}\n{done.stderr[-6000:]}")
        return done

    def repository(self, name: str, change: Callable[[Path], None] | None = None, *, of: str | None = None) -> str:
        """The file URL of a repository made of tests/repos/NAME (or `of`); one commit more if `change` changes it."""
        work = self.folder / "work" / name
        if not work.exists():
            shutil.copytree(REPOS / (of or name), work, symlinks=True)
        if change is not None:
            change(work)
        (self.folder / "git").mkdir(exist_ok=True)
        commit_folder(work, self.folder / "git" / f"{name}.git", message="as it is")
        return f"file://{self.folder}/git/{name}.git"

    def build(self, source: str, *arguments: str) -> dict[str, Any]:
        """`build --json`, registered below this folder; the object it printed."""
        prefix = str(self.folder / "jupyter")
        done = self.hpcbinder("build", source, "--prefix", prefix, "--json", *arguments)
        result = json.loads(done.stdout)
        assert isinstance(result, dict)
        return result


@pytest.fixture(scope="session")
def line(rig: Rig, dockerd: Dockerd) -> Line:
    # Each process that runs tests has one, which nobody else empties.
    folder = rig.folder / f"line{os.environ.get('PYTEST_XDIST_WORKER', '')}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o755)
    home = folder / "home"
    home.mkdir()
    environment = {**os.environ, **dockerd.environment, "HOME": str(home), "CI": "1"}
    # A person's machine knows none of this one's package settings.
    for name in ("PIP_FIND_LINKS", "PIP_CONFIG_FILE", "JUPYTER_PATH", "PYTHONPATH"):
        environment.pop(name, None)
    # What an engine makes is meant here; what is made without one has tests of its own.
    environment["HPCBINDER_BUILD_ENGINE"] = "docker"
    environment["GIT_CONFIG_GLOBAL"] = str(home / "gitconfig")
    (home / "gitconfig").write_text("[safe]\n\tdirectory = *\n")
    return Line(folder, environment)


@pytest.fixture(scope="session")
def contract_image(line: Line) -> dict[str, Any]:
    """tests/repos/contract, built: it uses every file that the buildpacks know."""
    formats = [word for name in ("sif", "squashfs", "shifter") for word in ("--format", name)]
    return line.build(line.repository("contract"), *formats)
