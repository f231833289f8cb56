"""A person's space in a folder of a group's, as centres have them: `/project/GROUP`, mode 2770. Two people are in the
group, with user ids of their own, and the second may rename and replace whatever lies in it.

The runtime here is a script that runs what it is told on this machine. It goes to a folder by its path, and shows that
one alone in the group's, as runtimes do, or all of it; test_space_in_images.py has a real one."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcbinder.runtime.launch.pinned import ELSEWHERE
from hpcbinder.runtime.launch.space import Space

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs two people")

ALICE, BOB, CHEM = 64731, 64732, 64733
"""No accounts have these numbers: they are made up for the processes of these tests."""
ENTRY = str(Path(__file__).with_name("space_entry.py"))
RUNTIME = """#!/bin/sh -eu
while [ "$1" != IMAGE ]; do
    [ "$1" != --pwd ] || folder=$2
    shift
done
shift
if [ -p {here}/told ]; then
    echo "$folder" >{here}/told
    read go <{here}/go
fi
if [ -e {here}/whole ]; then
    cd "$folder"
    exec "$@"
fi
exec unshare --user --map-current-user --keep-caps --mount /bin/sh -euc '
cd "$0"
mount -t tmpfs tmpfs {here}/chem
mkdir -p "$0"
mount --no-canonicalize --bind . "$0"
cd "$0"
exec "$@"
' "$folder" "$@"
"""


class Group:
    """A group's folder, an image that has a repository, and two members.

    Attributes:
        folder: The group's.
        mine: What the site's configuration makes of it for alice.
    """

    def __init__(self, place: Path, *, owner: int, mode: int = 0o2770) -> None:
        self.place = place
        self.home = place / "home"
        self.environ: dict[str, str] = {}
        self.home.mkdir()
        os.chown(self.home, ALICE, ALICE)
        self.folder = place / "chem"
        self.folder.mkdir()
        os.chown(self.folder, owner, CHEM)
        self.folder.chmod(mode)
        self.mine = self.folder / str(ALICE) / "binder"
        repository = place / "repository"
        (repository / "data").mkdir(parents=True)
        (repository / "fit.sh").write_text("echo as it was\n")
        (repository / "data/table.csv").write_text("1,2\n")
        for path in (repository / "fit.sh", repository / "data"):
            path.chmod(0o775)
        program = place / "apptainer"
        program.write_text(RUNTIME.format(here=place))
        program.chmod(0o755)
        self.description: dict[str, Any] = {
            "format": 1,
            "runtime": "apptainer",
            "program": str(program),
            "image": {"id": "i", "location": "IMAGE", "entrypoint": "", "env": {}, "mount_points": []},
            "argv": [],
            "env": {},
            "binds": [],
            "environment": [],
            "gpu": "none",
            "prologue": [],
        }
        self.space = Space(
            root=f"{self.folder}/{{user}}/binder",
            name="analysis",
            source="https://example.org/alice/analysis",
            commit="1" * 40,
            image="analysis-1",
            repository=str(repository),
            history=str(place / "commit.json"),
            origin="https://example.org/alice/analysis",
        )

    def alice(self, *command: str, umask: int = 0o007) -> subprocess.CompletedProcess[str]:
        return self._as(ALICE, *command, umask=umask)

    def bob(self, script: str, *words: str) -> None:
        done = self._as(BOB, "/bin/sh", "-eu", "-c", script, "bob", *words)
        assert done.returncode == 0, done.stderr

    def _as(self, who: int, *command: str, umask: int = 0o007) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, **self._kept(who, umask), capture_output=True, timeout=60)

    def _kept(self, who: int, umask: int) -> dict[str, Any]:
        environ = {"PATH": "/usr/bin:/bin", "HOME": str(self.home), "PYTHONPATH": str(Path(__file__).parents[2])}
        environ |= self.environ
        own = {"user": who, "group": who, "extra_groups": [CHEM], "umask": umask}
        return {"text": True, "cwd": "/", "env": environ, **own}

    def told(self, values: dict[str, Any]) -> tuple[str, ...]:
        file = self.place / f"what-{len(list(self.place.iterdir()))}.json"
        file.write_text(json.dumps(values))
        return sys.executable, "-B", ENTRY, str(file)

    def launch(self, *, fresh: bool = False, **changes: Any) -> subprocess.CompletedProcess[str]:
        space = dataclasses.asdict(dataclasses.replace(self.space, **changes))
        return self.alice(*self.told({"space": space, "description": self.description, "fresh": fresh}))

    def launched(self, **changes: Any) -> dict[str, Any]:
        done = self.launch(**changes)
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def started(self, answer: dict[str, Any], *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a command there, as a job does later, on another node."""
        return self.alice(*self.told({"argv": list(argv), "description": answer["description"]}))


