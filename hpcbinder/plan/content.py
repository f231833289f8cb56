"""Which files of the repository enter the image, and what they are together."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import BinaryIO

from hpcbinder.errors import BuildError
from hpcbinder.model import Checkout, Content, Plan, Stage, Step, fingerprint
from hpcbinder.plan.repo import Repo
from hpcbinder.plan.tree import Item, show

CHUNK = 1 << 20


def kept_files(steps: Iterable[Step], start: str | None) -> set[str]:
    """Files that are needed in the image whatever an ignore file says (as Docker sends an ignored Dockerfile)."""
    kept = {path for step in steps if step.stage is Stage.FINISH for path in step.reads}
    return kept | ({start} if start else set())


def placed_files(steps: Iterable[Step]) -> set[str]:
    """Files that a step has put in place already: it may have changed them, so they are not put there again."""
    return {path for step in steps if step.into_repo and step.stage is not Stage.FINISH for path in step.reads}


def content_items(repo: Repo, steps: Collection[Step], start: str | None) -> list[Item]:
    """Folders, files and symlinks of the content layer, a folder before what it holds."""
    kept, placed = kept_files(steps, start), placed_files(steps)
    chosen = [
        item
        for item in repo.tree.items.values()
        if item.kind != "special" and (not item.ignored or item.path in kept) and item.path not in placed
    ]
    folders = {item.path for item in chosen if item.kind == "directory"}
    missing: set[str] = set()
    for item in chosen:
        folder = item.path.rpartition("/")[0]
        while folder and folder not in folders and folder not in missing:
            missing.add(folder)
            folder = folder.rpartition("/")[0]
    if missing:
        chosen.extend(repo.tree.items[path] for path in missing)
        chosen.sort(key=lambda item: item.path.split("/"))
    return chosen


def plan_items(plan: Plan, repo: Repo) -> list[Item]:
    """`content_items` of a finished plan."""
    return content_items(repo, plan.steps, plan.start)


def content_of(checkout: Checkout, repo: Repo, steps: Collection[Step], start: str | None) -> Content:
    """What the content is, by git's tree id where there is one and else by reading every file.

    Raises:
        DetectError: A file cannot be read.
    """
    items = content_items(repo, steps, start)
    rules = [pattern.text for pattern in repo.ignore.patterns]
    if checkout.tree is not None:
        digest = fingerprint({"tree": checkout.tree, "ignore": rules})
    else:
        digest = ContentHash.of(items, repo)
    files = [item for item in items if item.kind != "directory"]
    return Content(
        digest=digest,
        files=len(files),
        size=sum(item.size for item in files),
        ignore_file=", ".join(repo.ignore.files) or None,
    )


class ContentHash:
    """SHA-256 over names, kinds and contents of the content's entries, in their order."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    @staticmethod
    def of(items: Iterable[Item], repo: Repo) -> str:
        """Read everything and hash it."""
        whole = ContentHash()
        for item in items:
            if item.kind != "file":
                whole.add(item, "")
                continue
            inner = hashlib.sha256()
            with repo.tree.open_item(item) as file:
                for chunk in chunks(file, item):
                    inner.update(chunk)
            whole.add(item, inner.hexdigest())
        return whole.hexdigest()

    def add(self, item: Item, contents: str) -> None:
        """Add an entry, with the hex SHA-256 of its contents if it is a file."""
        fields = (item.kind, str(item.executable), item.path, item.target, str(item.size), contents)
        self._hash.update(b"\0".join(field.encode("utf-8", "surrogateescape") for field in fields) + b"\0\0")

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def chunks(file: BinaryIO, item: Item, watch: Callable[[bytes], None] | None = None) -> Iterator[bytes]:
    """A file's bytes in pieces, exactly as many as its entry says.

    Raises:
        BuildError: The file became shorter or longer.
    """
    left = item.size
    while left:
        chunk = file.read(min(CHUNK, left))
        if not chunk:
            break
        left -= len(chunk)
        if watch is not None:
            watch(chunk)
        yield chunk
    if left or file.read(1):
        raise BuildError("changed while it was read", where=show(item.path), hint="run again when nobody writes to it")
