"""Addresses as people copy them from a browser: a page of a repository on GitHub or GitLab."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True)
class Page:
    """What a page shows.

    Attributes:
        repository: The repository's URL.
        kind: `tree` (a folder), `blob` (a file), `commit` (a commit, or a tag's release).
        words: The parts of the address that hold the name of a ref and then a path. Where one ends and the other
            begins, only the repository knows.
    """

    repository: str
    kind: str
    words: tuple[str, ...]


_GITHUB = re.compile(r"/(?P<repository>[A-Za-z0-9-]+/[A-Za-z0-9._-]+?)(?:\.git)?(?:/(?P<rest>.*))?")
_GITLAB = re.compile(r"/(?P<repository>[^?#]+?)(?:\.git)?/-/(?P<rest>.*)")
_KINDS = {
    "tree": "tree",
    "blob": "blob",
    "raw": "blob",
    "blame": "blob",
    "commits": "tree",
    "commit": "commit",
    "releases/tag": "commit",
    "tags": "commit",
    "releases": "commit",
}


def find_page(spec: str) -> Page | str | None:
    """The page at an address.

    Returns:
        The page; or the repository's URL, where the address is its own but for what a browser adds; or None if it is
        no page of GitHub's or GitLab's.

    Raises:
        ValueError: A page that shows no files. The text says what to give instead.
    """
    try:
        url = urlsplit(spec)
    except ValueError:
        return None
    host = url.netloc.rpartition("@")[2].lower()
    github = host in ("github.com", "www.github.com")
    found = _GITHUB.fullmatch(url.path) if github else _GITLAB.fullmatch(url.path)
    if url.scheme.lower() not in ("http", "https"):
        return None
    if found is None:
        if host == "gitlab.com" and (url.query or url.fragment):
            return f"{url.scheme}://{url.netloc}{url.path}"
        return None
    repository = f"{url.scheme}://{url.netloc}/{found['repository']}"
    rest = [unquote(word) for word in (found["rest"] or "").split("/") if word]
    if not rest:
        # only what a browser adds is taken away
        return repository if url.query or url.fragment else None
    for length in (2, 1):
        kind = _KINDS.get("/".join(rest[:length]))
        if kind and len(rest) > length:
            return Page(repository, kind, tuple(rest[length:]))
    raise ValueError(f"is a page without files: give {repository}")
