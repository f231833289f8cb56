"""A repository's own Dockerfile, the whole line for real: its images from a registry, a kernel that runs in the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpcbinder.config import RegistryConfig, SiteConfig
from hpcbinder.engine import DockerEngine
from hpcbinder.registry import Registry, parse_reference
from hpcbinder.squashfs import Image
from images import Line
from rig import Apptainer, Builder, User
from rig import Registry as RigRegistry

pytestmark = [pytest.mark.rig, pytest.mark.heavy]

# The stand-in is an image of ours with ipykernel in /opt/env. Its kernelspec goes: a Python that has ipykernel is one.
DOCKERFILE = """\
# syntax=docker/dockerfile:1
ARG TAG=3.11-slim
FROM python:${TAG} AS venv
RUN /usr/bin/python3 -m venv --without-pip /srv/venv && \\
    cp -a /opt/env/lib/python3.11/site-packages/. /srv/venv/lib/python3.11/site-packages/

FROM venv
ARG NB_USER
ARG NB_UID
ENV HOME=/home/${NB_USER} USER=${NB_USER}
RUN rm -rf /opt/env /opt/jupyter && useradd --uid ${NB_UID} --create-home ${NB_USER}
COPY --from=python:3.11-slim /etc/debian_version /from-another
COPY . ${HOME}
WORKDIR ${HOME}
ENV PATH=/srv/venv/bin:$PATH
USER ${NB_UID}
"""

EXECUTE = """
import sys
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name=sys.argv[1], startup_timeout=120)
def show(message):
    if message["msg_type"] == "stream":
        print(message["content"]["text"], end="")
