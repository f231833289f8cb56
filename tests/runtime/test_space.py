"""A person's space on real folders. The runtime here is a script that runs what it is told on this machine, where a
folder stands for the image's repository; test_space_in_images.py has a real one."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from waiting import eventually

from hpcbinder.runtime.launch.space import Prepared, Space, lab_path, prepare, read_space
from hpcbinder.runtime.launch.space.templates import expand, variables
from hpcbinder.runtime.launch.values import LaunchError

ENTRY = str(Path(__file__).with_name("space_entry.py"))
DAY = 86400
RUNTIME = """#!/bin/sh
while [ "$1" != IMAGE ]; do
    if [ "$1" = --pwd ] && [ ! -e {here}/blind ]; then cd "$2"; fi
    shift
done
shift
if [ -e {here}/hang ]; then mkdir content; echo half >content/half; sleep 98765; fi
exec "$@"
"""


class Person:
    """Somebody with a home, and an image that has a repository."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir()
        self.repository = folder / "repository"
        (self.repository / "data").mkdir(parents=True)
        (self.repository / "fit.ipynb").write_text("{}")
        (self.repository / "data/table.csv").write_text("1,2\n")
        program = folder / "apptainer"
        program.write_text(RUNTIME.format(here=folder))
        program.chmod(0o755)
        self.root = self.home / "binder"
        self.description: dict[str, Any] = {
            "format": 1,
            "runtime": "apptainer",
            "program": str(program),
            "image": {"id": "i", "location": "IMAGE", "entrypoint": "/no/entrypoint", "env": {}, "mount_points": []},
            "argv": [],
            "env": {},
            "binds": [],
            "environment": [],
            "gpu": "auto",
            "prologue": [],
        }
        self.space = Space(
            root="{home}/binder",
            name="analysis",
            source="https://example.org/alice/analysis",
            commit="1" * 40,
            image="analysis-1",
            repository=str(self.repository),
            history=str(folder / "commit.json"),
            origin="https://example.org/alice/analysis",
        )
        self.environ = {**os.environ, "HOME": str(self.home)}

    def launch(self, *, fresh: bool = False, **changes: Any) -> Prepared:
        space = read_space(dataclasses.asdict(dataclasses.replace(self.space, **changes)))
        return prepare(space, self.description, environ=self.environ, fresh=fresh)

    def process(self) -> subprocess.Popen[str]:
        """The same in a process of its own."""
        what = self.folder / "what.json"
        what.write_text(json.dumps({"space": dataclasses.asdict(self.space), "description": self.description}))
        return subprocess.Popen(
            [sys.executable, ENTRY, str(what)],
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def left(self) -> list[str]:
        """What lies in the space but copies and records."""
        hidden = [path.name for path in (self.root / ".hpcbinder").iterdir() if path.suffix != ".json"]
        return [name for name in hidden if name != "lock"]

    def age(self, days: int) -> None:
        """Let the copies be as old as that."""
        for file in (self.root / ".hpcbinder").glob("*.json"):
            values = json.loads(file.read_text())
            values["files"] = {path: when - days * DAY if when > 0 else when for path, when in values["files"].items()}
            file.write_text(json.dumps(values))


def unnumbered(prepared: Prepared) -> Prepared:
    """The same without its folder's number, which is that of no other."""
    assert prepared.inode == Path(prepared.folder).stat().st_ino
    return dataclasses.replace(prepared, inode=0)


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path)


def test_the_first_launch_copies_and_later_ones_keep(person: Person) -> None:
    first = person.launch()
    copy = Path(first.folder)
    assert copy == person.root / "analysis"
    assert first.made
    assert f"copied the repository to {copy}: it is yours, and kept" in first.notices
    assert (copy / "data/table.csv").read_text() == "1,2\n"
    assert 'url = "https://example.org/alice/analysis"' in (copy / ".git/config").read_text()

    (copy / "fit.ipynb").write_text("mine")
    (copy / "data/table.csv").unlink()
    second = person.launch()
    assert unnumbered(second) == Prepared(str(copy))
    assert (copy / "fit.ipynb").read_text() == "mine"
    assert not (copy / "data/table.csv").exists()
    assert person.left() == []


