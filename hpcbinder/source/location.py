"""What a person may name as a source, read into one of three plain values. Nothing is run and no network is touched."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote, unquote

from hpcbinder.config import redact
from hpcbinder.errors import UsageError
from hpcbinder.source.pages import Page, find_page
from hpcbinder.source.places import Dataset, find_dataset
from hpcbinder.source.reach import split
from hpcbinder.text import one_line

SCHEMES = ("https", "http", "ssh", "git", "file")
"""Transports git may use, also after the person's own `url.*.insteadOf`. `ext` and other helpers run commands."""


@dataclass(frozen=True)
class Remote:
    """A git repository somewhere.

    Attributes:
        url: What git is given; never a secret in it.
        name: Last part of its path.
        username, password: Taken out of an http(s) URL; None if it had none.
        page: The page of it that was named instead of the repository.
        named: By a person, whose logins may be used; not by a repository.
    """

    url: str
    name: str
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    page: Page | None = None
    named: bool = True


@dataclass(frozen=True)
class Folder:
    """A folder of this machine, taken as it is."""

    path: Path


_CONTROL = re.compile(r"[\x00-\x1f\x7f\x80-\x9f\ud800-\udc7f\udd00-\udfff]")
"""Control characters, and halves of characters that no file name or argument can hold."""
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9+.-]*::")
_HOST = r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?|\[[0-9A-Fa-f:.]+\])"
_USER = r"[A-Za-z0-9_][A-Za-z0-9_.+-]*"
_AUTHORITY = re.compile(rf"(?P<host>{_HOST})(?::(?P<port>[0-9]{{1,5}}))?")
_SCP = re.compile(rf"(?:{_USER}@)?{_HOST}:(?!//)(?P<path>[^-].*)")
_GITHUB = re.compile(r"gh:(?P<owner>[A-Za-z0-9][A-Za-z0-9-]*)/(?P<name>[A-Za-z0-9_.][A-Za-z0-9._-]*)")
_GITLAB = re.compile(
    r"gl:(?P<group>[A-Za-z0-9_][A-Za-z0-9._-]*(?:/[A-Za-z0-9_][A-Za-z0-9._-]*)*)/(?P<name>[A-Za-z0-9_.][A-Za-z0-9._-]*)"
)


def parse_source(spec: str, *, ckan: Collection[str] = ()) -> Remote | Folder | Dataset:
    """Read what a person wrote: a URL, `git@host:path`, `gh:org/repo`, a DOI, a SWHID, or a folder.

    Args:
        ckan: Hosts that run CKAN.

    Raises:
        UsageError: It cannot be meant, or it could be an option or a command to git or ssh.
    """
    if not spec.strip():
        raise UsageError("the source is empty", hint="give a git URL, gh:org/repo or a folder")
    if _CONTROL.search(spec):
        raise UsageError(f"the source holds a control character: {_shown(spec)}")
    if spec.startswith("-"):
        raise UsageError(f"{_shown(spec)} is not a source: it begins like an option", hint="write ./-… for a folder")
    if _HELPER.match(spec):
        raise UsageError(f"{_shown(spec)} names a git helper program, which is not allowed", hint=_forms())
    if spec.startswith("gh:"):
        return _github(spec)
    if spec.startswith("gl:"):
        return _gitlab(spec)
    path = Path(os.path.expanduser(spec)) if spec.startswith("~/") else Path(spec)  # noqa: PTH111 (never raises)
    if "://" not in spec and is_folder(path):
        return _folder(path)
    try:
        dataset = find_dataset(spec, ckan=ckan)
    except ValueError as error:
        raise UsageError(f"{_shown(spec)} {error}") from error
    if dataset is not None:
        return dataset
    if "://" in spec:
        return _url(spec)
    colon, slash = spec.find(":"), spec.find("/")
    if colon > 0 and not 0 <= slash < colon:
        return _scp(spec)
    if is_file(path):
        raise UsageError(f"{_shown(spec)} is a file", hint="give the folder it is in")
    raise UsageError(f"no folder {_shown(spec)}", hint=_guess(spec))


def parse_remote(spec: str) -> Remote:
    """Read a git URL or `host:path` that a repository names, and nothing else that a person might.

    Raises:
        UsageError: As `parse_source`.
    """
    if _CONTROL.search(spec) or spec.startswith("-") or _HELPER.match(spec):
        raise UsageError(f"{_shown(spec)} is not a repository's URL")
    return _repository(spec) if "://" in spec else _scp(spec)


def host_of(url: str) -> str:
    """The host of a remote's URL, in lower case; "" for a folder's."""
    if "://" in url:
        return split(url)[1]
    return url.partition(":")[0].rpartition("@")[2].lower().strip("[]")


