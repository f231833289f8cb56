"""Submodules: other repositories' commits that a repository holds at some of its paths (gitsubmodules(7)).

`git submodule` is not used: it takes URLs, names and commands to update with from a file of the repository, and has
been tricked with each of them (CVE-2017-1000117, 2018-11235, 2018-17456, 2019-19604, 2022-39253, 2024-32002). Here only
`path` and `url` are read; a URL must be one that a person could have given; names become no paths, and each submodule
is fetched like any repository, into an empty folder that is no link.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from hpcbinder.errors import FetchError, HpcbinderError
from hpcbinder.source.location import Remote, host_of, parse_remote
from hpcbinder.source.reach import Reach, split
from hpcbinder.source.refs import Wanted
from hpcbinder.source.repository import Repository
from hpcbinder.text import one_line

_MOST = 200
_DEPTH = 10
_FORGES = frozenset({"bitbucket.org", "codeberg.org", "github.com", "gitlab.com"})
"""Hosts that have under https all that `.gitmodules` of old name under git:// or http://. GitHub closed git:// in 2022
(github.blog, 2021-09-01, "Improving Git protocol security on GitHub")."""
_CHUNK = 100
WITHOUT = "--no-submodules leaves the folders of submodules empty"


@dataclass(frozen=True)
class Module:
    """A submodule that was fetched.

    Attributes:
        path: Below the root of the outermost repository.
        repository: Its own.
    """

    path: str
    repository: Repository


def fetch_submodules(top: Repository, *, below: str, reach: Reach) -> list[Module]:
    """Fetch a repository's submodules, and theirs.

    Args:
        below: Only those in this folder of the repository, or around it; "" for all.
        reach: Where they may be.

    Raises:
        FetchError: One cannot be had, or may not.
    """
    found: list[Module] = []
    _fill(top, "", 1, below, reach, found)
    return found


def has_submodules(repository: Repository, below: str) -> bool:
    """Whether there are any to fetch."""
    return any(_near(path, below) for path, _, _ in _declared(repository))


def _fill(parent: Repository, prefix: str, depth: int, below: str, reach: Reach, found: list[Module]) -> None:
    for path, commit, url in _declared(parent):
        full = f"{prefix}{path}"
        if not _near(full, below):
            continue
        shown = one_line(full, 120)
        if depth > _DEPTH or len(found) >= _MOST:
            what = f"submodules nest deeper than {_DEPTH}" if depth > _DEPTH else f"more than {_MOST} submodules"
            raise FetchError(f"{what}, at '{shown}'", where=parent.url, hint=WITHOUT)
        try:
            proxied = parent.site is not None and parent.site.https_proxy is not None
            remote = submodule_remote(parent.remote, url, reach, proxied=proxied)
            folder = _empty_folder(parent.root, path)
            parent.reporter.phase("fetch", f"submodule {shown}: {one_line(remote.url, 200)}")
            module = Repository(
                remote, parent.scratch / "modules" / str(len(found)), folder, parent.reporter, parent.site
            )
            module.obtain(Wanted(commit, sha256=len(commit) == 64))
            module.check_out()
        except HpcbinderError as error:
            where = f"{error.where}: " if error.where and error.where != parent.url else ""
            raise FetchError(
                f"submodule '{shown}': {where}{error.message}",
                where=parent.url,
                hint="; ".join(filter(None, (error.hint, WITHOUT))),
            ) from error
        found.append(Module(full, module))
        _fill(module, f"{full}/", depth + 1, below, reach, found)


def _near(path: str, below: str) -> bool:
    return not below or f"{path}/".startswith(f"{below}/") or f"{below}/".startswith(f"{path}/")


def _declared(repository: Repository) -> Iterator[tuple[str, str, str]]:
    """(path, commit, URL) of the submodules that have all three. A commit at a path that `.gitmodules` does not know
    is somebody's slip (a repository added inside another): its folder stays empty, as in a clone."""
    settings = repository.settings(".gitmodules", r"^submodule\..*\.(path|url)$") or []
    modules: dict[str, dict[str, str]] = {}
    for key, value in settings:
        name, _, what = key.removeprefix("submodule.").rpartition(".")
        modules.setdefault(name, {})[what] = value
    urls = {
        module["path"].rstrip("/"): module["url"]
        for module in modules.values()
        if module.get("url") and module.get("path") and not module["path"].startswith("/")
    }
    paths = [path for path in sorted(urls) if path and ".." not in path.split("/")]
    for start in range(0, len(paths), _CHUNK):
        for mode, commit, path in repository.entries(*(f":(literal){p}" for p in paths[start : start + _CHUNK])):
            if mode == "160000" and path in urls:
                yield path, commit, urls[path]


