"""Folders that others could put something else in the place of, for a hub's servers and for a person's space."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcbinder.jupyterhub import filing, sent
from hpcbinder.runtime import OpenToOthersError, held
from hpcbinder.runtime.launch import private
from hpcbinder.runtime.launch.space.place import root_of, without_caches
from hpcbinder.runtime.launch.values import LaunchError

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to somebody else")


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that everybody may enter, as /scratch is; those of pytest's are its own."""
    folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="hpcbinder-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def others_at(path: str, *, groups: bool = False) -> str:
    """Who else may put something in a folder's place."""
    try:
        descriptor = held(path, groups=groups)
    except OpenToOthersError as error:
        return str(error)
    try:
        assert Path(f"/proc/self/fd/{descriptor}").stat().st_ino == Path(path).stat().st_ino
    finally:
        os.close(descriptor)
    return ""


def folder(path: Path, mode: int = 0o755) -> Path:
    path.mkdir()
    path.chmod(mode)
    return path


@pytest.mark.parametrize("groups", [False, True])
@pytest.mark.parametrize(("mode", "fine"), [(0o755, True), (0o1777, True), (0o777, False), (0o757, False)])
def test_a_folder_on_the_way_is_open_to_no_other_writers(shared: Path, mode: int, fine: bool, groups: bool) -> None:
    way = folder(shared / "way", mode)
    folder(way / "mine")
    assert others_at(f"{way}/mine", groups=groups) == ("" if fine else f"others can write to {way} (chmod go-w)")
    assert others_at(f"{way}/mine/../mine/", groups=groups) == others_at(f"{way}/mine", groups=groups)


