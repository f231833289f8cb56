"""A person's space out of a real image, as an ordinary user: Apptainer, Charliecloud, `hpcbinder run --space`."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcbinder import runtime
from hpcbinder.catalog import Catalog
from hpcbinder.config import Config
from hpcbinder.model import Commit, Entry
from hpcbinder.plan import commit_text
from hpcbinder.runtime.launch.space import Space
from rig import Apptainer, Charliecloud, Slurm, User

ENTRY = str(Path(__file__).with_name("space_entry.py"))


class Person:
    """An ordinary user with an image, and an origin that its content comes from."""

    def __init__(self, user: User, path: Path, name: str, image: Entry) -> None:
        self.user = user
        self.environ = {"PATH": f"{path.parent}:/usr/bin:/bin"}
        settings = dataclasses.replace(Config().runtime, name=name)
        self.description = runtime.describe(image, settings, environ={**os.environ, **self.environ})
        self.image = image
        self.root = user.home / "binder"
        self.space = Space(
            root="{home}/binder",
            name="small",
            source="x",
            image=image.id,
            # The image has none: here one lies in the home, which Charliecloud shows at a place of its own.
            history=f"/home/{user.name}/commit.json" if name == "charliecloud" else str(user.home / "commit.json"),
        )

    def launch(self, *, check: bool = True, **changes: Any) -> subprocess.CompletedProcess[str]:
        space = dataclasses.asdict(dataclasses.replace(self.space, **changes))
        file = self.user.home / "what.json"
        file.write_text(json.dumps({"space": space, "description": self.description}))
        self.user.own(file)
        return self.user.run([sys.executable, "-B", ENTRY, file], env=self.environ, check=check, timeout=120)

    def start(self, answer: dict[str, Any], *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the copy, as a job does later."""
        file = self.user.home / "start.json"
        file.write_text(json.dumps({"argv": argv, "description": answer["description"]}))
        self.user.own(file)
        return self.user.run([sys.executable, "-B", ENTRY, file], env=self.environ, check=False, timeout=120)


@pytest.fixture(params=["apptainer", "charliecloud"])
def person(request: pytest.FixtureRequest, user: User, small_image: Entry) -> Person:
    part: Apptainer | Charliecloud = request.getfixturevalue(request.param)
    return Person(user, part.path, request.param, small_image)


@pytest.fixture
def origin(user: User) -> Iterator[Commit]:
    """A bare repository with what is in the image, in the user's home."""
    work = user.home.parent / "work"
    work.mkdir()
    (work / "notebook.ipynb").write_text("{}\n")
    (work / "a line\nend").write_text("x\n")

    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=A", "-c", "user.email=a@example.org", *arguments]
        return subprocess.run(command, cwd=work, check=True, capture_output=True, text=True).stdout

    git("init", "--quiet", "--initial-branch=main")
    git("add", "--all")
    git("commit", "--quiet", "--message", "all of it")
    git("clone", "--quiet", "--bare", ".", str(user.home / "origin.git"))
    listed = git("ls-files", "--stage", "-z").split("\0")[:-1]
    files = tuple((*line.split("\t")[0].split()[:2], line.split("\t", 1)[1]) for line in listed)
    commit = Commit(git("rev-parse", "HEAD").strip(), git("cat-file", "commit", "HEAD"), "main", files)  # type: ignore[arg-type]
    (user.home / "commit.json").write_text(commit_text(commit))
    user.own(user.home / "origin.git", user.home / "commit.json")
    shutil.rmtree(work)
    yield commit


def test_a_copy_out_of_an_image_is_a_repository_to_work_in(person: Person, origin: Commit) -> None:
    url = f"file://{person.user.home}/origin.git"
    first = json.loads(person.launch(origin=url, commit=origin.id).stdout)
    copy = Path(first["folder"])
    assert first["notices"] == [f"copied the repository to {copy}: it is yours, and kept"]
    assert sorted(path.name for path in copy.iterdir()) == [".git", "a line\nend", "notebook.ipynb"]
    assert {path.stat().st_uid for path in copy.rglob("*")} == {person.user.uid}

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        return person.user.run(["git", *identity, *arguments], cwd=copy).stdout

    assert git("status", "--porcelain", "--branch") == "## main...origin/main\n"
    (copy / "notebook.ipynb").write_text('{"cells": []}\n')
    assert git("status", "--porcelain") == " M notebook.ipynb\n"
    git("commit", "--quiet", "--all", "--message", "mine")
    git("push", "--quiet")
    assert git("-C", str(person.user.home / "origin.git"), "log", "--format=%s") == "mine\nall of it\n"
    again = json.loads(person.launch(origin=url, commit=origin.id).stdout)
    assert (again["folder"], again["made"], again["notices"]) == (str(copy), False, [])
    assert not list(person.root.glob(".hpcbinder/new-*"))


