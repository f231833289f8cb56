"""Images as environment modules: `module load NAME/VERSION` puts their commands in front of PATH.

In a folder that `module use` names lie `NAME/VERSION.lua`, for Lmod, and `NAME/VERSION`, for Environment Modules; each
program takes its own. What they put in front of PATH lies in the store, in `modules/ID`: a launcher, which runs a
command in the image on whichever node it is called, and for each command a script of three words that calls it.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcbinder import runtime
from hpcbinder.catalog import Catalog, make_folder, remove_tree, sync_folder, write_atomic
from hpcbinder.config import Config
from hpcbinder.errors import ConvertError, RegisterError, RunError, UsageError
from hpcbinder.look import open_image
from hpcbinder.model import Entry
from hpcbinder.register import modulefile
from hpcbinder.register.commands import commands_of
from hpcbinder.register.modulefile import Module
from hpcbinder.scheduler import OF_THE_JOB
from hpcbinder.text import one_line

FOLDER = "modules"

_WORD = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}"
_NAME = re.compile(rf"({_WORD})(?:/({_WORD}))?", re.ASCII)
_RECORD = "module.json"
_STALE_AFTER = 3600.0
"""Seconds after which a temporary folder belongs to a process that was killed."""


@dataclass(frozen=True)
class RegisteredModule:
    """A module of an image.

    Attributes:
        name: What `module load` is told: `NAME/VERSION`.
        folder: What `module use` is told.
        files: Its modulefiles.
        commands: What it brings.
    """

    name: str
    folder: str
    files: tuple[str, ...]
    commands: tuple[str, ...]


def modules_folder(config: Config, catalog: Catalog) -> Path:
    """Where modulefiles go if nobody says otherwise."""
    return config.modules.folder or catalog.path / "modulefiles"


def register_module(
    catalog: Catalog, entry: Entry, config: Config, *, folder: Path | None = None, name: str | None = None
) -> RegisteredModule:
    """Give an image a module. Doing it again changes nothing.

    Args:
        catalog: In whose store the launcher lies.
        entry: The image.
        config: How images are run here, and where modulefiles go.
        folder: Where they go instead.
        name: `NAME` or `NAME/VERSION`, instead of the repository's name and, as version, the day of its commit and the
            beginning of the image's id; a module of that name of another image of ours is replaced.

    Raises:
        UsageError: That cannot be a module's name.
        RegisterError: Another file has the name, no runtime here can run the image, or something cannot be written.
    """
    folder = (folder or modules_folder(config, catalog)).absolute()
    kept = catalog.path.absolute() / FOLDER / entry.id
    for path in (folder, kept):
        if ":" in str(path) or not str(path).isprintable():
            raise RegisterError("a folder of that name cannot stand in PATH", where=ascii(str(path))[1:-1])
    called, version = _called(entry, name)
    commands = _commands(entry)
    about = _about(entry, called, version)
    module = Module(entry.id, called, version, about, commands, str(kept / "bin"))
    files = {
        folder / called / f"{version}.lua": modulefile.lua(module),
        folder / called / version: modulefile.tcl(module),
    }
    for path in files:
        if path.is_symlink() or (path.exists() and modulefile.owner(_beginning(path)) is None):
            raise RegisterError(
                "a module of this name is there and was not made by hpcbinder",
                where=str(path),
                hint="give another --name",
            )
    known = [known for known in _recorded(kept) if known not in map(str, files)]
    try:
        _place(
            kept, {**_launcher(entry, config, kept, commands), _RECORD: _json({"files": [*known, *map(str, files)]})}
        )
        for path, text in files.items():
            make_folder(path.parent)
            if not path.exists() or path.read_bytes() != text:
                write_atomic(path, text)
    except OSError as error:
        raise RegisterError(f"cannot write a module: {error.strerror}", where=str(error.filename or kept)) from error
    return RegisteredModule(f"{called}/{version}", str(folder), tuple(map(str, files)), commands)


def unregister_modules(catalog: Catalog, id_: str) -> tuple[str, ...]:
    """Remove every modulefile of an image that says itself that it is that image's, then what they need.

    Returns:
        The modulefiles that are gone.

    Raises:
        RegisterError: One cannot be removed.
    """
    kept = catalog.path.absolute() / FOLDER / id_
    removed = []
    for path in map(Path, _recorded(kept)):
        try:
            if modulefile.owner(_beginning(path)) != id_:
                continue
            path.unlink()
            removed.append(str(path))
            if not any(path.parent.iterdir()):
                path.parent.rmdir()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise RegisterError(f"cannot remove a module: {error.strerror}", where=str(path)) from error
    remove_tree(kept)
    return tuple(removed)


def module_of(catalog: Catalog, id_: str) -> str | None:
    """A modulefile that needs an image, None if there is none."""
    kept = catalog.path.absolute() / FOLDER / id_
    return next((path for path in _recorded(kept) if modulefile.owner(_beginning(Path(path))) == id_), None)


def _called(entry: Entry, name: str | None) -> tuple[str, str]:
    base, _, hash_ = entry.id.rpartition("-")
    day = time.strftime("%Y.%m.%d", time.gmtime(entry.timestamp or entry.created))
    usual = (base or entry.id, f"{day}-{hash_[:7]}" if base else day)
    if name is None:
        return usual
    match = _NAME.fullmatch(name)
    if match is None:
        raise UsageError(f"not a name for a module: {name[:80]!r}", hint="NAME or NAME/VERSION")
    return match[1], match[2] or usual[1]


def _about(entry: Entry, name: str, version: str) -> list[tuple[str, str]]:
    where = f"{entry.source}{f', folder {entry.subdir}' if entry.subdir else ''}"
    what = " ".join(part for part in (entry.ref, entry.commit or "") if part)
    about = {"Name": name, "Version": version, "Description": f"The environment of {where} at {what}"}
    about = {**about, "URL": entry.source, "Image": entry.id}
    return [(name, one_line(value, 600)) for name, value in about.items()]


def _commands(entry: Entry) -> tuple[str, ...]:
    path = entry.formats.get("squashfs") or entry.formats.get("sif")
    if path is None:
        raise RegisterError(f"{entry.id} has no squashfs and no SIF to find its commands in")
    try:
        with open_image(Path(path)) as image:
            found = commands_of(image, entry.config.env, entry.asked)
    except ConvertError as error:
        raise RegisterError(error.message, where=error.where, hint=error.hint) from error
    if not found:
        raise RegisterError(f"{entry.id} has none of the commands that a module brings")
    return found


def _launcher(entry: Entry, config: Config, folder: Path, commands: Sequence[str]) -> dict[str, bytes]:
    try:
        description = runtime.describe(entry, config.runtime)
    except RunError as error:
        raise RegisterError(error.message, where=error.where, hint=error.hint) from error
    # A module is loaded in jobs, too: their tasks know each other by these.
    description["environment"] = [*description["environment"], *OF_THE_JOB]
    start, files = runtime.launcher_files(description, folder)
    for name in commands:
        files[f"bin/{name}"] = f'#!/bin/sh\nexec {shlex.join([*start, "--command", name])} "$@"\n'.encode()
    return files


def _place(folder: Path, files: Mapping[str, bytes]) -> None:
    """Have a folder hold exactly these files; whoever looks finds the old ones or the new ones."""
    if _same(folder, files):
        return
    make_folder(folder.parent)
    limit = time.time() - _STALE_AFTER
    for left in folder.parent.glob(".*"):
        if left.is_dir() and left.lstat().st_mtime < limit:
            remove_tree(left)
    fresh, old = (folder.with_name(f".{folder.name}.{secrets.token_hex(6)}") for _ in range(2))
    try:
        make_folder(fresh)
        for name, content in files.items():
            path = fresh / name
            if path.parent != fresh:
                make_folder(path.parent)
            write_atomic(path, content)
            if path.parent.name == "bin":
                path.chmod(0o755)
        if folder.is_dir():
            folder.rename(old)
        fresh.rename(folder)
        sync_folder(folder.parent)
    finally:
        remove_tree(fresh)
        remove_tree(old)


def _same(folder: Path, files: Mapping[str, bytes]) -> bool:
    try:
        there = {str(path.relative_to(folder)) for path in _below(folder)}
        return there == set(files) and all((folder / name).read_bytes() == content for name, content in files.items())
    except OSError:
        return False


def _below(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        # What a Python that runs the launcher may leave there.
        folders[:] = [name for name in folders if name != "__pycache__"]
        yield from (Path(parent, name) for name in files)


def _recorded(kept: Path) -> list[str]:
    try:
        record: Any = json.loads((kept / _RECORD).read_bytes())
        return [path for path in record["files"] if isinstance(path, str)]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []


def _beginning(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(2000)
    except OSError:
        return b""


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=True) + "\n").encode()