program = "import os, sys; from pathlib import Path as P; print(sys.prefix, P('/from-another').exists(), "
program += "os.access(P(os.environ['IPYTHONDIR']).parent, os.W_OK))"
client.execute_interactive(program, output_hook=show, timeout=120)
client.stop_channels()
manager.shutdown_kernel(now=True)
"""


@pytest.fixture(scope="module")
def site(line: Line, registry: RigRegistry, tmp_path_factory: pytest.TempPathFactory) -> Line:
    """A site whose mirror of Docker Hub has a stand-in for `python:3.11-slim`."""
    built = line.build(line.repository("edited"), "--no-register", "--format", "squashfs")
    record = json.loads(line.hpcbinder("show", built["id"], "--json").stdout)
    engine = DockerEngine(line.environment["DOCKER_HOST"], environ=line.environment)
    image = engine.image(record["image"]["name"])
    assert image is not None
    name = parse_reference(f"{registry.host}/own/library/python:3.11-slim")
    Registry(SiteConfig(), RegistryConfig()).push(image, name, scratch=tmp_path_factory.mktemp("push"))
    environment = {**line.environment, "HPCBINDER_REGISTRY_MIRRORS": f"docker.io={registry.host}/own"}
    return replace(line, environment=environment)


def built(site: Line, name: str, dockerfile: str, *arguments: str) -> dict[str, Any]:
    def write(folder: Path) -> None:
        (folder / "Dockerfile").write_text(dockerfile)
        (folder / ".dockerignore").write_text("secret\n")
        (folder / "secret").write_text("hunter2")

    result = site.build(site.repository(name, write, of="plain"), *arguments)
    record = json.loads(site.hpcbinder("show", result["id"], "--json").stdout)
    assert isinstance(record, dict)
    return record


def test_it_is_built_as_it_is_and_its_kernel_runs(site: Line, user: User, apptainer: Apptainer) -> None:
    record = built(site, "own", DOCKERFILE, "--format", "sif", "--format", "squashfs", "--no-register")
    assert [kernel["argv"][0] for kernel in record["kernels"]] == ["/srv/venv/bin/python3"]
    assert record["config"]["labels"]["org.hpcbinder.level"] == "dockerfile"
    assert record["config"]["workdir"] == "/home/jovyan"
    assert record["base"]["image"].startswith("docker.io/library/python:3.11-slim@sha256:")
    assert "made by the repository's own Dockerfile" in site.hpcbinder("show", record["id"]).stdout

    look = "cat /opt/hpcbinder/manifest.json; ls -a /home/jovyan >&2"
    argv = ["docker", "run", "--rm", "--network=none", "--entrypoint=/bin/sh", record["image"]["name"], "-euc", look]
    done = subprocess.run(argv, env=site.environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["id"] == record["id"]
    assert "secret" not in done.stderr.split() and "README.md" in done.stderr.split()

    prefix = site.folder / "jupyter-own"
    environment = {**site.environment, "PATH": f"{Path(apptainer.path).parent}:{os.environ['PATH']}"}
    command = [sys.executable, "-m", "hpcbinder", "--store", str(site.folder / "store"), "register", record["id"]]
    command += ["--kernel", "--prefix", str(prefix), "--runtime", "apptainer"]
    registered = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert registered.returncode == 0, registered.stderr
    path = {"JUPYTER_PATH": str(prefix / "share/jupyter"), "PATH": f"{Path(apptainer.path).parent}:/usr/bin:/bin"}
    ran = user.run([sys.executable, "-c", EXECUTE, f"hpcbinder-{record['id']}"], env=path, network=False)
    assert ran.stdout == "/srv/venv True True\n", ran.stderr


def test_an_image_without_a_kernel_is_an_image(site: Line) -> None:
    text = "FROM python:3.11-slim\nRUN rm -rf /opt/env /opt/jupyter\n"
    record = built(site, "own-bare", text, "--format", "squashfs")
    assert record["kernels"] == [] and record["registered"] == []
    failed = site.hpcbinder("register", record["id"], "--kernel", check=False)
    assert failed.returncode != 0
    assert "holds no Jupyter kernel" in failed.stderr and "Dockerfile" in failed.stderr


def test_a_devcontainer_gets_the_repository_and_runs_its_command(site: Line) -> None:
    def write(folder: Path) -> None:
        wanted = {
            "image": "python:3.11-slim",
            "containerEnv": {"COST": "5 $HOME"},
            "postCreateCommand": "pwd >made; id -u",
        }
        (folder / ".devcontainer" / "devcontainer.json").write_text(f"// editors\n{json.dumps(wanted)}")

    result = site.build(site.repository("lang-devcontainer", write), "--format", "squashfs", "--no-register")
    argv = ["docker", "run", "--rm", "--network=none", "--entrypoint=/bin/sh", result["image"]["name"], "-euc"]
    done = subprocess.run(
        [*argv, 'cat made a.py; echo "$COST"'], env=site.environment, capture_output=True, text=True, timeout=120
    )
    assert (done.stdout, done.returncode) == ("/srv/repo\nprint(1)\n5 $HOME\n", 0), done.stderr


def test_the_dockerfile_of_a_devcontainer_gets_its_arguments_and_the_repository(site: Line) -> None:
    def write(folder: Path) -> None:
        build = {"dockerfile": "Dockerfile", "context": "..", "args": {"VARIANT": "3.11-slim"}}
        wanted = {"build": build, "updateContentCommand": ["sh", "-c", "cp needs.txt /needs-of-$0", "$HOME"]}
        (folder / ".devcontainer/devcontainer.json").write_text(json.dumps(wanted))
        text = "ARG VARIANT=none\nFROM python:${VARIANT}\nCOPY needs.txt /copied\n"
        (folder / ".devcontainer/Dockerfile").write_text(text)

    source = site.repository("lang-devcontainer-dockerfile", write)
    result = site.build(source, "--format", "squashfs", "--no-register")
    with Image.open(result["formats"]["squashfs"]) as image:
        assert image.read("/copied") == image.read("/srv/repo/needs.txt") == b"six\n"
        # Words of a list are not a shell's.
        assert image.read("/needs-of-$HOME") == b"six\n"


def test_a_failing_instruction_is_named(site: Line) -> None:
    def write(folder: Path) -> None:
        (folder / "Dockerfile").write_text("FROM python:3.11-slim\nRUN echo 'E: no such thing' >&2; exit 3\n")

    failed = site.hpcbinder("build", site.repository("own-failing", write, of="plain"), check=False)
    assert failed.returncode == 5
    assert "exit" in failed.stderr.splitlines()[-1] and "no such thing" in failed.stderr.splitlines()[-1]


@pytest.mark.parametrize("engine", ["podman", "buildah"])
def test_engines_of_an_ordinary_user_build_it_too(builder: Builder, open_tmp_path: Path, engine: str) -> None:
    """Without any image from elsewhere, so that it takes a moment only."""
    (open_tmp_path / "binder").mkdir()
    (open_tmp_path / "binder/Dockerfile").write_text(
        "FROM scratch AS first\nARG NB_USER\nCOPY a.py /home/${NB_USER}/\n"
        "FROM scratch\nCOPY --from=first / /\nENV A=b\nWORKDIR /home\n"
    )
    (open_tmp_path / "a.py").write_text("x = 1\n")
    (open_tmp_path / ".dockerignore").write_text("secret\n")
    (open_tmp_path / "secret").write_text("hunter2")
    store = builder.home / f"own-{engine}"
    command = [sys.executable, "-B", "-m", "hpcbinder", "--store", store, "build", open_tmp_path, "--engine", engine]
    result: dict[str, Any] = {"id": "nothing"}
    done = builder.run([*command, "--no-register", "--format", "squashfs", "--json"], cwd=open_tmp_path)
    try:
        result = json.loads(done.stdout)
        with Image.open(result["formats"]["squashfs"]) as image:
            assert image.read("/home/jovyan/a.py") == b"x = 1\n"
            assert json.loads(image.read("/opt/hpcbinder/manifest.json"))["id"] == result["id"]
            assert image.lookup("/opt/hpcbinder/bin/entrypoint") is not None
            assert image.lookup("/home/jovyan/secret") is None
    finally:
        builder.run([sys.executable, "-B", "-m", "hpcbinder", "--store", store, "rm", result["id"]], check=False)