def test_a_disk_that_is_full(user: User, apptainer: Apptainer, small_image: Entry) -> None:
    person = Person(user, apptainer.path, "apptainer", small_image)
    disk = user.home / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size=1m,uid={user.uid},mode=700", "tmpfs", disk], check=True)
    try:
        done = person.launch(root=str(disk), repository="/usr/lib", check=False)
        assert done.returncode == 9
        assert done.stderr.startswith("cannot copy the repository out of the image: ")
        assert "No space left on device" in done.stderr
        assert done.stderr.count("\n") == 1
        assert [path.name for path in disk.rglob("*")] == [".hpcbinder", "lock"]
        assert json.loads(person.launch(root=str(disk)).stdout)["made"]
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_somebody_else_s_folder(user: User, apptainer: Apptainer, small_image: Entry) -> None:
    person = Person(user, apptainer.path, "apptainer", small_image)
    theirs = user.home.parent / "theirs"
    theirs.mkdir(mode=0o777, exist_ok=True)
    theirs.chmod(0o777)
    done = person.launch(root=str(theirs), check=False)
    assert done.stderr == f"{theirs} (space.folder) belongs to somebody else: a site has {{user}} in it\n"
    mine = theirs / "mine"
    done = person.launch(root=str(mine), check=False)
    assert f"which would not stay yours: others can write to {theirs} (chmod go-w)" in done.stderr
    theirs.chmod(0o1777)
    person.launch(root=str(mine))
    # In a folder that everybody can write to, a link by somebody else leads nowhere.
    (mine / "planted").symlink_to(user.home)
    done = person.launch(root=str(mine), name="planted", source="y")
    assert Path(json.loads(done.stdout)["folder"]).name.startswith("planted-")
    shutil.rmtree(theirs)


def test_nothing_starts_in_a_group_s_folder_but_where_it_is_to(person: Person) -> None:
    """A colleague moves folders between two looks at their paths: the launcher's, and the runtime's."""
    user = person.user
    group = user.home.parent / "chem"
    group.mkdir()
    os.chown(group, 1, user.uid)  # of the head of the group
    group.chmod(0o2770)
    try:
        first = json.loads(person.launch(root=f"{group}/{{user}}/binder").stdout)
        copy = Path(first["folder"])
        assert copy == group / user.name / "binder/small"
        assert person.start(first, "pwd", "-P").returncode == 0
        assert person.start(first, "cat", "notebook.ipynb").stdout == "{}\n"
        whole = {"description": {**first["description"], "binds": [str(group)]}}
        done = person.start(whole, "cat", "notebook.ipynb")
        assert (done.returncode, done.stdout) == (96, "")
        assert f"others can move {copy}, and what is above it is shown inside, too" in done.stderr
        (group / user.name).rename(group / "gone")
        copy.mkdir(parents=True)
        (copy / "notebook.ipynb").write_text("evil")
        for path in (copy.parent.parent, copy.parent, copy):
            path.chmod(0o777)
        done = person.start(first, "cat", "notebook.ipynb")
        assert (done.returncode, done.stdout) == (96, "")
        assert f"nothing is started: what is seen inside is not {copy}" in done.stderr
        (group / user.name).rename(group / "evil")
        (group / "gone").rename(group / user.name)
        assert person.start(first, "cat", "notebook.ipynb").stdout == "{}\n"
    finally:
        shutil.rmtree(group)


def test_what_looks_where_it_is_runs_nothing_that_lies_there(person: Person) -> None:
    """Nor is it loaded from there: an empty element of PATH is the working directory."""
    first = json.loads(person.launch().stdout)
    copy = Path(first["folder"])
    planted = copy / "ls"
    planted.write_text('#!/bin/sh\necho planted\nexec /bin/ls "$@"\n')
    planted.chmod(0o755)
    described = first["description"]
    told = {"PATH": f":.:{described['image']['env'].get('PATH', '/usr/bin:/bin')}:", "LD_LIBRARY_PATH": "/nowhere:"}
    described["env"] = {**described["env"], **told}
    done = person.start(first, "/bin/sh", "-c", 'ls notebook.ipynb; echo "$PATH:$LD_LIBRARY_PATH"')
    assert done.returncode == 0, done.stderr
    *files, searched = done.stdout.splitlines()
    assert (files, done.stderr) == (["notebook.ipynb"], "")
    assert all(element.startswith("/") for element in searched.split(":"))