def test_a_copy_can_be_written_to_whatever_the_image_says(person: Person) -> None:
    (person.repository / "data/table.csv").chmod(0o4544)
    (person.repository / "data").chmod(0o555)
    (person.repository / "link").symlink_to("/etc/hosts")
    (person.repository / "folder").symlink_to("/etc")
    (person.repository / "run.sh").touch(mode=0o755)
    os.mkfifo(person.repository / "pipe")
    (person.repository / ".git").mkdir()
    (person.repository / ".git/config").write_text("[core]\n\tfsmonitor = /evil\n")
    prepared = person.launch()
    copy = Path(prepared.folder)
    assert stat.S_IMODE((copy / "data").stat().st_mode) & 0o700 == 0o700
    assert stat.S_IMODE((copy / "data/table.csv").stat().st_mode) & 0o7600 == 0o600
    assert os.access(copy / "run.sh", os.X_OK)
    assert (copy / "link").readlink() == Path("/etc/hosts")
    assert (copy / "folder").readlink() == Path("/etc")
    assert not (copy / "pipe").exists()
    assert "evil" not in (copy / ".git/config").read_text()
    assert "1 pipes or devices of the repository were left out" in prepared.notices
    assert person.left() == []


@pytest.mark.parametrize("subdir", ["", "part"])
def test_no_git_of_the_image_comes_along_from_whatever_folder(person: Person, subdir: str) -> None:
    ran = person.folder / "ran"
    settings = f"[core]\n\trepositoryformatversion = 0\n\tfsmonitor = touch {ran}; false\n"
    for place in (".git", "sub/.git", "deep/er/.GIT", "deep/er/.GIT/modules/.git"):
        for name in ("objects", "refs"):
            (person.repository / place / name).mkdir(parents=True)
        (person.repository / place / "HEAD").write_text("ref: refs/heads/main\n")
        (person.repository / place / "config").write_text(settings)
    (person.repository / "data/.git").write_text("gitdir: ../sub/.git\n")
    (person.repository / "link").mkdir()
    (person.repository / "link/.git").symlink_to("../sub/.git")
    (person.repository / "sub/.gitignore").write_text("*.pyc\n")
    (person.repository / "sub/.git").chmod(0o555)
    prepared = person.launch(subdir=subdir)
    copy = Path(prepared.folder)
    top = person.root / "analysis"
    assert [path for path in top.rglob("*") if path.name.lower() == ".git"] == [top / ".git"]
    assert (copy / "sub/.gitignore").read_text() == "*.pyc\n"
    assert str(ran) not in (top / ".git/config").read_text()
    for folder in ("", "sub", "data", "link", "deep/er"):
        subprocess.run(["git", "status"], cwd=copy / folder, env=person.environ, stdout=subprocess.DEVNULL, check=True)
    assert not ran.exists()
    assert any("the image has a .git of its own, which was left out: " in notice for notice in prepared.notices)
    assert person.left() == []


def test_a_copy_that_is_a_link_to_the_person_s_files_is_none(person: Person) -> None:
    """An image's cp may do anything to the folder it is told to copy to."""
    private = person.home / "private"
    private.mkdir(mode=0o700)
    (private / "key").touch(mode=0o400)
    program = person.folder / "apptainer"
    there = 'while [ $# -gt 0 ]; do [ "$1" != --pwd ] || cd "$2"; shift; done'
    program.write_text(f"#!/bin/sh\n{there}\nln -s {private} content\n")
    with pytest.raises(LaunchError, match="made no folder"):
        person.launch()
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert stat.S_IMODE((private / "key").stat().st_mode) == 0o400
    assert person.left() == []


def test_a_fresh_copy_lies_beside_the_one_that_stays(person: Person) -> None:
    old = Path(person.launch().folder)
    (old / "fit.ipynb").write_text("mine")
    new = person.launch(fresh=True)
    assert new.folder == f"{old}-2"
    assert f"{old}-2 is a fresh copy; {old} stays as it is" in new.notices
    assert (Path(new.folder) / "fit.ipynb").read_text() == "{}"
    assert (old / "fit.ipynb").read_text() == "mine"
    assert unnumbered(person.launch()) == Prepared(new.folder)
    assert person.launch(fresh=True).folder == f"{old}-3"

    (person.root / "analysis-3").rename(person.root / "my own name")
    back = person.launch()
    assert back.folder == new.folder
    assert back.notices == (f"{old}-3 is no longer there: this is the copy from before it",)
    assert unnumbered(person.launch()) == Prepared(new.folder)


