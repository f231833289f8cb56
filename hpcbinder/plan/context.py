"""The build context as a stream: only what the steps and the content need, the same bytes for the same plan.

A tar of the POSIX.1-2001 (pax) form, which takes names of any length and bytes. Owner 0:0, modes 0644 and 0755, times
the plan's, entries in a fixed order; memory does not grow with the files.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import tarfile
from collections.abc import Collection, Iterator, Mapping
from typing import BinaryIO

from hpcbinder.contract import COMMIT, EPOCH, MANIFEST, REPO_DIR
from hpcbinder.errors import BuildError, DetectError
from hpcbinder.model import Checkout, OwnDockerfile, Plan, Step
from hpcbinder.plan.apart import check_apart
from hpcbinder.plan.content import ContentHash, chunks, plan_items
from hpcbinder.plan.manifest import commit_text, manifest
from hpcbinder.plan.own import own_content, own_items
from hpcbinder.plan.render import join_script, run_script, step_folder
from hpcbinder.plan.repo import Repo, open_repo
from hpcbinder.plan.tree import Item, show


def write_context(
    plan: Plan, checkout: Checkout, dockerfile_text: str, out: BinaryIO, *, until: int | None = None
) -> None:
    """Write the context that goes with a Dockerfile of this plan.

    Args:
        plan: The plan.
        checkout: The files it was made from.
        dockerfile_text: What `dockerfile` gave.
        out: Gets an uncompressed tar; never sought in.
        until: Only what building the stage that ends at this point needs: that many steps, and no content.

    Raises:
        BuildError: A file changed since the plan was made, or cannot be read.
    """
    writer = _Writer(out, plan.timestamp)
    writer.text("Dockerfile", dockerfile_text)
    repo = open_repo(checkout)
    writer.folder("steps")
    for number, step in enumerate(plan.steps[:until]):
        _write_step(writer, step_folder(number), step, repo)
    writer.folder("content")
    if until is None:
        _write_content(writer, "content", plan, checkout, repo)
    writer.end()


def write_step(
    plan: Plan,
    checkout: Checkout,
    number: int,
    out: BinaryIO,
    *,
    folder: str | None = None,
    dockerfile_text: str = "",
    timestamp: int | None = None,
) -> None:
    """Write all that one step reads, as a tar.

    Args:
        plan: The plan.
        checkout: The files it was made from.
        number: Of the step in the plan.
        out: Gets an uncompressed tar; never sought in.
        folder: Where the step's folder is in it; None for where `one_step` has it.
        dockerfile_text: What `one_step` gave; "" for no Dockerfile.
        timestamp: Unix time (s) of all that is in it; None for the plan's.

    Raises:
        BuildError: A file changed since the plan was made, or cannot be read.
    """
    writer = _Writer(out, plan.timestamp if timestamp is None else timestamp)
    if dockerfile_text:
        writer.text("Dockerfile", dockerfile_text)
    place = step_folder(number) if folder is None else folder
    writer.parents("", place)
    _write_step(writer, place, plan.steps[number], open_repo(checkout))
    writer.end()


def write_content(plan: Plan, checkout: Checkout, out: BinaryIO) -> None:
    """Write the repository's content and the manifest as a layer of the image.

    Args:
        plan: The plan.
        checkout: The files it was made from.
        out: Gets an uncompressed tar; never sought in.

    Raises:
        BuildError: A file changed since the plan was made, or cannot be read.
    """
    writer = _Writer(out, plan.timestamp)
    _write_content(writer, "", plan, checkout, open_repo(checkout))
    writer.end()


def write_own_context(plan: Plan, checkout: Checkout, own: OwnDockerfile, out: BinaryIO) -> None:
    """Write the context of a repository's own Dockerfile: the repository, with what is built in the Dockerfile's place.

    Args:
        plan: The plan.
        checkout: The files it was made from.
        own: The plan's `own`.
        out: Gets an uncompressed tar; never sought in.

    Raises:
        BuildError: A file changed since the plan was made, or cannot be read.
    """
    writer = _Writer(out, plan.timestamp)
    repo, items = own_items(checkout, own)
    for item in items:
        _write_item(writer, item.path, item, repo)
    parts = own.path.split("/")
    for end in range(1, len(parts)):
        writer.folder("/".join(parts[:end]))
    writer.text(own.path, own.text)
    if checkout.tree is None and own_content(checkout, own.path).digest != plan.content.digest:
        raise BuildError("the files changed since the plan was made", where=checkout.source, hint="run again")
    writer.end()


def write_files(timestamp: int, files: Mapping[str, str], executable: Collection[str], out: BinaryIO) -> None:
    """Write a context of texts.

    Args:
        timestamp: Unix time (s) they get.
        files: Path -> text.
        executable: Paths of those that can be executed.
        out: Gets an uncompressed tar.
    """
    writer = _Writer(out, timestamp)
    for path, text in files.items():
        parts = path.split("/")
        for end in range(1, len(parts)):
            writer.folder("/".join(parts[:end]))
        writer.text(path, text, executable=path in executable)
    writer.end()


def context_listing(plan: Plan, checkout: Checkout) -> Iterator[str]:
    """Names of the files in the context, with the size in bytes of those that come from the repository, one a line."""
    if plan.own is not None:
        _, items = own_items(checkout, plan.own)
        yield show(plan.own.path)
        yield from (f"{show(item.path)}  {item.size}" for item in items if item.kind != "directory")
        return
    repo = open_repo(checkout)
    yield "Dockerfile"
    for number, step in enumerate(plan.steps):
        folder = step_folder(number)
        yield f"{folder}/run.sh"
        yield from (f"{folder}/{name}" for name in (("apart", "join.sh") if step.apart else ()))
        yield from (f"{folder}/files/{show(name)}" for name in step.data)
        for path in step.reads:
            item = repo.tree.items[path]
            yield f"{folder}/repo/{show(path)}  {item.size}"
    yield f"content{MANIFEST}"
    if checkout.history is not None:
        yield f"content{COMMIT}"
    for item in plan_items(plan, repo):
        if item.kind != "directory":
            yield f"content{REPO_DIR}/{show(item.path)}  {item.size}"


def _write_step(writer: _Writer, folder: str, step: Step, repo: Repo) -> None:
    writer.folder(folder)
    writer.text(f"{folder}/run.sh", run_script(step), executable=True)
    if step.apart:
        writer.text(f"{folder}/apart", "".join(f"{check_apart(name)}\n" for name in step.apart))
        writer.text(f"{folder}/join.sh", join_script(), executable=True)
    writer.folder(f"{folder}/files")
    for name, text in step.data.items():
        writer.text(f"{folder}/files/{name}", text)
    writer.folder(f"{folder}/repo")
    reads = set(step.reads)
    for path in sorted(reads, key=lambda path: path.split("/")):
        writer.parents(f"{folder}/repo", path)
        item = repo.tree.items.get(path)
        if item is None:
            raise BuildError("vanished since the plan was made", where=show(path))
        if item.kind == "symlink" and not _points_into(item, reads) and (file := _file_behind(item, repo)):
            # The link's target does not come along: put what it leads to in its place.
            item = file
        _write_item(writer, f"{folder}/repo/{path}", item, repo)


def _points_into(item: Item, reads: set[str]) -> bool:
    target = posixpath.normpath(posixpath.join(posixpath.dirname(item.path), item.target))
    return target in reads


def _file_behind(link: Item, repo: Repo) -> Item | None:
    """The file of the repository that a link leads to; None for a folder, for nothing, and for what lies elsewhere:
    such a link is put there as it is."""
    try:
        item = repo.tree.items.get(repo.resolve(link.path))
    except DetectError:
        return None
    return item if item is not None and item.kind == "file" else None


def _write_content(writer: _Writer, top: str, plan: Plan, checkout: Checkout, repo: Repo) -> None:
    writer.parents(top, MANIFEST.lstrip("/"))
    writer.text(f"{top}{MANIFEST}".lstrip("/"), manifest(plan))
    if checkout.history is not None:
        writer.text(f"{top}{COMMIT}".lstrip("/"), commit_text(checkout.history))
    writer.parents(top, f"{REPO_DIR.lstrip('/')}/.")
    whole = ContentHash()
    for item in plan_items(plan, repo):
        name = f"{top}{REPO_DIR}/{item.path}".lstrip("/")
        whole.add(item, _write_item(writer, name, item, repo))
    if checkout.tree is None and whole.hexdigest() != plan.content.digest:
        raise BuildError("the files changed since the plan was made", where=checkout.source, hint="run again")


def _write_item(writer: _Writer, name: str, item: Item, repo: Repo) -> str:
    """Write one entry; returns the hex SHA-256 of a file's contents, else ""."""
    if item.kind == "directory":
        writer.folder(name)
        return ""
    if item.kind == "symlink":
        writer.symlink(name, item.target)
        return ""
    with repo.tree.open_item(item) as file:
        return writer.file(name, file, item)