@pytest.fixture
def place() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="hpcbinder-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def group(place: Path) -> Group:
    return Group(place, owner=0)


def modes(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_uid, stat.S_IMODE(about.st_mode) & 0o777


@pytest.mark.parametrize("owner", [0, BOB], ids=["root", "the group's head"])
def test_a_space_in_a_group_s_folder(place: Path, owner: int) -> None:
    group = Group(place, owner=owner)
    first = group.launched()
    copy = group.mine / "analysis"
    assert (first["folder"], first["made"]) == (str(copy), True)
    assert first["notices"][-1] == f"copied the repository to {copy}: it is yours, and kept"
    assert (copy / "data/table.csv").read_text() == "1,2\n"
    # The person's alone, whatever their umask lets a group do.
    assert modes(group.mine.parent) == modes(group.mine) == (ALICE, 0o700)
    assert [path for path in group.mine.rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o022] == []
    assert group.started(first, "sh", "fit.sh").stdout == "as it was\n"

    (copy / "fit.sh").write_text("echo mine\n")
    again = group.launched()
    assert (again["folder"], again["made"], again["notices"]) == (str(copy), False, [])
    assert group.started(again, "sh", "fit.sh").stdout == "mine\n"


def test_a_space_that_colleagues_may_look_at(group: Group) -> None:
    """Site or person made it so; nobody but the person may write."""
    group.alice("mkdir", "-p", str(group.mine))
    for mode in (0o2750, 0o755):
        group.mine.parent.chmod(mode)
        group.mine.chmod(mode)
        copy = Path(group.launched(name=f"of-{mode:o}")["folder"])
        assert modes(group.mine) == (ALICE, mode & 0o777)
        assert [path for path in copy.rglob("*") if path.stat().st_mode & 0o022] == []
        group.bob('cat "$1"; ! echo evil >>"$1"', str(copy / "fit.sh"))
        assert "evil" not in (copy / "fit.sh").read_text()


def test_lists_of_who_may_write_that_a_project_folder_hands_down(group: Group) -> None:
    """acl(5), default entries; setfacl's `d:g:chem:rwx`."""
    group.alice("mkdir", "-p", str(group.mine))
    group.mine.chmod(0o2750)
    try:
        os.setxattr(group.mine, "system.posix_acl_default", acl((1, 7, -1), (4, 7, -1), (16, 7, -1), (32, 0, -1)))
    except OSError as error:
        pytest.skip(f"this file system has no access control lists: {error}")
    copy = Path(group.launched()["folder"])
    assert [path for path in (copy, *copy.rglob("*")) if path.stat().st_mode & 0o022] == []


def acl(*entries: tuple[int, int, int]) -> bytes:
    """As Linux keeps them: version 2, then tag, permissions and id of each (linux/posix_acl_xattr.h)."""
    packed = (tag.to_bytes(2, "little") + may.to_bytes(2, "little") + b"\xff\xff\xff\xff" for tag, may, _ in entries)
    return (2).to_bytes(4, "little") + b"".join(packed)


def test_a_job_s_own_command_starts_where_it_was_submitted(group: Group) -> None:
    """dask-jobqueue's scripts hold one, and start in whatever folder the notebook was in."""
    answer = group.launched()
    copy, description = answer["folder"], answer["description"]
    own = group.home / "own"
    group.alice("mkdir", "-m", "700", str(own))
    ask = "import json, sys; from hpcbinder.runtime.launch.space import in_folder;"
    ask += "print(json.dumps(in_folder(json.loads(sys.argv[1]), sys.argv[2]).get('folder')))"

    def folder(cwd: Path | str) -> Any:
        return json.loads(group.alice(sys.executable, "-B", "-c", ask, json.dumps(description), str(cwd)).stdout)

    assert folder(copy) == description["folder"]
    numbers = {"inode": Path(copy, "data").stat().st_ino, "above": Path(copy).stat().st_ino}
    assert folder(f"{copy}/data") == {"path": f"{copy}/data", **numbers}
    assert folder(own) is None
    # Where somebody else may have put something it stays in the copy.
    assert folder(group.folder) == folder(f"{copy}/nowhere") == description["folder"]
    link = group.place / "project"
    link.symlink_to(group.folder)
    description["folder"]["path"] = copy.replace(str(group.folder), str(link))
    assert folder(f"{copy}/data")["path"] == f"{copy}/data"
    group.bob(SWAP, str(group.mine.parent), f"{copy}/data")
    assert folder(f"{copy}/data") == description["folder"]


SWAP = """
mv "$1" "$1.gone"
mkdir -p "$2"
chmod -R 777 "$1"
"""


def test_a_folder_that_is_swapped_while_it_is_copied_to_is_not_written_to(group: Group) -> None:
    for name in ("told", "go"):
        os.mkfifo(group.place / name)
        os.chown(group.place / name, ALICE, ALICE)
    space = dataclasses.asdict(group.space)
    command = group.told({"space": space, "description": group.description})
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, **group._kept(ALICE, 0o007)) as process:
        # The runtime has looked at nothing yet. Where it will go all can see: it stands in its arguments.
        room = (group.place / "told").read_text().strip()
        assert room.startswith(f"{group.mine}/.hpcbinder/new-")
        group.bob(SWAP + 'ln -s "$3" "$2/content"', str(group.mine.parent), room, str(group.home))
        (group.place / "go").write_text("go\n")
        _, said = process.communicate(timeout=60)
    assert process.returncode == 9
    assert f"{group.mine}/.hpcbinder is not seen inside the image" in said
    assert said.count("\n") == 1
    assert [path.name for path in group.home.iterdir()] == [".local"]
    assert [path.name for path in Path(room).iterdir()] == ["content"]
    gone = group.mine.parent.with_name(f"{ALICE}.gone")
    assert [path.name for path in gone.rglob("*")] == ["binder", ".hpcbinder", "lock"]


