"""conda-lock.yml, version 1 (https://conda.github.io/conda-lock/, `lockfile/v1/models.py`): packages of conda and of
the Python index for several platforms, each with its address and hash."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from hpcbinder.plan import Repo, show

from .environment import Environment
from .pieces import MOST, Pieces, fields

_TAKEN = ("main", "dev")
"""Categories that `conda-lock install` installs."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MD5 = re.compile(r"[0-9a-f]{32}")
_CONDA = re.compile(r"https?://[^\s#@]+/[a-z0-9-]+/[^/\s#]+-[^/\s#-]+-[^/\s#-]+(\.conda|\.tar\.bz2)")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_RELEASE = re.compile(r"[A-Za-z0-9.!+_-]+")
PYPI = ("files.pythonhosted.org", "pypi.org")
"""Servers of the Python package index: what they have is asked of the site's index."""


def read_conda_lock(repo: Repo, path: str, platform: str) -> Environment | None:
    """What a lock has for a platform; None if it has nothing for it.

    Args:
        platform: As conda names it (`linux-64`).

    Raises:
        DetectError: It is no such lock, or holds what is not allowed, with file and line.
    """
    pieces = Pieces(repo, path)
    if (version := pieces.value("version")) != "1":
        pieces.fail(f"is version {show(version) or '(none)'} of conda-lock's format; 1 can be read")
    found = Environment()
    left: dict[str, int] = {}
    section = pieces.section("package")
    ours = [
        (number, each) for number, text in pieces.entries(section) if (each := fields(text)).get("platform") == platform
    ]
    if len(ours) > MOST:
        pieces.fail(f"has more than {MOST} packages for {platform}", ours[MOST][0])
    for number, entry in ours:
        category = entry.get("category", "main")
        if category in _TAKEN:
            _take(pieces, number, entry, found)
        else:
            left[category] = left.get(category, 0) + 1
    found.exact = list(dict.fromkeys(found.exact))
    if not found.exact:
        return None
    found.notes.append(f"with the categories {' and '.join(_TAKEN)}, as conda-lock installs them")
    found.notes += [f"without category {show(name)} ({count})" for name, count in sorted(left.items())]
    return found


def _take(pieces: Pieces, number: int, entry: Mapping[str, str], found: Environment) -> None:
    manager, name, url = (entry.get(key, "") for key in ("manager", "name", "url"))
    sha256, md5 = (entry.get(f"hash.{kind}", "").lower() for kind in ("sha256", "md5"))
    if manager == "conda":
        digest = sha256 or md5
        if not _CONDA.fullmatch(url) or not (_SHA256.fullmatch(digest) or _MD5.fullmatch(digest)):
            pieces.fail(f"says not where {show(name) or 'a package'} is, or not its hash", number)
        found.exact.append(f"{url}#{digest}")
    elif manager == "pip":
        found.pip.append((pip_line(pieces, number, name, entry.get("version", ""), url, sha256), number))
    else:
        pieces.fail(f"has a package of '{show(manager)}', which is neither conda's nor pip's", number)


def pip_line(pieces: Pieces, number: int, name: str, version: str, url: str, sha256: str) -> str:
    """The requirement line of a package that is locked to a file.

    Raises:
        DetectError: It has no name, version or hash.
    """
    hash_ = f" --hash=sha256:{sha256}" if _SHA256.fullmatch(sha256) else ""
    if not _NAME.fullmatch(name):
        pieces.fail(f"'{show(name)}' is not the name of a package", number)
    if url.startswith("git+"):
        return f"{name} @ {url}"
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        pieces.fail(f"takes {name} from an address that is none", number)
    if not hash_:
        pieces.fail(f"has no SHA-256 of {name}", number)
    if host not in PYPI and url:
        return f"{name} @ {url}{hash_}"
    if not _RELEASE.fullmatch(version):
        pieces.fail(f"'{show(version)}' is not a version of {name}", number)
    return f"{name}=={version}{hash_}"
