"""The same repositories, built by each engine as who has it: Docker by root, podman and buildah by a user."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from images import Line
from rig import Builder

NAMES = ("docker", "podman", "buildah")


@dataclass
class EngineLine:
    """The command line with one engine and a store of its own.

    Attributes:
        builder: Who builds; None for root.
        built: Name of a repository -> what `build --json` printed.
    """

    name: str
    line: Line
    store: Path
    builder: Builder | None
    built: dict[str, dict[str, Any]] = field(default_factory=dict)

    def build(self, repository: str) -> dict[str, Any]:
        """tests/repos/REPOSITORY as a SIF and a squashfs, once in a session."""
        if repository not in self.built:
            if self.builder is not None:
                _forget(self.builder, repository)
            formats = ["--format", "sif", "--format", "squashfs", "--prefix", str(self.store / "jupyter")]
            source = self.line.repository(repository)
            self.built[repository] = self.hpcbinder("build", source, "--engine", self.name, *formats, "--json")
        return self.built[repository]

    def hpcbinder(self, *arguments: str) -> Any:
        """Run it, and read the JSON it prints."""
        command = [sys.executable, "-B", "-m", "hpcbinder", "--store", str(self.store), *arguments]
        if self.builder is None:
            done = subprocess.run(
                command, env=self.line.environment, cwd=self.line.folder, capture_output=True, text=True, timeout=900
            )
        else:
            mine = ("HOME", "PATH", "USER", "LOGNAME", "SHELL", "DOCKER_HOST", "TMPDIR")
            given = {k: v for k, v in self.line.environment.items() if k not in mine and not k.startswith("XDG_")}
            done = self.builder.run(command, env=given, timeout=900, check=False)
        if done.returncode:
            pytest.fail(f"{self.name}: {' '.join(arguments)}: exit {done.returncode}\n{done.stderr[-6000:]}")
        return json.loads(done.stdout)


@dataclass
class EngineLines:
    """One line for each engine, made ready when it is asked for."""

    line: Line
    builder: Builder
    made: dict[str, EngineLine] = field(default_factory=dict)

    def __getitem__(self, name: str) -> EngineLine:
        if name not in self.made:
            builder = None if name == "docker" else self.builder
            place = self.line.folder if builder is None else builder.home
            made = EngineLine(name, self.line, place / f"store-{name}", builder)
            shutil.rmtree(made.store, ignore_errors=True)
            made.store.mkdir(mode=0o755)
            # What was found out before decides how a lock is laid out in layers: every store begins with nothing but
            # the base.
            shutil.copytree(self.line.folder / "store" / "bases", made.store / "bases")
            if builder is not None:
                builder.own(made.store)
            self.made[name] = made
        return self.made[name]


def _forget(builder: Builder, repository: str) -> None:
    """Take away what the other engine built, which would be found and not built again: they share a storage. The base
    and the server's environment stay."""
    listed = builder.run(["podman", "images", "--format", "{{.Repository}}:{{.Tag}}"]).stdout.split()
    images = [
        image for image in listed if image.startswith(tuple(f"localhost/hpcbinder/{n}:" for n in ("env", repository)))
    ]
    if images:
        builder.run(["podman", "rmi", "--force", *images])


@pytest.fixture(scope="session")
def engine_lines(line: Line, contract_image: dict[str, Any], builder: Builder) -> EngineLines:
    """`engine_lines["podman"].build("plain")`."""
    os.chmod(builder.home, 0o755)  # noqa: PTH101 (what was built there is run by other users)
    return EngineLines(line, builder)