def test_an_image_of_another_commit_leaves_the_copy_alone(person: Person) -> None:
    copy = Path(person.launch().folder)
    (person.repository / "fit.ipynb").write_text("newer")
    later = person.launch(commit="2" * 40, image="analysis-2")
    assert later.folder == str(copy)
    assert (copy / "fit.ipynb").read_text() == "{}"
    assert later.notices == (
        f"{copy} was made of commit {'1' * 12}, and stays as it is; the image is of {'2' * 12}: `git pull` brings the "
        "files to it, a fresh copy has them",
    )
    assert person.launch(commit="2" * 40, image="analysis-2", ref="v2", name="analysis-v2").made


def test_a_name_that_something_else_has(person: Person) -> None:
    first = person.launch()
    bob = "https://example.org/bob/analysis"
    other = person.launch(source=bob, origin=bob)
    assert other.made
    assert Path(other.folder).name.startswith("analysis-")
    assert other.folder != first.folder
    assert unnumbered(person.launch(source=bob, origin=bob)) == Prepared(other.folder)
    assert person.launch(ref="another").folder not in (first.folder, other.folder)
    assert unnumbered(person.launch()) == Prepared(first.folder)
    (person.root / "thing").write_text("a file")
    (person.root / "gone").symlink_to("/nowhere")
    for name in ("thing", "gone"):
        folder = Path(person.launch(source=name, name=name).folder)
        assert folder.name.startswith(f"{name}-")
        assert not folder.is_symlink()
    assert (person.root / "thing").read_text() == "a file"


def test_a_clone_of_the_person_s_is_taken(person: Person) -> None:
    clone = person.root / "analysis"
    clone.mkdir(parents=True)
    subprocess.run(["git", "init", "--quiet", str(clone)], check=True)
    subprocess.run(["git", "remote", "add", "origin", person.space.origin], cwd=clone, check=True)
    (clone / "mine").touch()
    prepared = person.launch()
    assert prepared.folder == str(clone)
    assert prepared.notices == (f"{clone} is a clone of the repository already: it stays as it is",)
    assert sorted(path.name for path in clone.iterdir()) == [".git", "mine"]
    assert unnumbered(person.launch()) == Prepared(str(clone))


def test_a_link_of_the_person_s_own_is_followed(person: Person) -> None:
    copy = Path(person.launch().folder)
    copy.rename(person.folder / "elsewhere")
    copy.symlink_to(person.folder / "elsewhere")
    assert unnumbered(person.launch()) == Prepared(str(person.folder / "elsewhere"))


def test_two_launches_at_once_get_the_same_copy(person: Person) -> None:
    for number in range(300):
        (person.repository / f"{number}.txt").write_text("x" * 1000)
    processes = [person.process() for _ in range(3)]
    answers = [json.loads(process.communicate(timeout=60)[0]) for process in processes]
    assert {answer["folder"] for answer in answers} == {str(person.root / "analysis")}
    assert sorted(answer["made"] for answer in answers) == [False, False, True]
    assert sorted(path.name for path in person.root.iterdir()) == [".hpcbinder", "analysis"]
    assert person.left() == []


def test_a_launch_that_is_killed_leaves_nothing_half(person: Person) -> None:
    (person.folder / "hang").touch()
    with person.process() as process:
        assert eventually(lambda: any(person.root.glob(".hpcbinder/new-*/content/half")))
        process.send_signal(signal.SIGKILL)
    assert not (person.root / "analysis").exists()
    (person.folder / "hang").unlink()
    prepared = person.launch()  # waits until nothing of the other is left: it has the lock
    assert prepared.made
    assert not (Path(prepared.folder) / "half").exists()
    assert person.left() == []
    assert "sleep\0" + "98765" not in running()


def running() -> str:
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(file.read_text(errors="replace"))
        except OSError:
            pass
    return "\n".join(lines)