def is_folder(path: Path) -> bool:
    """Whether a folder is there; a path that is too long or out of reach is none."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def is_file(path: Path) -> bool:
    """Whether something that is no folder is there."""
    try:
        return path.exists() and not path.is_dir()
    except (OSError, ValueError):
        return False


def parse_ref(ref: str) -> str:
    """A ref's name as git allows it (git-check-ref-format(1)), or `HEAD`, or a commit.

    Raises:
        UsageError: It cannot be a ref's name.
    """
    if ref.startswith("-"):
        raise UsageError(f"{_shown(ref)} is not a branch, tag or commit: it begins like an option")
    bad = (
        not ref
        or len(ref.encode("utf-8", "surrogatepass")) > 250
        or _CONTROL.search(ref)
        or any(c in " ~^:?*[\\" for c in ref)
        or ".." in ref
        or "@{" in ref
        or ref == "@"
        or ref.endswith(".")
        or any(not part or part.startswith(".") or part.endswith(".lock") for part in ref.split("/"))
    )
    if bad:
        raise UsageError(f"{_shown(ref)} cannot be the name of a branch, a tag or a commit")
    return ref


def parse_subdir(subdir: str) -> str:
    """A folder below the repository's root as a clean POSIX path, "" for the root.

    Raises:
        UsageError: It is absolute or leads upwards or into `.git`.
    """
    if _CONTROL.search(subdir):
        raise UsageError(f"the subdirectory holds a control character: {_shown(subdir)}")
    if subdir.startswith("/"):
        raise UsageError(f"the subdirectory {_shown(subdir)} must be relative to the repository")
    parts = [part for part in subdir.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise UsageError(f"the subdirectory {_shown(subdir)} leads out of the repository")
    if any(part.lower() == ".git" for part in parts):
        raise UsageError(f"the subdirectory {_shown(subdir)} is git's own")
    return "/".join(parts)


def slug(*words: str) -> str:
    """A short name for ids: `[a-z0-9][a-z0-9-]*`, at most 40 characters."""
    text = re.sub(r"[^a-z0-9]+", "-", "-".join(words).lower())[:40].strip("-")
    return text or "repository"


def _github(spec: str) -> Remote:
    match = _GITHUB.fullmatch(spec)
    if not match:
        raise UsageError(f"{_shown(spec)} is not gh:org/repo")
    name = match["name"].removesuffix(".git")
    return Remote(url=f"https://github.com/{match['owner']}/{name}", name=name)


def _gitlab(spec: str) -> Remote:
    match = _GITLAB.fullmatch(spec)
    if not match:
        raise UsageError(f"{_shown(spec)} is not gl:group/repo or gl:group/subgroup/repo")
    name = match["name"].removesuffix(".git")
    return Remote(url=f"https://gitlab.com/{match['group']}/{name}", name=name)


def _url(spec: str) -> Remote:
    try:
        page = find_page(spec)
    except ValueError as error:
        raise UsageError(redact(f"{_shown(spec)} {one_line(str(error), 200)}")) from error
    if isinstance(page, Page):
        remote = _repository(page.repository)
        return replace(remote, page=replace(page, repository=remote.url))
    return _repository(page or spec)


def _repository(spec: str) -> Remote:
    scheme, _, rest = spec.partition("://")
    scheme = scheme.lower()
    if scheme not in SCHEMES:
        raise UsageError(f"{_shown(spec)}: no such kind of source", hint=_forms())
    if re.search(r"[\s\\'\"<>`]", rest):
        raise UsageError(f"{_shown(spec)} is not a URL", hint="write %20 for a space")
    authority, slash, path = rest.partition("/")
    if scheme == "file":
        if authority not in ("", "localhost"):
            raise UsageError(f"{_shown(spec)}: a file URL names no host", hint="write file:///path")
        return Remote(url=f"file:///{path}", name=_last(unquote(path)))
    if "?" in spec or "#" in spec:
        raise UsageError(f"{_shown(spec)} is not a repository's URL", hint="leave out what follows ? and #")
    login, at, host = authority.rpartition("@")
    if not slash or not path.strip("/") or not (match := _AUTHORITY.fullmatch(host)):
        raise UsageError(f"{_shown(spec)} is not a repository's URL", hint=_forms())
    if int(match["port"] or 0) > 65535:
        raise UsageError(f"{_shown(spec)}: no such port")
    if path.startswith("-"):
        raise UsageError(f"{_shown(spec)}: the path begins like an option")
    if scheme in ("http", "https"):
        return _with_login(spec, f"{scheme}://{host}/{path}", _last(unquote(path)), login if at else None)
    if at and not re.fullmatch(_USER, login):
        raise UsageError(f"{_shown(spec)}: an {scheme} URL takes a plain user name and no password")
    return Remote(url=f"{scheme}://{login}{at}{host}/{path}", name=_last(unquote(path)))


def _with_login(spec: str, url: str, name: str, login: str | None) -> Remote:
    if login is None:
        return Remote(url=url, name=name)
    user, colon, password = login.partition(":")
    user, password = unquote(user), unquote(password)
    if _CONTROL.search(user + password):
        raise UsageError(f"{_shown(spec)}: a control character in the login")
    return Remote(url=url, name=name, username=user, password=password if colon else None)


def _scp(spec: str) -> Remote:
    match = _SCP.fullmatch(spec)
    if not match:
        raise UsageError(f"{_shown(spec)} is not a source", hint=_forms())
    return Remote(url=spec, name=_last(match["path"]))


def _folder(path: Path) -> Remote | Folder:
    path = path.resolve()
    # A bare repository has no files to take as they are: its branches are meant.
    bare = is_file(path / "HEAD") and is_folder(path / "objects") and is_folder(path / "refs")
    if bare and not os.path.lexists(path / ".git"):
        return Remote(url=f"file://{quote(os.fspath(path))}", name=_last(path.name))
    return Folder(path)


def _last(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2].rpartition(":")[2].removesuffix(".git")


def _guess(spec: str) -> str:
    first = spec.partition("/")[0]
    if "/" in spec and "." in first.strip(".") and _AUTHORITY.fullmatch(first):
        return f"for a repository on the web write https://{one_line(spec, 100)}"
    return _forms()


def _forms() -> str:
    return "write https://…, ssh://…, git@host:path, file:///…, gh:org/repo, gl:group/repo, doi:…, swh:… or a folder"


def _shown(text: str) -> str:
    return f"'{one_line(redact(text), 120)}'"