def test_nothing_is_started_in_a_folder_that_was_swapped(group: Group) -> None:
    answer = group.launched()
    copy, ran = Path(answer["folder"]), group.home / "ran"
    group.bob(SWAP + 'echo "touch $3" >"$2/fit.sh"', str(group.mine.parent), str(copy), str(ran))
    done = group.started(answer, "sh", "fit.sh")
    assert done.returncode == ELSEWHERE
    assert done.stderr.startswith(f"hpcbinder: nothing is started: what is seen inside is not {copy} ")
    assert not ran.exists()
    # Nor found by the next launch.
    done = group.launch()
    assert done.returncode == 9
    assert f"{group.mine} (space.folder) belongs to somebody else" in done.stderr
    # Back where it was it is what it was.
    group.bob('mv "$1" "$1.evil"; mv "$1.gone" "$1"', str(group.mine.parent))
    assert group.started(answer, "sh", "fit.sh").stdout == "as it was\n"


def test_where_all_of_the_group_s_folder_is_shown_it_must_be_one_whose_entries_stay(group: Group) -> None:
    """There others could move the copy while somebody works in it: a kernel that is started later goes by its path."""
    answer = group.launched()
    (group.place / "whole").touch()
    done = group.started(answer, "sh", "fit.sh")
    assert (done.returncode, done.stdout) == (ELSEWHERE, "")
    assert f"others can move {answer['folder']}, and what is above it is shown inside, too (chmod +t" in done.stderr
    # The copy itself is made without a path: that works.
    assert group.launched(fresh=True)["made"]
    group.folder.chmod(0o3770)
    assert group.started(group.launched(), "sh", "fit.sh").stdout == "as it was\n"


def test_a_folder_of_the_person_s_own_is_not_the_one_either(group: Group) -> None:
    answer = group.launched()
    other = group.home / "other" / "binder" / "analysis"
    group.alice("mkdir", "-p", str(other))
    (other / "fit.sh").write_text(f"touch {group.home}/ran\n")
    group.home.chmod(0o755)
    group.bob('mv "$1" "$1.gone"; ln -s "$2" "$1"', str(group.mine.parent), str(group.home / "other"))
    assert group.started(answer, "sh", "fit.sh").returncode == ELSEWHERE
    assert not (group.home / "ran").exists()


def test_another_folder_of_the_person_s_own_is_not_taken_for_the_root(group: Group) -> None:
    """A stranger's repository that was unpacked beside it, with a copy prepared in it."""
    first = group.launched()
    other = group.folder / "downloaded"
    group.alice("cp", "-R", str(group.mine.parent), str(other))
    group.alice("sh", "-c", 'echo "echo evil" >"$0"', str(other / "binder/analysis/fit.sh"))
    group.bob('mv "$1" "$1.gone"; mv "$2" "$1"', str(group.mine.parent), str(other))
    done = group.launch()
    assert done.returncode == 9
    assert f"{group.mine} (space.folder) is not the folder that it was" in done.stderr
    # The person's word counts.
    (note,) = (group.home / ".local/state/hpcbinder/spaces").iterdir()
    assert f"`rm {note}` takes it" in done.stderr
    note.unlink()
    assert group.launched()["notices"] == []
    group.bob('mv "$1" "$2"; mv "$1.gone" "$1"', str(group.mine.parent), str(other))
    assert group.launch().returncode == 9
    note.unlink()
    assert group.launched()["inode"] == first["inode"]
    # Who removes all of it is not asked; an empty folder has nothing prepared in it.
    group.mine.rename(group.mine.with_name("removed"))
    assert group.launched()["made"]
    # Where nobody can move it there is nothing to note.
    note.unlink()
    group.folder.chmod(0o3770)
    group.launched()
    assert not note.exists()


