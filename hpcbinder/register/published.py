"""What a store says about its images to a hub: `published/ID.json`, one record for each that people may start there.

Written by whoever may write to the store, read by a hub that may be root: a record counts only where `vouched` believes
it, and is checked like anybody's text.
"""

from __future__ import annotations

import base64
import os
import posixpath
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from hpcbinder.catalog import Catalog, dump, make_folder, parse, vouched, write_atomic
from hpcbinder.errors import CatalogError, RegisterError, UsageError
from hpcbinder.model import Entry
from hpcbinder.regular import open_regular
from hpcbinder.scheduler import Resources

FOLDER = "published"

_LIMIT = 256 << 10
"""Bytes of a record."""
_ICON = 64 << 10
"""Bytes of an icon's file."""
_URL = re.compile(r"data:image/(png|svg\+xml);base64,[A-Za-z0-9+/]{1,90000}={0,2}", re.ASCII)
_GROUP = re.compile(r"[A-Za-z_][A-Za-z0-9_.@+-]{0,63}\$?", re.ASCII)
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,79}", re.ASCII)
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_LONGEST_PATH = 1000


@dataclass(frozen=True)
class Published:
    """How a hub shows an image, and to whom.

    Attributes:
        title: What people know it as.
        repository: Where it comes from: a URL without credentials, or a folder.
        ref: Branch, tag or commit of it.
        description: A sentence or two.
        icon: A `data:` URL of a PNG or SVG, "" for none.
        path: File to open first, relative to the repository.
        resources: What a job asks for where a person says nothing: fields of `Resources`, as text.
        groups: Unix groups that may start it; none for everybody.
    """

    title: str
    repository: str = ""
    ref: str = ""
    description: str = ""
    icon: str = ""
    path: str = ""
    resources: Mapping[str, str] = field(default_factory=dict)
    groups: tuple[str, ...] = ()


def repository_path(text: str) -> str:
    """A file of a repository as a person names it, in its shortest form.

    Raises:
        UsageError: It does not stay in the repository, or is no text that a person reads.
    """
    if any(unicodedata.category(char) in _INVISIBLE for char in text):
        raise UsageError("a path must not hold control characters")
    parts = text.split("/")
    if len(text) > _LONGEST_PATH or any(len(part.encode()) > 255 for part in parts):
        raise UsageError("a path is shorter")
    if text.startswith("/") or ".." in parts:
        raise UsageError("a path must be a file of the repository, relative to it and without '..'")
    return "" if (plain := posixpath.normpath(text)) == "." else plain


def icon_url(file: Path) -> str:
    """A picture as a `data:` URL.

    Raises:
        UsageError: It cannot be read, is too large, or neither PNG nor SVG.
    """
    try:
        with file.open("rb") as opened:
            raw = opened.read(_ICON + 1)
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(file)) from error
    if len(raw) > _ICON:
        raise UsageError(f"is larger than {_ICON >> 10} KiB: no icon", where=str(file))
    if raw.startswith(b"\x89PNG\r\n\x1a\n"):
        kind = "png"
    elif raw.lstrip().startswith((b"<svg", b"<?xml", b"<!")) and b"<svg" in raw:
        kind = "svg+xml"
    else:
        raise UsageError("is neither a PNG nor an SVG", where=str(file))
    return f"data:image/{kind};base64,{base64.b64encode(raw).decode('ascii')}"


def checked(record: Published) -> Published:
    """A record that may be shown and used, with its path and resources in their plain form.

    Raises:
        UsageError: Something in it cannot be meant.
    """
    if not record.title.strip():
        raise UsageError("a title is not empty")
    for name, longest in (("title", 100), ("repository", 1000), ("ref", 300), ("description", 600)):
        text = getattr(record, name)
        if len(text) > longest or any(unicodedata.category(char) in _INVISIBLE for char in text):
            raise UsageError(f"a {name} is one line of at most {longest} characters")
    if record.icon and not _URL.fullmatch(record.icon):
        raise UsageError("an icon is a PNG or an SVG")
    for group in record.groups:
        if not _GROUP.fullmatch(group):
            raise UsageError(f"{group[:80]!r} is no name of a group")
    known = {each.name: each for each in fields(Resources)}
    values: dict[str, str | int] = {}
    for name, value in record.resources.items():
        if name not in known or name == "tasks":
            raise UsageError(f"a server's job has no {name[:40]!r}")
        number = isinstance(known[name].default, int)
        if number and not re.fullmatch(r"[0-9]{1,8}", value, re.ASCII):
            raise UsageError(f"{name} is a number, not {value[:40]!r}")
        values[name] = int(value) if number else value
    Resources(**values)  # type: ignore[arg-type]
    return replace(record, path=repository_path(record.path))


def publish(catalog: Catalog, entry: Entry, record: Published) -> Path:
    """Have a store say that hubs may offer one of its images; doing it again changes what is said.

    Returns:
        The record's file.

    Raises:
        UsageError: Something in the record cannot be meant.
        RegisterError: The image lies in another store.
        CatalogError: The store cannot be written.
    """
    record = checked(record)
    if not catalog.own(entry):
        raise RegisterError(
            f"{entry.id} lies in a site's store, and a hub is told of it there",
            hint="hpcbinder --store THAT-STORE register … --jupyterhub",
        )
    path = _file(catalog.path, entry.id)
    try:
        make_folder(path.parent)
        write_atomic(path, dump(record))
    except OSError as error:
        raise CatalogError(f"cannot write to the store: {error.strerror}", where=str(path)) from error
    return path


def unpublish(catalog: Catalog, id_: str) -> Path | None:
    """Take back what `publish` said.

    Returns:
        The file that is gone, None if there was none.

    Raises:
        RegisterError: It cannot be removed.
    """
    path = _file(catalog.path, id_)
    try:
        path.unlink()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise RegisterError(f"cannot be removed: {error.strerror}", where=str(path)) from error
    return path


def is_published(catalog: Catalog, id_: str) -> bool:
    """Whether the writable store tells hubs of an image."""
    return _file(catalog.path, id_).is_file()


def published_of(store: Path, id_: str, *, trusted: bool = False) -> Published | None:
    """What a store says of one image, None for nothing that can be believed.

    Args:
        trusted: It is the reader's own store; else `vouched` decides.

    Raises:
        CatalogError: The record is damaged or cannot be read.
    """
    path = _file(store, id_)
    if not trusted and not vouched(path, store):
        return None
    try:
        file = open_regular(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise CatalogError(f"cannot be read: {error.strerror}", where=str(path)) from error
    if file is None:
        raise CatalogError("is no file", where=str(path))
    with file:
        raw = file.read(_LIMIT + 1)
    if len(raw) > _LIMIT:
        raise CatalogError("is larger than a record is", where=str(path))
    record: Published = parse(raw, Published, path)
    try:
        return checked(record)
    except UsageError as error:
        raise CatalogError(f"damaged record: {error.message}", where=str(path)) from error


def published_ids(store: Path) -> list[str]:
    """The ids that a store has records of, whether or not there are images.

    Raises:
        CatalogError: The store cannot be read.
    """
    try:
        names = os.listdir(store / FOLDER)  # noqa: PTH208 (names, not paths)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise CatalogError(f"cannot be read: {error.strerror}", where=str(store / FOLDER)) from error
    ids = (name.removesuffix(".json") for name in names if name.endswith(".json"))
    return sorted(id_ for id_ in ids if _ID.fullmatch(id_))


def _file(store: Path, id_: str) -> Path:
    return store / FOLDER / f"{id_}.json"
