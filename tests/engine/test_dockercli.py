"""Which docker client builds. Clients are stand-ins here: programs that say what the real ones say."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcbinder.engine import DockerEngine
from hpcbinder.engine.dockercli import DockerCli
from hpcbinder.errors import BuildError

HOST = "unix:///nonexistent/docker.sock"


def client(folder: Path, version: str, *, buildx: bool = False) -> str:
    """A program `docker` in a folder of its own, which is returned."""
    folder.mkdir()
    program = folder / "docker"
    program.write_text(
        f"#!/bin/sh\ncase $1 in\n--version) echo '{version}' ;;\nbuildx) exit {0 if buildx else 1} ;;\nesac\n"
    )
    program.chmod(0o755)
    return str(folder)


def found(*folders: str) -> str:
    path = ":".join([*folders, "/usr/bin-without-docker"])
    return DockerCli.find(HOST, {"PATH": path, "HOME": "/nonexistent"}).program


def test_a_new_client_without_buildx_is_passed_over(tmp_path: Path) -> None:
    new = client(tmp_path / "new", "Docker version 28.2.2, build e6534b4")
    old = client(tmp_path / "old", "Docker version 20.10.24+dfsg1, build 297e128")
    assert found(new, old) == f"{old}/docker"


def test_a_new_client_with_buildx_is_taken(tmp_path: Path) -> None:
    new = client(tmp_path / "new", "Docker version 28.2.2, build e6534b4", buildx=True)
    old = client(tmp_path / "old", "Docker version 20.10.24+dfsg1, build 297e128")
    assert found(new, old) == f"{new}/docker"


def test_podman_under_dockers_name_is_none(tmp_path: Path) -> None:
    podman = client(tmp_path / "podman", "podman version 4.3.1", buildx=True)
    with pytest.raises(BuildError, match=r"no docker client here can use BuildKit: \S+/podman/docker \(not Docker\)"):
        found(podman)


def test_no_client_can(tmp_path: Path) -> None:
    new = client(tmp_path / "new", "Docker version 28.2.2, build e6534b4")
    with pytest.raises(BuildError, match=r"\(no buildx\).*install the package docker-buildx"):
        found(new)


def test_no_client() -> None:
    with pytest.raises(BuildError, match="not installed"):
        found()


def test_no_daemon() -> None:
    with pytest.raises(BuildError, match=r"no Docker daemon at unix:///nonexistent.*build\.dockerd"):
        DockerEngine(HOST).check()


def test_a_daemon_that_does_not_answer() -> None:
    with pytest.raises(BuildError, match=r"no Docker daemon answers at tcp://127\.0\.0\.1:9"):
        DockerEngine("tcp://127.0.0.1:9").check()