class _Writer:
    """Writes tar entries; each folder once."""

    def __init__(self, out: BinaryIO, mtime: int) -> None:
        self._out = out
        self._mtime = mtime
        self._folders: set[str] = set()
        self._written = 0

    def folder(self, name: str) -> None:
        if name not in self._folders:
            self._folders.add(name)
            self._header(name, tarfile.DIRTYPE, 0o755)

    def parents(self, top: str, path: str) -> None:
        """Write the folders from `top` ("" for none) down to the one that holds `top/path`."""
        parts = [*filter(None, [top]), *path.split("/")[:-1]]
        for end in range(1, len(parts) + 1):
            self.folder("/".join(parts[:end]))

    def text(self, name: str, text: str, *, executable: bool = False) -> None:
        raw = text.encode("utf-8", "surrogateescape")
        self._header(name, tarfile.REGTYPE, 0o755 if executable else 0o644, size=len(raw))
        self._body(raw)
        self._pad(len(raw))

    def symlink(self, name: str, target: str) -> None:
        self._header(name, tarfile.SYMTYPE, 0o777, target=target)

    def file(self, name: str, file: BinaryIO, item: Item) -> str:
        size = os.fstat(file.fileno()).st_size
        if size != item.size:
            raise BuildError("changed while it was read", where=show(item.path))
        self._header(name, tarfile.REGTYPE, 0o755 if item.executable else 0o644, size=size)
        digest = hashlib.sha256()
        for chunk in chunks(file, item, digest.update):
            self._body(chunk)
        self._pad(size)
        return digest.hexdigest()

    def end(self) -> None:
        # Two zero blocks, then up to a full record as tar has it.
        self._body(bytes(2 * tarfile.BLOCKSIZE))
        self._body(bytes(-self._written % tarfile.RECORDSIZE))

    def _header(self, name: str, kind: bytes, mode: int, *, size: int = 0, target: str = "") -> None:
        info = tarfile.TarInfo(name + "/" if kind == tarfile.DIRTYPE else name)
        info.type, info.mode, info.size, info.linkname, info.mtime = kind, mode, size, target, self._mtime
        if kind == tarfile.DIRTYPE:
            # BuildKit gives folders the time of the build, buildah this one: conversion dates both back to it.
            info.mtime = max(self._mtime, EPOCH)
        self._body(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))

    def _body(self, raw: bytes) -> None:
        self._out.write(raw)
        self._written += len(raw)

    def _pad(self, size: int) -> None:
        self._body(bytes(-size % tarfile.BLOCKSIZE))
