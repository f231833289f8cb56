"""A command in an image, for real: Apptainer and Charliecloud as an ordinary user, Docker as root."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_image import ENV

from hpcbinder import runtime
from hpcbinder.config import Config
from hpcbinder.errors import RunError
from hpcbinder.model import Entry, to_json
from rig import Apptainer, Charliecloud, Dockerd, User

RUN = str(Path(__file__).with_name("run_entry.py"))
SHOW = ("python", "-c", "import os, json; print(json.dumps([os.getcwd(), os.getuid(), dict(os.environ)]))")
FOREIGN = {"PYTHONPATH": "/host", "LD_PRELOAD": "", "CONDA_PREFIX": "/host", "SECRET": "x", "VIRTUAL_ENV": "/host"}


@pytest.fixture(params=["apptainer", "charliecloud"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Person:
    """Somebody with a runtime on PATH and an image to run."""

    def __init__(self, user: User, path: Path, name: str, entry: Entry) -> None:
        self.user, self.path, self.name, self.entry = user, path, name, entry
        self.description = user.home / "entry.json"
        self.description.write_text(json.dumps(to_json(entry)))
        self.description.chmod(0o644)

    def run(self, *argv: str, env: dict[str, str] | None = None, cwd: Path | None = None, **settings: Any) -> str:
        return self.done(*argv, env=env, cwd=cwd, **settings).stdout

    def done(
        self,
        *argv: str,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        check: bool = True,
        **settings: Any,
    ) -> subprocess.CompletedProcess[str]:
        what = {"name": self.name, **settings}
        environ = {"PATH": f"{self.path.parent}:/usr/bin:/bin", **(env or {})}
        command = [sys.executable, RUN, self.description, json.dumps(what), json.dumps(list(argv) or None)]
        return self.user.run(command, env=environ, cwd=cwd, timeout=60, check=check)


@pytest.fixture
def person(name: str, request: pytest.FixtureRequest, user: User, small_image: Entry) -> Iterator[Person]:
    part: Apptainer | Charliecloud = request.getfixturevalue(name)
    yield Person(user, part.path, name, small_image)


def test_the_image_s_environment_and_nothing_of_the_host_s(person: Person) -> None:
    job = {"SLURM_JOB_ID": "7", "CUDA_VISIBLE_DEVICES": "$(touch owned); `touch owned`"}
    cwd, uid, environ = json.loads(person.run(*SHOW, env={**FOREIGN, **job}))
    assert uid == person.user.uid
    assert {key: environ[key] for key in ENV} == ENV
    assert {key: environ[key] for key in job} == job
    assert environ["USER"] == person.user.name
    assert environ["ENTERED"] == "yes"
    assert not FOREIGN.keys() & environ.keys()
    assert not (person.user.home / "owned").exists()


def test_the_host_s_value_of_an_allowed_variable_wins(person: Person) -> None:
    got = person.run("/bin/sh", "-c", 'echo "$GREETING"', env={"GREETING": "hello"}, environment=["GREETING"])
    assert got == "hello\n"


def test_home_and_the_working_directory_are_writable_and_the_image_is_not(person: Person) -> None:
    folder = person.user.home / "a folder"
    folder.mkdir()
    os.chown(folder, person.user.uid, person.user.uid)
    script = 'echo here > made; echo there > "$HOME/made"; pwd; touch /opt/env/x 2>/dev/null || echo read-only'
    got = person.run("/bin/sh", "-c", script, cwd=folder)
    assert got.splitlines()[-1] == "read-only"
    assert (folder / "made").read_text() == "here\n"
    assert (person.user.home / "made").read_text() == "there\n"


def test_a_working_directory_elsewhere(person: Person, user: User) -> None:
    folder = user.home.parent / "scratch"
    folder.mkdir(exist_ok=True)
    os.chown(folder, user.uid, user.uid)
    person.run("/bin/sh", "-c", "echo x > made", cwd=folder)
    assert (folder / "made").read_text() == "x\n"


def test_a_bind(person: Person, user: User) -> None:
    folder = user.home.parent / "data"
    folder.mkdir(exist_ok=True)
    (folder / "file").write_text("data\n")
    assert person.run("/bin/cat", "/mnt/2/file", binds=[f"{folder}:/mnt/2"]) == "data\n"


def test_a_job_s_own_temporary_folder(person: Person, user: User) -> None:
    folder = user.home.parent / "job-7"
    folder.mkdir(exist_ok=True)
    os.chown(folder, user.uid, user.uid)
    person.run("/bin/sh", "-c", 'echo x > "${TMPDIR:-/tmp}/made"', env={"TMPDIR": str(folder)})
    assert (folder / "made").read_text() == "x\n"


def test_the_prologue_s_variables_count_and_its_words_do_not(person: Person) -> None:
    lines = ["echo chatter", "export SLURM_X='from the prologue'", "unset SLURM_Y"]
    got = person.done("/bin/sh", "-c", 'echo "$SLURM_X$SLURM_Y"', env={"SLURM_Y": "y"}, prologue=lines)
    assert got.stdout == "from the prologue\n"
    assert "chatter" in got.stderr


def test_a_prologue_that_fails(person: Person) -> None:
    got = person.done("true", prologue=["false"], check=False)
    assert got.returncode == 9
    assert got.stderr == "the site's prologue failed with exit code 1: false\n"


def test_the_exit_code(person: Person) -> None:
    assert person.done("/bin/sh", "-c", "exit 7", check=False).returncode == 7


def test_no_argument_of_the_runtime_shows_a_secret(person: Person) -> None:
    # Every command line of the machine while it runs, as any user can read them.
    look = "for file in /proc/[0-9]*/cmdline; do cat $file 2>/dev/null; done | grep -c 'very-secre[t]'"
    got = person.done("/bin/sh", "-c", look, env={"TOKEN": "very-secret"}, environment=["TOKEN"], check=False)
    assert got.stdout.strip() == "0"


def test_jupyterlab_opens_a_copy_that_can_be_written_to(person: Person) -> None:
    home = person.user.home
    first = person.done()
    copy = home / person.entry.id
    assert sorted(p.name for p in copy.iterdir()) == ["a line\nend", "notebook.ipynb"]
    assert copy.stat().st_uid == person.user.uid
    words = first.stdout.splitlines()
    assert words[0].endswith(person.entry.id)
    assert words[1:] == ["--no-browser", "--ServerApp.ip=127.0.0.1"]
    assert "copying the repository" in first.stderr

    (copy / "notebook.ipynb").write_text("mine")
    second = person.done()
    assert "your copy of the repository from an earlier run" in second.stderr
    assert (copy / "notebook.ipynb").read_text() == "mine"
    assert not list(home.glob(".*partial*"))


def test_jupyterlab_where_nothing_can_be_saved(person: Person) -> None:
    got = person.done(cwd=Path("/"), check=False)
    assert got.returncode == 9
    assert "change to a folder of yours" in got.stderr


def test_the_labels_of_the_image_as_apptainer_tells_them(apptainer: Apptainer, small_image: Entry) -> None:
    labels = runtime.inspect(Path(small_image.formats["squashfs"]), str(apptainer.path))
    assert labels["org.hpcbinder.id"] == small_image.id


def test_inspecting_what_is_no_image(apptainer: Apptainer, tmp_path: Path) -> None:
    (tmp_path / "x.sif").write_text("nothing")
    with pytest.raises(RunError, match="cannot inspect"):
        runtime.inspect(tmp_path / "x.sif", str(apptainer.path))


@pytest.fixture(scope="module")
def docker_image(dockerd: Dockerd, small_image: Entry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Entry]:
    tag = "hpcbinder-test/small:run"
    environ = {**os.environ, **dockerd.environment}
    root = tmp_path_factory.mktemp("docker") / "root"
    squashfs = small_image.formats["squashfs"]
    subprocess.run(["unsquashfs", "-dest", root, squashfs], check=True, stdout=subprocess.DEVNULL)
    with subprocess.Popen(["tar", "--create", f"--directory={root}", "."], stdout=subprocess.PIPE) as tar:
        changes = [word for key, value in ENV.items() for word in ("--change", f"ENV {key}={json.dumps(value)}")]
        escaped = [word.replace("$", "\\$") for word in changes]
        docker = ["docker", "import", *escaped, "-", tag]
        subprocess.run(docker, stdin=tar.stdout, env=environ, check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(root)
    yield dataclasses.replace(small_image, image={"name": tag, "digest": ""})
    subprocess.run(["docker", "rmi", tag], env=environ, stdout=subprocess.DEVNULL)


def test_docker(docker_image: Entry, dockerd: Dockerd, tmp_path: Path) -> None:
    environ = {**os.environ, **dockerd.environment, **FOREIGN, "SLURM_JOB_ID": "7", "HOME": str(tmp_path)}
    settings = dataclasses.replace(Config().runtime, name="docker")
    command = runtime.run_argv(docker_image, SHOW, settings, cwd=tmp_path, environ=environ)
    done = subprocess.run(command.argv, env=dict(command.env), capture_output=True, text=True, timeout=60)
    cwd, uid, inside = json.loads(done.stdout)
    assert (cwd, uid) == (str(tmp_path), os.getuid())
    assert {key: inside[key] for key in ENV} == ENV
    assert inside["SLURM_JOB_ID"] == "7"
    assert not FOREIGN.keys() & inside.keys()


def test_docker_s_container_ends_with_a_launcher_that_was_killed(
    docker_image: Entry, dockerd: Dockerd, tmp_path: Path
) -> None:
    environ = {**os.environ, **dockerd.environment, "HOME": str(tmp_path)}
    (tmp_path / "entry.json").write_text(json.dumps(to_json(docker_image)))
    argv = json.dumps(["/bin/sh", "-c", "echo started; exec sleep 1234"])
    command = [sys.executable, RUN, str(tmp_path / "entry.json"), json.dumps({"name": "docker"}), argv]
    with subprocess.Popen(command, env=environ, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        process.kill()
    ps = ["docker", "ps", "--all", "--quiet", "--filter", "name=hpcbinder-"]
    end = time.monotonic() + 30
    while subprocess.run(ps, env=environ, capture_output=True, text=True, check=True).stdout and time.monotonic() < end:
        time.sleep(0.2)
    assert not subprocess.run(ps, env=environ, capture_output=True, text=True, check=True).stdout