def test_that_is_noted_where_no_colleague_can_change_it(group: Group) -> None:
    group.environ["XDG_STATE_HOME"] = str(group.folder / "state")
    group.launched()
    assert len(list((group.home / ".local/state/hpcbinder/spaces").iterdir())) == 1
    assert not (group.folder / "state").exists()


@pytest.mark.parametrize("whose", [BOB, ALICE], ids=["a colleague's", "the person's own"])
def test_a_link_in_a_group_s_folder_leads_nowhere(group: Group, whose: int) -> None:
    """Whoever put it there: one of the person's own may have been moved there."""
    target = group.home / "bin"
    group.alice("mkdir", "-p", str(target / "binder"))
    (group.folder / str(ALICE)).symlink_to(target)
    os.chown(group.folder / str(ALICE), whose, CHEM, follow_symlinks=False)
    done = group.launch()
    assert done.returncode == 9
    why = "belongs to somebody else" if whose == BOB else "is a link, in a folder that others can write to"
    assert f"which would not stay yours: {group.folder}/{ALICE} {why}" in done.stderr
    assert list((target / "binder").iterdir()) == []


def test_what_a_colleague_has_made_there_first_is_not_taken(group: Group) -> None:
    for mode in ("2770", "777", "755"):
        group.bob('mkdir -m "$2" "$1"', str(group.mine.parent), mode)
        assert f"{group.mine.parent} belongs to somebody else" in group.launch().stderr
        assert list(group.mine.parent.iterdir()) == []
        group.bob('rmdir "$1"', str(group.mine.parent))
    group.alice("mkdir", "-p", str(group.mine))
    group.mine.chmod(0o2770)
    assert f"others can write to {group.mine} (chmod go-w)" in group.launch().stderr
    assert list(group.mine.iterdir()) == []


def test_where_everybody_or_strangers_may_write_no_space_is(place: Path) -> None:
    group = Group(place, owner=0, mode=0o2777)
    assert f"others can write to {group.folder} (chmod go-w)" in group.launch().stderr
    group.folder.chmod(0o2770)
    os.chown(group.folder, 0, BOB)
    group.folder.chmod(0o2775)
    assert f"others can write to {group.folder} (chmod go-w)" in group.launch().stderr
    assert list(group.folder.iterdir()) == []


def test_caches_lie_in_no_group_s_folder(group: Group) -> None:
    """IPython runs what it finds among them, and looks there by path."""
    answer = group.launched(caches=f"{group.folder}/{{user}}/caches")
    assert answer["caches"] == ""
    assert answer["notices"][0] == (
        f"caches stay on this node: {group.mine.parent}/caches (space.caches) cannot be used: "
        f"others can write to {group.folder} (chmod go-w)"
    )


def test_what_a_purge_took_is_put_back_where_a_link_leads_and_nowhere_else(group: Group) -> None:
    copy = Path(group.launched(purged_after=30)["folder"])
    moved = group.folder / "moved"
    group.alice("sh", "-c", 'mv "$0" "$1" && ln -s "$1" "$0"', str(copy), str(moved))
    record = group.mine / ".hpcbinder/analysis.json"

    def age() -> None:
        values = json.loads(record.read_text())
        values["files"] = {path: when - 40 * 86400 for path, when in values["files"].items()}
        record.write_text(json.dumps(values))

    age()
    (moved / "data/table.csv").unlink()
    back = group.launched(purged_after=30)
    assert back["folder"] == str(moved)
    assert (moved / "data/table.csv").read_text() == "1,2\n"
    assert group.started(back, "sh", "fit.sh").stdout == "as it was\n"

    age()
    other = group.home / "bin"
    group.alice("mkdir", str(other))
    group.bob('mv "$1" "$1.gone"; ln -s "$2" "$1"', str(moved), str(other))
    done = group.launch(purged_after=30)
    assert done.returncode == 9
    assert f"{copy} is a link to {moved}, which would not stay yours: {moved} belongs to somebody else" in done.stderr
    assert list(other.iterdir()) == []
