"""What differs between the files of two images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hpcbinder.squashfs import Image, Node

_STEP = 1000


@dataclass(frozen=True)
class Change:
    """One path that is not in both images, or not the same in both.

    Attributes:
        path: Without a leading slash; the root is "".
        change: `added`, `removed` or `changed`.
        what: Of `changed`: `kind`, `mode`, `owner`, `time`, `content`, `target`, `device`, `xattrs`, `links`.
        before: What the first image has there.
        after: What the second image has there.
    """

    path: str
    change: str
    what: tuple[str, ...]
    before: Node | None
    after: Node | None


def differences(one: Image, other: Image, progress: Callable[[float], None]) -> Iterator[Change]:
    """Compare all paths, what they are and what is in them.

    Content is read where it may differ, and once of what files share.

    Args:
        one: The image before.
        other: The image after.
        progress: Hears how much has been compared, 0 to 1.

    Returns:
        Changes in the order of their paths.

    Raises:
        ConvertError: An image is damaged.
    """
    before, after = dict(one.walk()), dict(other.walk())
    known: dict[tuple[tuple[int, ...], tuple[int, ...]], bool] = {}

    def same(a: Node, b: Node) -> bool:
        key = (one.place(a), other.place(b))
        if key not in known:
            known[key] = one.same_content(a, other, b)
        return known[key]

    paths = sorted(before.keys() | after.keys(), key=lambda path: path.split("/"))
    for number, path in enumerate(paths):
        if not number % _STEP:
            progress(number / len(paths))
        a, b = before.get(path), after.get(path)
        if a is None or b is None:
            yield Change(path, "added" if a is None else "removed", (), a, b)
        elif what := tuple(_changed(a, b, same)):
            yield Change(path, "changed", what, a, b)


def _changed(a: Node, b: Node, same: Callable[[Node, Node], bool]) -> Iterator[str]:
    if a.kind != b.kind:
        yield "kind"
    if a.mode != b.mode:
        yield "mode"
    if (a.uid, a.gid) != (b.uid, b.gid):
        yield "owner"
    if a.mtime != b.mtime:
        yield "time"
    if a.xattrs != b.xattrs:
        yield "xattrs"
    if a.kind != b.kind:
        return
    if a.kind == "file" and not same(a, b):
        yield "content"
    if a.target != b.target:
        yield "target"
    if a.device != b.device:
        yield "device"
    if a.kind != "directory" and a.nlink != b.nlink:
        yield "links"