@needs_root
def test_nor_to_a_group_but_a_person_s_own(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    way = folder(shared / "way", 0o775)
    os.chown(way, 0, NOBODY)
    mine = folder(way / "mine")
    # A group that the person is not in is none of theirs.
    for groups in (False, True):
        assert others_at(str(mine), groups=groups) == f"others can write to {way} (chmod go-w)"
    # Below a folder that nobody else enters it is nobody's way.
    shared.chmod(0o700)
    assert others_at(str(mine)) == ""
    shared.chmod(0o755)
    monkeypatch.setattr(private, "_own_group", lambda gid: gid == NOBODY)
    assert others_at(str(mine)) == ""


@needs_root
def test_a_folder_on_the_way_and_a_link_is_the_person_s_or_root_s(shared: Path) -> None:
    bobs = folder(shared / "alice")
    alices = folder(bobs / "servers")
    assert others_at(str(alices)) == ""
    os.chown(bobs, NOBODY, NOBODY)
    assert others_at(str(alices)) == f"{bobs} belongs to somebody else"

    mine = folder(shared / "mine")
    link = shared / "link"
    link.symlink_to(mine)
    folder(mine / "servers")
    assert others_at(f"{link}/servers") == ""
    os.chown(link, NOBODY, NOBODY, follow_symlinks=False)
    assert others_at(f"{link}/servers") == f"{link} belongs to somebody else"
    # And what a link of the person's own leads through.
    (shared / "second").symlink_to(f"{bobs}/servers")
    assert others_at(f"{shared}/second") == f"{bobs} belongs to somebody else"


def test_links_that_go_round_are_an_error(shared: Path) -> None:
    (shared / "a").symlink_to("b")
    (shared / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        held(f"{shared}/a")
    assert not descriptors_below(shared)


def test_what_is_above_a_home_is_the_site_s(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Homes of a group, which its members may write to.
    group = folder(shared / "group", 0o777)
    home = folder(group / "alice", 0o775)
    folder(home / "servers")
    assert others_at(f"{home}/servers") != ""
    monkeypatch.setattr(private.pwd, "getpwuid", lambda uid: Entry(str(home)))
    assert others_at(f"{home}/servers") == ""
    folder(home / "open", 0o777)
    folder(home / "open" / "servers")
    assert others_at(f"{home}/open/servers") == f"others can write to {home}/open (chmod go-w)"


class Entry:
    """Of an account, what counts here."""

    def __init__(self, home: str) -> None:
        self.pw_dir = home
        self.pw_name = "alice"
        self.pw_gid = NOBODY - 1
        self.gr_name = "alice"
        self.gr_mem: list[str] = []


@needs_root
def test_a_list_of_who_may_write_lets_others_into_a_person_s_own_group(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = folder(shared / "mine", 0o770)
    os.chown(mine, 0, NOBODY - 1)
    for name in ("pwd.getpwuid", "grp.getgrgid"):
        monkeypatch.setattr(f"{private.__name__}.{name}", lambda number: Entry("/root"))
    assert others_at(str(mine)) == ""
    let_in(mine, (1, 7, -1), (2, 7, NOBODY), (4, 7, -1), (16, 7, -1), (32, 0, -1))
    assert others_at(str(mine)) == f"others can write to {mine} (chmod go-w)"


def let_in(folder: Path, *entries: tuple[int, int, int]) -> None:
    """Give a folder a list of tag, permissions and id (acl(5)), as Linux keeps it: version 2, then those
    (linux/posix_acl_xattr.h)."""
    packed = b"".join(struct.pack("<HHI", tag, may, id_ & 0xFFFFFFFF) for tag, may, id_ in entries)
    try:
        os.setxattr(folder, "system.posix_acl_access", struct.pack("<I", 2) + packed)
    except OSError as error:
        pytest.skip(f"this file system has no access control lists: {error}")


@needs_root
@pytest.mark.parametrize("groups", [False, True])
def test_a_list_of_who_may_write_lets_others_into_a_folder_of_root_s_group(
    shared: Path, groups: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`setfacl -m g:chem:rwx` for a folder that is root:root."""
    monkeypatch.setattr(os, "getegid", lambda: NOBODY)
    monkeypatch.setattr(os, "getgroups", lambda: [NOBODY])
    way = folder(shared / "chem", 0o775)
    os.chown(way, 0, 0)
    mine = folder(way / "mine", 0o700)
    assert others_at(str(mine), groups=groups) == ""
    let_in(way, (1, 7, -1), (4, 5, -1), (8, 7, NOBODY), (16, 7, -1), (32, 5, -1))
    assert way.stat().st_mode & 0o777 == 0o775
    assert others_at(str(mine), groups=groups) == f"others can write to {way} (chmod go-w)"
    # Where the list's limit lets nobody write nobody does.
    way.chmod(0o755)
    assert others_at(str(mine), groups=groups) == ""


@needs_root
def test_whom_a_user_namespace_does_not_know_is_not_root_there(shared: Path) -> None:
    """All of them are one there, and the owner of `/` is one of them (user_namespaces(7))."""
    theirs = folder(shared / "theirs")
    mine = folder(theirs / "mine", 0o700)
    os.chown(mine, NOBODY - 1, NOBODY - 1)
    os.chown(theirs, NOBODY - 2, NOBODY - 2)
    script = f"import sys; sys.path.insert(0, {str(Path(private.__file__).parent)!r})\nimport private\n"
    script += (
        f"try: print('held', private.held({str(mine)!r}))\nexcept private.OpenToOthersError as error: print(error)"
    )
    command = ["unshare", "--user", "--map-current-user", sys.executable, "-I", "-S", "-c", script]
    who = {"user": NOBODY - 1, "group": NOBODY - 1, "extra_groups": []}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd="/", check=True, **who)  # type: ignore[call-overload]
    assert done.stdout == "/tmp belongs to somebody else\n"


@needs_root
@pytest.mark.parametrize("inside", [False, True], ids=["outside", "in a user namespace"])
def test_a_group_that_a_user_namespace_does_not_know_is_none_of_the_person_s(shared: Path, inside: bool) -> None:
    """The person's own groups have that one number there, and so have all others (user_namespaces(7))."""
    way = folder(shared / "way", 0o775)
    mine = folder(way / "mine", 0o700)
    for path, gid in ((shared, NOBODY - 1), (way, NOBODY - 2), (mine, NOBODY - 1)):
        os.chown(path, NOBODY - 1, gid)
    way.chmod(0o775)
    # In a root of its own: what is above belongs to whom a namespace does not know, either.
    script = f"import os, sys; sys.path.insert(0, {str(Path(private.__file__).parent)!r})\nimport private\n"
    script += f"os.chroot({str(shared)!r})\n" if inside else ""
    script += f"try: print('held', private.held({'/way/mine' if inside else str(mine)!r}, groups=True))\n"
    script += "except private.OpenToOthersError as error: print(error)"
    namespace = ["unshare", "--user", "--map-current-user", "--keep-caps"] if inside else []
    who = {"user": NOBODY - 1, "group": NOBODY - 1, "extra_groups": [NOBODY - 2]}
    command = [*namespace, sys.executable, "-I", "-S", "-c", script]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd="/", check=True, **who)  # type: ignore[call-overload]
    assert done.stdout.startswith("others can write to /way (chmod go-w)" if inside else "held ")


@pytest.mark.parametrize("path", ["/", "/usr", "/usr/bin"])
def test_a_system_s_own_folders_are_fine(path: str) -> None:
    assert others_at(path) == ""


def test_what_is_made_is_made_where_it_may_be(shared: Path) -> None:
    os.close(held(f"{shared}/a/b", make=True))
    assert (shared / "a/b").stat().st_mode & 0o777 == 0o755
    folder(shared / "open", 0o777)
    for groups in (False, True):
        with pytest.raises(OpenToOthersError):
            held(f"{shared}/open/more/mine", make=True, groups=groups)
    assert list((shared / "open").iterdir()) == []
    (shared / "file").touch()
    with pytest.raises(NotADirectoryError) as error:
        held(f"{shared}/file/x", make=True)
    assert error.value.filename == f"{shared}/file"
    with pytest.raises(FileNotFoundError):
        held(f"{shared}/nowhere")
    assert not descriptors_below(shared)


def descriptors_below(path: Path) -> list[str]:
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except OSError:  # closed by now, or another test's, too deep for a path
            continue
        if target.startswith(str(path)):
            found.append(target)
    return found


def asked(request: dict[str, Any]) -> dict[str, Any] | None:
    """A hub's program where nothing of hpcbinder is."""
    mark, told = sent.message("filing", request)
    command = [sys.executable, "-I", "-S", "-c", sent.RECEIVE]
    done = subprocess.run(command, input=told, stdout=subprocess.PIPE, cwd="/", check=True)
    return sent.answer(mark, done.stdout.decode())


def put(request: dict[str, Any]) -> dict[str, Any] | None:
    return filing._put(request)


@pytest.mark.parametrize("how", [put, asked])
def test_nothing_is_put_there(shared: Path, how: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    place = shared / "alice" / "servers"
    folder(shared / "alice", 0o777)
    request: dict[str, Any] = {"do": "put", "place": str(place), "server": "jupyter-x", "files": {"x.json": "a secret"}}
    with pytest.raises(Exception, match=r"no place for a server: others can write to \S+/alice \(chmod go-w\)"):
        how(request)
    assert not list(shared.rglob("alice/*"))
    (shared / "alice").chmod(0o755)
    answer = how(request)
    assert answer is not None
    assert Path(answer["folder"], "x.json").read_text() == "a secret"


def test_no_copy_is_kept_there(shared: Path) -> None:
    folder(shared / "alice", 0o777)
    with (
        pytest.raises(LaunchError, match="would not stay yours: others can write to"),
        root_of(f"{shared}/alice/binder"),
    ):
        pass
    (shared / "alice").chmod(0o755)
    mask = os.umask(0o002)
    try:
        with root_of(f"{shared}/alice/more/binder") as place:
            assert list(Path(place.at).iterdir()) == []
    finally:
        os.umask(mask)
    assert (shared / "alice/more").stat().st_mode & 0o777 == 0o755


def test_nor_caches(shared: Path) -> None:
    """IPython runs what it finds in its folder, which is there."""
    folder(shared / "all", 0o777)
    assert f"others can write to {shared}/all (chmod go-w)" in without_caches(f"{shared}/all/mine")[0]
    (shared / "all").chmod(0o1777)
    assert without_caches(f"{shared}/all") == without_caches(f"{shared}/all/mine") == ()