def test_a_copy_that_fails_leaves_nothing(person: Person) -> None:
    with pytest.raises(LaunchError, match="the image has no folder /nowhere"):
        person.launch(repository="/nowhere")
    (person.folder / "blind").touch()
    before = sorted(Path().iterdir())
    with pytest.raises(LaunchError, match=r"is not seen inside the image: add it to runtime\.binds"):
        person.launch()
    assert sorted(Path().iterdir()) == before
    (person.folder / "apptainer").write_text("#!/bin/sh\necho 'FATAL: no \033[31m luck' >&2\nexit 255\n")
    with pytest.raises(LaunchError, match=r"cannot copy the repository out of the image: FATAL: no \?\[31m luck$"):
        person.launch()
    assert person.left() == []
    assert [path.name for path in person.root.iterdir()] == [".hpcbinder"]


def test_what_a_purge_took_comes_back_and_what_the_person_took_does_not(person: Person) -> None:
    (person.repository / "old.txt").write_text("old")
    copy = Path(person.launch(purged_after=30).folder)
    (copy / "fit.ipynb").write_text("mine")
    (copy / "old.txt").unlink()  # on the first day: no purge did that
    assert person.launch(purged_after=30).notices == ()
    person.age(40)
    (copy / "data/table.csv").unlink()
    (copy / "data").rmdir()
    (copy / ".git/HEAD").unlink()
    back = person.launch(purged_after=30)
    assert (copy / "data/table.csv").read_text() == "1,2\n"
    assert (copy / ".git/HEAD").exists()
    assert (copy / "fit.ipynb").read_text() == "mine"
    assert not (copy / "old.txt").exists()
    [notice] = back.notices[-1:]
    assert notice.startswith(f"restored from the image: 2 files of {copy} (")
    assert "data/table.csv" in notice
    assert person.launch(purged_after=30).notices == ()
    assert person.left() == []


def test_a_copy_of_which_a_purge_left_nothing_but_folders(person: Person) -> None:
    """What was known of it is gone, too: nobody launched anything for so long."""
    (person.repository / "link").symlink_to("fit.ipynb")
    copy = Path(person.launch(purged_after=30).folder)
    for file in person.root.rglob("*"):
        if file.is_symlink() or not file.is_dir():
            file.unlink()
    assert (copy / "data").is_dir()
    back = person.launch(purged_after=30)
    assert back.folder == str(copy)
    assert (copy / "data/table.csv").read_text() == "1,2\n"
    # A single file that is left, were it a link to nowhere, is the person's.
    for file in (person.root / ".hpcbinder").glob("*.json"):
        file.unlink()
    for file in copy.rglob("*"):
        if not file.is_symlink() and not file.is_dir():
            file.unlink()
    beside = person.launch(purged_after=30)
    assert beside.folder != str(copy)
    assert (copy / "link").is_symlink()
    assert (copy / "data").is_dir()


def test_nothing_comes_back_where_nothing_is_purged_or_of_another_image(person: Person) -> None:
    copy = Path(person.launch(purged_after=30).folder)
    person.age(40)
    (copy / "fit.ipynb").unlink()
    assert person.launch().notices == ()
    other = person.launch(purged_after=30, image="analysis-2")
    assert not (copy / "fit.ipynb").exists()
    assert "1 files of" in other.notices[-1]


def test_nothing_comes_back_behind_a_link(person: Person) -> None:
    copy = Path(person.launch(purged_after=30).folder)
    person.age(40)
    (copy / "data/table.csv").unlink()
    (copy / "data").rmdir()
    (person.folder / "elsewhere").mkdir()
    (copy / "data").symlink_to(person.folder / "elsewhere")
    person.launch(purged_after=30)
    assert list((person.folder / "elsewhere").iterdir()) == []


def test_a_copy_that_is_gone_comes_back(person: Person) -> None:
    copy = Path(person.launch().folder)
    copy.rename(person.folder / "moved")
    prepared = person.launch()
    assert prepared.folder == str(copy)
    assert f"{copy} was no longer there: copied again from the image" in prepared.notices
    assert (copy / "fit.ipynb").exists()


def test_a_part_of_a_repository_is_at_its_place(person: Person) -> None:
    prepared = person.launch(subdir="examples/fit")
    assert prepared.folder == str(person.root / "analysis/examples/fit")
    assert (person.root / "analysis/.git/HEAD").exists()
    assert (Path(prepared.folder) / "fit.ipynb").exists()
    assert person.launch(subdir="examples/fit").folder == prepared.folder
    with pytest.raises(LaunchError, match="not a folder of a repository"):
        person.launch(subdir="../up")