def _empty_folder(root: Path, path: str) -> Path:
    """The submodule's folder, which git made when it wrote the parent's files; no part of it is a link."""
    folder = root
    try:
        for part in path.split("/"):
            folder = folder / part
            if not os.path.lexists(folder):
                folder.mkdir()
            if not stat.S_ISDIR(folder.lstat().st_mode):
                raise FetchError("something else is at its path")
        if any(folder.iterdir()):
            raise FetchError("something else is at its path")
    except OSError as error:
        raise FetchError(f"its folder cannot be made: {error.strerror}") from error
    return folder


def submodule_remote(parent: Remote, url: str, reach: Reach, *, proxied: bool = False) -> Remote:
    """Where a submodule is: a relative URL is meant from its parent's (git-submodule(1), "add").

    Args:
        proxied: A proxy resolves the names of https hosts.

    Raises:
        UsageError, FetchError: It cannot be meant, or may not be asked.
    """
    relative = url.startswith(("./", "../"))
    if relative:
        url = _joined(parent.url, url)
    if url.startswith("/"):
        url = f"file://{quote(url)}"
    remote = parse_remote(url)
    scheme, host = _scheme(remote.url), host_of(remote.url)
    if scheme in ("http", "git") and host in _FORGES and not reach.knows(host):
        remote, scheme = replace(remote, url=f"https{remote.url.removeprefix(scheme)}"), "https"
    if scheme == "file":
        if _scheme(parent.url) != "file":
            raise FetchError(f"{one_line(remote.url, 200)} is a folder of this machine")
        if not _is_beside(remote.url, parent.url):
            # Else any repository that the person can read would come into an image at a stranger's word; git asks for
            # protocol.file.allow here (CVE-2022-39253).
            raise FetchError(
                f"{one_line(remote.url, 200)} is not in the folder that holds its parent",
                hint="put the two side by side, or leave submodules out: --no-submodules",
            )
    elif scheme in ("http", "git") and not reach.knows(host):
        raise FetchError(
            f"{one_line(remote.url, 200)} is not encrypted",
            hint=f'git config --global url."https://{host}/".insteadOf {scheme}://{host}/',
        )
    else:
        reach.check(f"https://[{host}]/" if ":" in host else f"https://{host}/")
        if not (proxied and scheme == "https"):
            reach.look_up(host)
    if remote.username is None and _origin(remote.url) == _origin(parent.url):
        remote = replace(remote, username=parent.username, password=parent.password)
    return replace(remote, named=parent.named)


def _is_beside(url: str, parent: str) -> bool:
    """Both are folders of this machine, and the one lies in the folder that holds the other, links followed."""
    path, other = (os.path.realpath(unquote(text.removeprefix("file://"))) for text in (url, parent))
    folder = os.path.dirname(other)  # noqa: PTH120
    return os.path.commonpath([path, folder]) == folder


def _joined(base: str, relative: str) -> str:
    """As git does, but for going up past the path into the host."""
    scheme, separator, rest = base.partition("://")
    if separator:
        authority, slash, path = rest.partition("/")
        head = f"{scheme}://{authority}{slash}"
    else:
        host, colon, path = base.partition(":")
        head = f"{host}{colon}/" if path.startswith("/") else f"{host}{colon}"
    parts = [part for part in path.split("/") if part]
    while relative.startswith(("./", "../")):
        if relative.startswith("../"):
            if not parts:
                raise FetchError(f"its URL leads above its parent's: {one_line(relative, 200)}")
            parts.pop()
        relative = relative.partition("/")[2].lstrip("/")
    return head + "/".join([*parts, relative.rstrip("/")])


def _scheme(url: str) -> str:
    return split(url)[0] if "://" in url else "ssh"


def _origin(url: str) -> tuple[str, str]:
    return (_scheme(url), urlsplit(url).netloc) if "://" in url else ("", url)
