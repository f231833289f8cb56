"""Which commit a name means, asked of the server itself: exact names only, never the nearest thing."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hpcbinder.errors import FetchError, UsageError
from hpcbinder.source.command import GitCommand, explain
from hpcbinder.source.location import parse_ref, parse_subdir
from hpcbinder.source.pages import Page
from hpcbinder.text import one_line

_ID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_SHORT = re.compile(r"[0-9a-f]{4,63}")
_WORDS = 20
"""Parts that the name of a branch may have on a page."""


@dataclass(frozen=True)
class Wanted:
    """What to fetch.

    Attributes:
        name: Full name of a ref (`HEAD`, `refs/heads/x`), or a full commit; "" for a short commit.
        short: Beginning of a commit's id; "" if `name` says it.
        note: What a person should know about the choice.
        sha256: The repository's ids are SHA-256.
        branch: Name of the branch it is, "" for none.
    """

    name: str
    short: str = ""
    note: str = ""
    sha256: bool = False
    branch: str = ""


def resolve(git: GitCommand, url: str, ref: str | None) -> Wanted:
    """Find what `ref` names in the repository at `url`.

    A full commit id is taken as such; else an exact name wins (`refs/…` as it is, then branch, then tag), and only
    then may it be the beginning of a commit's id.

    Raises:
        FetchError: The repository cannot be reached or has no such ref.
    """
    listing = git.run(["ls-remote", "--symref", "--", url, "HEAD", *([ref] if ref not in (None, "HEAD") else [])])
    if listing.status != 0:
        raise explain(listing, url)
    found = _names(listing.stdout)
    sha256 = any(len(id_) == 64 for id_ in found.values())
    if ref is None or ref == "HEAD":
        if "HEAD" not in found:
            raise _without_head(git, url)
        head = re.search(r"^ref: refs/heads/(.+)\tHEAD$", listing.stdout, re.MULTILINE)
        return Wanted("HEAD", sha256=sha256, branch=head[1] if head else "")
    if _ID.fullmatch(ref.lower()):
        return Wanted(ref.lower(), sha256=len(ref) == 64)
    if ref.startswith("refs/") and ref in found:
        return Wanted(
            ref, sha256=sha256, branch=ref.removeprefix("refs/heads/") if ref.startswith("refs/heads/") else ""
        )
    branch, tag = f"refs/heads/{ref}" in found, f"refs/tags/{ref}" in found
    if branch and tag:
        note = f"{one_line(ref, 100)} is a branch and a tag: the branch is taken (the tag is refs/tags/{ref})"
        return Wanted(f"refs/heads/{ref}", note=one_line(note), sha256=sha256, branch=ref)
    if branch:
        return Wanted(f"refs/heads/{ref}", sha256=sha256, branch=ref)
    if tag:
        return Wanted(f"refs/tags/{ref}", sha256=sha256)
    if _SHORT.fullmatch(ref.lower()):
        return Wanted("", short=ref.lower(), sha256=sha256)
    raise FetchError(f"no branch, tag or commit '{one_line(ref, 100)}'", where=url, hint=_close(git, url, ref))


def resolve_page(git: GitCommand, url: str, page: Page) -> tuple[str, str]:
    """The ref and the folder that a page shows: its address alone does not say where one ends and the other begins.

    A page of a file means the whole repository, as its environment is described at the root.

    Raises:
        UsageError: It cannot be the address of such a page.
        FetchError: The repository has no such ref, or several fit.
    """
    words = page.words
    if page.kind == "commit":
        return parse_ref("/".join(words)), ""
    if _ID.fullmatch(words[0].lower()) or words[0] == "HEAD":
        length = 1
    else:
        names = ["/".join(words[: n + 1]) for n in range(min(len(words), _WORDS))]
        names = [name for name in names if _could_be(name)]
        patterns = [f"refs/{kind}/{name}" for name in names for kind in ("heads", "tags")]
        listing = git.run(["ls-remote", "--", url, *patterns]) if patterns else None
        if listing is not None and listing.status != 0:
            raise explain(listing, url)
        found = _names(listing.stdout) if listing is not None else {}
        fitting = [name for name in names if f"refs/heads/{name}" in found or f"refs/tags/{name}" in found]
        shown = one_line("/".join(words), 120)
        if not fitting:
            raise FetchError(
                f"no branch or tag is the beginning of '{shown}'", where=url, hint=_close(git, url, words[0])
            )
        if len(fitting) > 1:
            several = " and ".join(one_line(name, 100) for name in fitting)
            raise FetchError(
                f"'{shown}' can mean {several}", where=url, hint="give the repository with --ref and --subdir"
            )
        length = fitting[0].count("/") + 1
    subdir = parse_subdir("/".join(words[length:])) if page.kind == "tree" else ""
    return "/".join(words[:length]), subdir


def _could_be(name: str) -> bool:
    try:
        return bool(parse_ref(name))
    except UsageError:
        return False


def expand(git: GitCommand, url: str, short: str) -> str:
    """The one commit on any branch or tag, already fetched by `git`, whose id begins with `short`.

    Raises:
        FetchError: None or several.
    """
    listed = git.run(["rev-parse", f"--disambiguate={short}"])
    commits = [id_ for id_ in listed.stdout.split() if _ID.fullmatch(id_) and _is_commit(git, id_)]
    if len(commits) == 1:
        return commits[0]
    if commits:
        some = ", ".join(commits[:3])
        raise FetchError(f"{len(commits)} commits begin with {short}", where=url, hint=f"give more of it: {some}")
    raise FetchError(
        f"no branch or tag is named {short}, and no commit on one begins with it",
        where=url,
        hint=_close(git, url, short),
    )


def _is_commit(git: GitCommand, id_: str) -> bool:
    return git.run(["cat-file", "-t", id_]).stdout.strip() == "commit"


def _names(listing: str) -> dict[str, str]:
    """`name -> id` of what `git ls-remote` printed (`id TAB name`, or `ref: target TAB HEAD`)."""
    names = {}
    for line in listing.splitlines():
        id_, _, name = line.partition("\t")
        if _ID.fullmatch(id_):
            names[name] = id_
    return names


def _without_head(git: GitCommand, url: str) -> FetchError:
    names = _listed(git, url)
    if not names:
        return FetchError("the repository is empty", where=url)
    return FetchError("the repository has no default branch", where=url, hint=f"give --ref: {', '.join(names[:5])}")


def _listed(git: GitCommand, url: str) -> list[str]:
    listing = git.run(["ls-remote", "--heads", "--tags", "--refs", "--", url])
    return [one_line(name.split("/", 2)[2], 100) for name in _names(listing.stdout) if name.count("/") > 1]


def _close(git: GitCommand, url: str, ref: str) -> str:
    import difflib

    names = _listed(git, url)
    close = difflib.get_close_matches(ref, names[:20_000], n=3)
    if close:
        return f"did you mean {', '.join(close)}?"
    shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    return f"there are: {shown}" if names else "the repository is empty"