def test_what_is_no_git_repository_gets_none(person: Person) -> None:
    copy = Path(person.launch(origin="", source="doi:10.5281/zenodo.1").folder)
    assert not (copy / ".git").exists()
    assert (copy / "fit.ipynb").exists()


def test_records_that_say_nothing_are_no_records(person: Person) -> None:
    copy = Path(person.launch(origin="").folder)
    (copy / "fit.ipynb").write_text("mine")
    record = person.root / ".hpcbinder/analysis.json"
    for text in ("", "{", "[]", '{"format": 1}', '{"format": 1, "name": "analysis", "key": 3}', "[" * 100_000):
        record.write_text(text)
        other = person.launch(origin="")
        assert other.folder != str(copy)
        subprocess.run(["rm", "-rf", other.folder, f"{record.parent}/{Path(other.folder).name}.json"], check=True)
    assert (copy / "fit.ipynb").read_text() == "mine"


def test_a_place_that_is_not_the_person_s(person: Person) -> None:
    person.root.mkdir()
    (person.root / ".hpcbinder").symlink_to(person.folder)
    with pytest.raises(LaunchError, match="is not a folder of yours"):
        person.launch()
    with pytest.raises(LaunchError, match=r"\(space\.folder\)"):
        person.launch(root="/proc/nothing")
    with pytest.raises(LaunchError, match="not a name for a folder"):
        person.launch(name="../x", root="{home}/other")


def test_caches_go_where_the_site_says(person: Person) -> None:
    person.environ["LOCAL"] = str(person.folder / "local")
    prepared = person.launch(caches="$LOCAL/{user}")
    assert Path(prepared.caches).parent == person.folder / "local"
    described = prepared.described(person.description)
    assert described["env"] == {"HPCBINDER_TMPDIR": prepared.caches}
    assert described["binds"] == [prepared.caches]
    (person.folder / "full").touch()
    without = person.launch(caches=str(person.folder / "full/x"))
    assert without.caches == ""
    assert "(space.caches) cannot be used: Not a directory" in without.notices[0]
    plain = person.launch()
    folder = {"path": plain.folder, "inode": plain.inode, "above": 0}
    assert plain.described(person.description) == {**person.description, "folder": folder}


def test_a_variable_may_come_from_the_site_s_prologue(person: Person) -> None:
    person.description["prologue"] = [f"export SCRATCH={person.folder}/scratch"]
    assert person.launch(root="$SCRATCH/x").folder == str(person.folder / "scratch/x/analysis")
    with pytest.raises(LaunchError, match="needs the variable NOT_SET_ANYWHERE"):
        person.launch(root="${NOT_SET_ANYWHERE}/x")


def test_folders_of_whoever_it_is() -> None:
    environ = {"HOME": "/home/al", "SCRATCH": "/scratch/al", "BAD": "/a:b", "UP": "/x/../../y", "EMPTY": ""}
    assert expand("{home}/binder", environ) == "/home/al/binder"
    assert expand("~/x//y/", environ) == "/home/al/x/y"
    assert expand("$SCRATCH", environ) == "/scratch/al"
    assert expand("/p/${SCRATCH}_x", environ) == "/p/scratch/al_x"
    assert "{" not in expand("/project/{user}/x", environ)
    assert variables("$A/{home}/${B}") == ("A", "B")
    for bad in ("relative", "{other}/x", "$", "${}/x", "$(id)/x", "{home", "$BAD", "$UP", "$EMPTY/x", "/", "{user}/x"):
        with pytest.raises(LaunchError):
            expand(bad, environ)


def test_what_is_no_space() -> None:
    good = dataclasses.asdict(Space("~/x", "n", "s"))
    assert read_space(good) == Space("~/x", "n", "s")
    for bad in ({}, {**good, "other": 1}, {**good, "name": 3}, {**good, "name": "a\0"}, {**good, "purged_after": -1}):
        with pytest.raises(LaunchError):
            read_space(bad)


def test_where_jupyterlab_opens() -> None:
    assert lab_path() == "/lab"
    assert lab_path("a b/ü?#.ipynb") == "/lab/tree/a%20b/%C3%BC%3F%23.ipynb"
    for bad in ("/etc/passwd", "../x", "a/../../x", "a//b", "a\nb", "a/"):
        with pytest.raises(LaunchError):
            lab_path(bad)
