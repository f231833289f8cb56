"""Looking at a checkout and reading its files, when it means harm."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from checkouts import fill

from hpcbinder.errors import DetectError
from hpcbinder.plan.ignore import parse_ignore
from hpcbinder.plan.tree import MAX_DEPTH, Tree, scan, show


def test_a_snapshot_has_names_kinds_and_sizes_in_a_fixed_order(tmp_path: Path) -> None:
    fill(tmp_path, {"b/x": "12", "a-b": "", "a/y": "123", ".git/config": "secret", "b/.git": "gitdir: elsewhere"})
    (tmp_path / "a/y").chmod(0o744)
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("a/y")
    os.mkfifo(tmp_path / "pipe")
    tree = scan(tmp_path)
    assert [(item.path, item.kind, item.size) for item in tree.items.values()] == [
        ("a", "directory", 0),
        ("a/y", "file", 3),
        ("a-b", "file", 0),
        ("b", "directory", 0),
        ("b/x", "file", 2),
        ("empty", "directory", 0),
        ("link", "symlink", 0),
        ("pipe", "special", 0),
    ]
    assert tree.items["a/y"].executable and not tree.items["b/x"].executable
    assert tree.items["link"].target == "a/y"


def test_ignored_folders_are_not_entered_unless_something_below_is_kept(tmp_path: Path) -> None:
    fill(tmp_path, {"data/a": "", "data/keep/b": ""})
    assert scan(tmp_path, parse_ignore([("i", "data")])).items["data/a"].ignored
    tree = scan(tmp_path, parse_ignore([("i", "data\n!data/keep")]))
    assert [path for path, item in tree.items.items() if not item.ignored] == ["data/keep", "data/keep/b"]


def test_a_folder_three_thousand_levels_deep_is_one_error(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    for _ in range(3_000):  # more than a path has room for, and than Python calls itself
        os.mkdir("d", dir_fd=folder)
        below = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(folder)
    try:
        with pytest.raises(DetectError, match=f"^d/d/d/…: folders nested more than {MAX_DEPTH} deep$"):
            scan(tmp_path)
    finally:
        # Python's own rmtree gives up on so deep a tree.
        os.system(f"rm -rf '{tmp_path}/d'")  # noqa: S605


def test_a_path_too_long_to_be_opened_elsewhere_is_refused(tmp_path: Path) -> None:
    folder = tmp_path
    for _ in range(16):
        folder = folder / ("x" * 200)
        folder.mkdir()
    with pytest.raises(DetectError, match="path longer than"):
        scan(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\nb\0c", r"^f:2: has a NUL byte$"),
        (b"a\n\xff", r"^f:2: is not UTF-8"),
        ("a".encode("utf-16"), r"^f:1: is UTF-16"),
        (b"x" * 101, r"^f: is longer than 100 bytes$"),
    ],
)
def test_texts_that_are_none(tmp_path: Path, content: bytes, message: str) -> None:
    fill(tmp_path, {"f": content})
    with pytest.raises(DetectError, match=message):
        scan(tmp_path).read_text("f", limit=100)


def test_a_byte_order_mark_and_windows_line_ends_do_not_matter(tmp_path: Path) -> None:
    fill(tmp_path, {"f": b"\xef\xbb\xbfnumpy\r\nscipy\rpandas\n"})
    assert scan(tmp_path).read_text("f") == "numpy\nscipy\npandas\n"


@pytest.mark.parametrize("raw", ["\ufeffnümpy\r\nscipy".encode(f"utf-16-{end}") for end in ("le", "be")])
def test_utf16_is_read_where_it_may_be(tmp_path: Path, raw: bytes) -> None:
    fill(tmp_path, {"f": raw})
    assert scan(tmp_path).read_text("f", limit=len(raw), utf16=True) == "nümpy\nscipy"
    with pytest.raises(DetectError, match="is longer than"):
        scan(tmp_path).read_text("f", limit=len(raw) - 1, utf16=True)


def test_symlinks_are_followed_inside_the_tree_only(tmp_path: Path) -> None:
    root = tmp_path / "repo"
    fill(tmp_path, {"outside": "secret", "repo/a/real": "text", "repo/.git/config": "secret"})
    for name, target in {
        "in": "a/real",
        "chain": "in",
        "out": "../outside",
        "absolute": str(tmp_path / "outside"),
        "loop": "loop",
        "broken": "nowhere",
        "git": ".git/config",
        "folder": "a",
        "up": "..",
    }.items():
        (root / name).symlink_to(target)
    tree = scan(root)
    assert tree.read_text("in") == tree.read_text("chain") == tree.read_text("folder/real") == "text"
    assert tree.resolve("chain") == "a/real"
    for name, message in {
        "out": "leaves the repository",
        "absolute": "leaves the repository",
        "up/outside": "leaves the repository",
        "loop": "leads nowhere",
        "broken": "leads nowhere",
        "git": "into .git",
        "folder": "is not a regular file",
    }.items():
        with pytest.raises(DetectError, match=message) as caught:
            tree.read_text(name)
        assert caught.value.where == name
        assert "secret" not in str(caught.value)


def test_pipes_and_sockets_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        tree = scan(tmp_path)
        assert [item.kind for item in tree.items.values()] == ["special", "special"]
        with pytest.raises(DetectError, match="^pipe: is not a regular file$"):
            tree.read_text("pipe")
        with pytest.raises(DetectError, match="^socket: cannot be read"):
            tree.read_text("socket")


def test_names_of_any_bytes(tmp_path: Path) -> None:
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n\x1b[2J"))).write_text("x")
    [path] = scan(tmp_path).items
    assert os.fsencode(path) == b"\xff\n\x1b[2J"
    assert show(path) == r"\xff\n\x1b[2J"
    assert len(show("x" * 5000)) == 200


def test_what_cannot_be_looked_at_is_said(tmp_path: Path) -> None:
    with pytest.raises(DetectError, match="cannot be read: no such file or directory"):
        scan(tmp_path / "nowhere")
    with pytest.raises(DetectError, match="leads nowhere"):
        Tree(tmp_path, {}).read_text("nothing")
