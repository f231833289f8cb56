"""Random stacks of layers."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from hypothesis import strategies as st
from squashfs_support import Item, parents

NAMES = ["a", "b", "c", "é\udcff", "x" * 255]
PATHS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join)
CONTENTS = [
    *(b"", b"short", b"SHORT", b"zeros" + bytes(20000), bytes(8192), bytes(range(256)) * 40, b"tail" * 1500),
    *(bytes(range(255, -1, -1)) * 40, Random(1).randbytes(5000), Random(2).randbytes(5000)),
]
"""Few, so that layers have some in common; some are as long as others, packed and stored as they are."""


XATTRS = [
    (),
    (),
    (("user.a", b"1"), ("user.é", b"\0\n\xff")),
    (("user.a", b"1"), ("trusted.a", b"2"), ("user.overlay.opaque", b"y")),
    (("user.long", b"v" * 3000),),
]


@st.composite
def items(draw: st.DrawFn) -> Item:
    kind = draw(st.sampled_from(["file", "file", "directory", "directory", "symlink", "character", "fifo", "link"]))
    return Item(
        kind,
        content=draw(st.sampled_from(CONTENTS)) if kind == "file" else b"",
        target=draw(st.sampled_from(["b", "../a", "/c/none"])) if kind == "symlink" else "",
        mode=0o777 if kind == "symlink" else draw(st.sampled_from([0o644, 0o755, 0o4711, 0o1777, 0o600])),
        uid=draw(st.sampled_from([0, 1000, 70000])),
        gid=draw(st.sampled_from([0, 100])),
        mtime=draw(st.sampled_from([0, 1, 1_600_000_000])),
        device=(5, 300) if kind == "character" else (0, 0),
        xattrs=draw(st.sampled_from(XATTRS)) if kind in ("file", "directory") else (),
    )


@st.composite
def layers(draw: st.DrawFn) -> dict[str, Item]:
    """A layer that a tar can say: whiteouts, opaque marks, links; members in any order, parents left out or not."""
    wanted = draw(st.lists(st.tuples(PATHS, items()), max_size=10))
    layer: dict[str, Item] = {}

    def fits(path: str) -> bool:
        return all(layer.get(parent, Item("directory")).kind == "directory" for parent in parents(path))

    for path, item in wanted:
        below = any(other.startswith(f"{path}/") for other in layer)
        if path in layer or not fits(path) or (below and item.kind != "directory"):
            continue
        if item.kind == "link":
            targets = sorted(other for other, its in layer.items() if its.kind not in ("directory", "link"))
            if not targets:
                continue
            target = draw(st.sampled_from(targets))
            origin = layer[target]
            item = replace(origin, kind="link", content=b"", target=target)
        layer[path] = item
    for path in draw(st.lists(PATHS, max_size=3)):
        folder, slash, name = path.rpartition("/")
        # A name of 255 bytes leaves no room for the mark in front of it.
        mark = f"{folder}{slash}.wh.{name}"
        if len(name) < 250 and fits(mark):
            layer[mark] = Item(mtime=0)
    for path in draw(st.lists(PATHS, max_size=1)):
        mark = f"{path}/.wh..wh..opq"
        if fits(mark):
            layer[mark] = Item(mtime=0)
    return dict(draw(st.permutations(list(layer.items()))))


STACKS = st.lists(layers(), min_size=1, max_size=4)
