"""Which engine is taken, and what is said when there is none."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from hpcbinder.config import BuildConfig, Config, load
from hpcbinder.engine import pick_engine
from hpcbinder.engine.podman import PodmanEngine
from hpcbinder.errors import BuildError, UsageError
from hpcbinder.progress import Silent
from rig import Builder, Dockerd

NOTHING = {"PATH": "/nonexistent", "DOCKER_HOST": "unix:///nonexistent/docker.sock"}


class Phases(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def phase(self, phase: str, message: str, progress: float | None = None) -> None:
        self.said.append(message)


def config(**build: object) -> Config:
    return Config(build=BuildConfig(**build))  # type: ignore[arg-type]


def program(folder: Path, name: str, script: str) -> dict[str, str]:
    """An environment whose only program is one that says what it is told to, as a broken tool would."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    return {"PATH": f"{folder}", "DOCKER_HOST": NOTHING["DOCKER_HOST"]}


def test_nothing_there_names_all_that_was_tried() -> None:
    with pytest.raises(BuildError) as caught:
        pick_engine("auto", config(), environ=NOTHING)
    assert caught.value.message == (
        "nothing here can build: docker: no Docker daemon at unix:///nonexistent/docker.sock; podman is not installed; "
        "buildah is not installed"
    )
    assert caught.value.hint == "start one, or name yours in build.dockerd or DOCKER_HOST"


@pytest.mark.parametrize(
    ("name", "message"), [("docker", "no Docker daemon"), ("podman", "not installed"), ("buildah", "not installed")]
)
def test_one_that_was_asked_for_and_is_not_there(name: str, message: str) -> None:
    with pytest.raises(BuildError, match=message):
        pick_engine(name, config(), environ=NOTHING)


def test_none_is_no_engine() -> None:
    with pytest.raises(BuildError, match="assembled here, without an engine"):
        pick_engine("none", config())


def test_a_name_that_no_engine_has() -> None:
    with pytest.raises(UsageError, match="kaniko"):
        pick_engine("kaniko", config())
    with pytest.raises(UsageError, match="build.engine must be one of auto, none, docker, podman, buildah"):
        load({"build.engine": "kaniko"})


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo podman version 3.4.4", r"podman 3\.4 is too old \(4\.3 or newer is needed\)"),
        ("echo docker, honestly", "does not tell its version"),
        (
            "[ $1 = --version ] && exec echo podman version 4.9.3; echo 'Error: no space' >&2; exit 125",
            "info: no space",
        ),
        ("[ $1 = --version ] && exec echo podman version 4.9.3; echo '{'", "gave no JSON"),
        (
            '[ $1 = --version ] && exec echo podman version 4.9.3; echo \'{"host": {"serviceIsRemote": true}}\'',
            "another machine",
        ),
    ],
)
def test_a_podman_that_cannot_build(tmp_path: Path, script: str, message: str) -> None:
    with pytest.raises(BuildError, match=message):
        PodmanEngine(environ=program(tmp_path, "podman", script)).check()


def test_a_podman_that_poses_as_docker(tmp_path: Path) -> None:
    """Its service answers Docker's API, and has no BuildKit. Stands in for one, by answering two requests."""
    answers = {
        "/_ping": "OK",
        "/version": json.dumps({"ApiVersion": "1.41", "Components": [{"Name": "Podman Engine"}]}),
    }
    script = (
        "import http.server, json, socketserver, sys\n"
        f"answers = {answers!r}\n"
        "class Handler(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        body = next((b for p, b in answers.items() if self.path.endswith(p)), '{}').encode()\n"
        "        self.send_response(200); self.send_header('Content-Type', 'application/json')\n"
        "        self.send_header('Content-Length', str(len(body))); self.end_headers(); self.wfile.write(body)\n"
        "    def log_message(self, *a): pass\n"
        "server = http.server.HTTPServer(('127.0.0.1', 0), Handler)\n"
        "print(server.server_port, flush=True)\n"
        "server.serve_forever()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        host = f"tcp://127.0.0.1:{server.stdout.readline().strip()}"
        try:
            with pytest.raises(BuildError, match="podman answers"):
                pick_engine("docker", config(dockerd=host), environ=NOTHING)
        finally:
            server.kill()


def test_docker_comes_first_and_is_said(dockerd: Dockerd) -> None:
    phases = Phases()
    engine = pick_engine("auto", config(dockerd=dockerd.host), phases)
    assert engine.name == "docker"
    assert len(phases.said) == 1
    assert phases.said[0].startswith("engine: docker ") and phases.said[0].endswith(", as root")


def test_others_repositories_are_not_built_by_root(dockerd: Dockerd, tmp_path: Path) -> None:
    environ = {**os.environ, "PATH": str(tmp_path)}  # the daemon answers; no podman, no buildah
    (tmp_path / "docker").symlink_to(dockerd.client)
    for name in ("docker", "auto"):
        with pytest.raises(BuildError, match="not for others' repositories") as caught:
            pick_engine(name, config(dockerd=dockerd.host, shared=True), environ=environ)
        assert caught.value.hint is not None and "rootless" in caught.value.hint


def test_a_persons_own_rootless_docker_is_asked_before_the_machines(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as closed:
        closed.bind(str(tmp_path / "docker.sock"))
    environ = {"PATH": "/nonexistent", "XDG_RUNTIME_DIR": str(tmp_path), "DOCKER_CONTEXT": ""}
    with pytest.raises(BuildError) as caught:
        pick_engine("auto", config(), environ=environ)
    assert f"docker: no Docker daemon answers at unix://{tmp_path}/docker.sock" in caught.value.message


def test_an_ordinary_user_gets_podman_and_hears_why(builder: Builder) -> None:
    said = ask(builder, "auto", {})
    assert said.startswith("podman|engine: podman ")
    assert ", rootless (docker: no Docker daemon at unix:///nonexistent/docker.sock)" in said


def test_also_where_others_repositories_are_built(builder: Builder) -> None:
    assert ask(builder, "auto", {"HPCBINDER_BUILD_SHARED": "true"}).startswith("podman|")
    assert ask(builder, "buildah", {"HPCBINDER_BUILD_SHARED": "true"}).startswith("buildah|")


def test_without_subordinate_ids_the_lines_to_ask_for_are_named(builder: Builder) -> None:
    """An account that nobody gave any, as on many a cluster."""
    with builder.without_subids():
        said = ask(builder, "buildah", {})
    assert "an image's files need 65536" in said
    assert "usermod --add-subuids" in said


def ask_command(name: str) -> list[str]:
    script = (
        "import sys\n"
        "from hpcbinder.config import load\n"
        "from hpcbinder.engine import pick_engine\n"
        "from hpcbinder.errors import HpcbinderError\n"
        "from hpcbinder.progress import Silent\n"
        "class Said(Silent):\n"
        "    def phase(self, phase, message, progress=None): said.append(message)\n"
        "said = []\n"
        "try:\n"
        "    engine = pick_engine(sys.argv[1], load({}), Said())\n"
        "    print(engine.name, *said, sep='|')\n"
        "except HpcbinderError as error:\n"
        "    print(error)\n"
    )
    return [sys.executable, "-B", "-c", script, name]


def ask(builder: Builder, name: str, env: Mapping[str, str]) -> str:
    """`NAME|WHAT WAS SAID` of the engine that the builder gets, or the error."""
    return builder.run(ask_command(name), env={"DOCKER_HOST": NOTHING["DOCKER_HOST"], **env}).stdout
