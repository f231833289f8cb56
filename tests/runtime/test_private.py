"""Folders that others could put something else in the place of, for a hub's servers and for a person's space."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcbinder.jupyterhub import filing
from hpcbinder.runtime.launch import private, space
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


@pytest.fixture(params=[private.others_at, filing._others_at])
def others_at(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """One runs where the other's file is not."""
    found: Callable[[str], str] = request.param
    return found


def folder(path: Path, mode: int = 0o755) -> Path:
    path.mkdir()
    path.chmod(mode)
    return path


@pytest.mark.parametrize(("mode", "fine"), [(0o755, True), (0o1777, True), (0o777, False), (0o757, False)])
def test_a_folder_on_the_way_is_open_to_no_other_writers(
    shared: Path, others_at: Callable[[str], str], mode: int, fine: bool
) -> None:
    way = folder(shared / "way", mode)
    folder(way / "mine")
    assert others_at(f"{way}/mine") == ("" if fine else f"others can write to {way} (chmod go-w)")
    assert others_at(f"{way}/mine/../mine/") == others_at(f"{way}/mine")


@needs_root
def test_nor_to_a_group_but_a_person_s_own(
    shared: Path, others_at: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    way = folder(shared / "way", 0o775)
    os.chown(way, 0, NOBODY)
    mine = folder(way / "mine")
    assert others_at(str(mine)) == f"others can write to {way} (chmod go-w)"
    # Below a folder that nobody else enters it is nobody's way.
    shared.chmod(0o700)
    assert others_at(str(mine)) == ""
    shared.chmod(0o755)
    for module in (private, filing):
        monkeypatch.setattr(module, "_has_one_member", lambda gid: gid == NOBODY)
    assert others_at(str(mine)) == ""


@needs_root
def test_a_folder_on_the_way_and_a_link_is_the_person_s_or_root_s(
    shared: Path, others_at: Callable[[str], str]
) -> None:
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


def test_links_that_go_round_are_an_error(shared: Path, others_at: Callable[[str], str]) -> None:
    (shared / "a").symlink_to("b")
    (shared / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        others_at(f"{shared}/a")


def test_what_is_above_a_home_is_the_site_s(
    shared: Path, others_at: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Homes of a group, which its members may write to.
    group = folder(shared / "group", 0o777)
    home = folder(group / "alice", 0o775)
    folder(home / "servers")
    assert others_at(f"{home}/servers") != ""
    for module in (private, filing):
        monkeypatch.setattr(module.pwd, "getpwuid", lambda uid: Entry(str(home)))
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


@pytest.mark.parametrize("path", ["/", "/usr", "/usr/bin"])
def test_a_system_s_own_folders_are_fine(others_at: Callable[[str], str], path: str) -> None:
    assert others_at(path) == ""


def test_nothing_is_put_there(shared: Path) -> None:
    place = shared / "alice" / "servers"
    folder(shared / "alice", 0o777)
    request: dict[str, Any] = {"place": str(place), "server": "jupyter-x", "files": {"server.json": "a secret"}}
    with pytest.raises(filing._Refused, match="others can write to"):
        filing._put(request)
    assert not [path for path in shared.rglob("*") if path.is_file()]
    (shared / "alice").chmod(0o755)
    put = filing._put(request)
    assert Path(put["folder"], "server.json").read_text() == "a secret"


def test_no_copy_is_kept_there(shared: Path) -> None:
    folder(shared / "alice", 0o777)
    with pytest.raises(LaunchError, match="would not stay yours: others can write to"):
        space._own_folder(f"{shared}/alice/binder")
    (shared / "alice").chmod(0o755)
    mask = os.umask(0o002)
    try:
        space._own_folder(f"{shared}/alice/more/binder")
        assert os.umask(0o002) == 0o002
    finally:
        os.umask(mask)
    assert (shared / "alice/more").stat().st_mode & 0o777 == 0o755