def test_a_copy_that_was_moved_to_another_disk(person: Person) -> None:
    """A link is in its place, and the home is not all that is shown."""
    moved = person.user.home.parent / "moved"
    moved.mkdir()
    person.user.own(moved)
    try:
        copy = Path(json.loads(person.launch().stdout)["folder"])
        copy.rename(moved / "small")
        copy.symlink_to(moved / "small")
        os.chown(copy, person.user.uid, person.user.uid, follow_symlinks=False)
        again = json.loads(person.launch().stdout)
        assert (again["folder"], again["made"], again["notices"]) == (str(moved / "small"), False, [])
        assert person.start(again, "cat", "notebook.ipynb").stdout == "{}\n"
    finally:
        shutil.rmtree(moved)


class AtTheTerminal:
    """Somebody with a store."""

    def __init__(self, user: User, apptainer: Apptainer, image: Entry, env: dict[str, str]) -> None:
        self.user = user
        self.environ = {**env, "PATH": f"{apptainer.bin}:/usr/bin:/bin"}
        self.store = user.home / "store"
        catalog = Catalog(self.store)
        with catalog.temporary() as place:
            folder = place / "image"
            folder.mkdir()
            shutil.copy(image.formats["squashfs"], folder / "image.squashfs")
            catalog.add(dataclasses.replace(image, formats={"squashfs": "image.squashfs"}), folder)
        user.own(self.store)

    def run(self, *arguments: str, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-B", "-m", "hpcbinder", "--store", str(self.store), "run", *arguments]
        return self.user.run(command, env={**self.environ, **env}, check=check, timeout=120)


def test_hpcbinder_run_in_a_space(user: User, apptainer: Apptainer, small_image: Entry) -> None:
    terminal = AtTheTerminal(user, apptainer, small_image, {})
    copy = user.home / "binder/small"
    first = terminal.run("--space", "--open", "notebook.ipynb", "small")
    words = ["--no-browser", "--ServerApp.ip=127.0.0.1", "--LabApp.default_url=/lab/tree/notebook.ipynb"]
    assert first.stdout.splitlines() == [str(copy), *words]
    assert f"hpcbinder: copied the repository to {copy}: it is yours, and kept" in first.stderr
    assert "git fetch origin && git reset 8c1f0a2" in first.stderr
    (copy / "notebook.ipynb").write_text("mine")
    assert terminal.run("--space", "small", "--", "cat", "notebook.ipynb").stdout == "mine"
    scratch = user.home / "scratch"
    caches = {"HPCBINDER_SPACE_CACHES": "$SCRATCH/c", "HPCBINDER_SPACE_FOLDER": "$SCRATCH/s", "SCRATCH": str(scratch)}
    shown = terminal.run("--space", "small", "--", "sh", "-c", "pwd; echo $HPCBINDER_TMPDIR", **caches)
    assert shown.stdout.split() == [str(scratch / "s/small"), str(scratch / "c")]
    fresh = terminal.run("--space", "--fresh", "small", "--", "sh", "-c", "pwd; cat notebook.ipynb")
    assert fresh.stdout.splitlines() == [f"{copy}-2", "{}"]
    assert terminal.run("--space", "small", "--", "sh", "-c", "pwd").stdout == f"{copy}-2\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fresh", "small"], "--fresh is about your copy"),
        (["--open", "x", "small"], "--open is about your copy"),
        (["--space", "--open", "x", "small", "--", "true"], "--open says what JupyterLab shows"),
        (["--space", "--mpi-check", "small"], "--space is for JupyterLab"),
    ],
)
def test_options_that_do_not_go_together(arguments: list[str], message: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hpcbinder", "--store", str(tmp_path), "run", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_job_in_a_space(user: User, apptainer: Apptainer, slurm: Slurm, small_image: Entry) -> None:
    user.knows(slurm.hosts)
    terminal = AtTheTerminal(user, apptainer, small_image, dict(slurm.environment))
    done = terminal.run(
        "--space", "--on", "slurm", "small", "--", "sh", "-c", "pwd; touch made; echo $SLURM_JOB_NAME $SLURM_SUBMIT_DIR"
    )
    lines = done.stdout.splitlines()
    assert lines[0] == str(user.home / "binder/small")
    assert lines[1].startswith("hpcbinder-small")
    # What starts the task went to no folder by its path.
    assert lines[1].endswith(" /")
    assert (user.home / "binder/small/made").exists()
