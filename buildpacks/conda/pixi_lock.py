"""pixi.lock, versions 4 to 6 (https://pixi.sh, "Lock file"; rattler's crate `rattler_lock`): environments list the
addresses of their packages for each platform, and the packages stand below, each with its hashes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote

from hpcbinder.plan import Repo, show

from .conda_lock import pip_line
from .environment import Environment
from .pieces import MOST, Pieces, fields

ENVIRONMENT = "default"
VERSIONS = ("4", "5", "6")
_CONDA = re.compile(r"https?://[^\s#@]+/[a-z0-9-]+/[^/\s#]+-[^/\s#-]+-[^/\s#-]+(\.conda|\.tar\.bz2)")
_HEX = re.compile(r"[0-9a-f]{64}|[0-9a-f]{32}")
_LISTED = re.compile(r"- (?P<kind>conda|pypi): ['\"]?(?P<url>[^\s'\"]+)['\"]?")
_GIT = re.compile(r"git\+(?P<url>https://[^?#\s]+)(\?[^#\s]*)?#(?P<commit>[0-9a-f]{40})")


def read_pixi_lock(repo: Repo, path: str, platform: str) -> Environment | None:
    """The environment `default` for a platform; None if the lock has none for it.

    Args:
        platform: As conda names it (`linux-64`).

    Raises:
        DetectError: It is no such lock, or holds what is not allowed, with file and line.
    """
    pieces = Pieces(repo, path)
    if (version := pieces.value("version")) not in VERSIONS:
        pieces.fail(f"is version {show(version) or '(none)'} of pixi's lock format; {', '.join(VERSIONS)} can be read")
    if ENVIRONMENT not in (names := pieces.keys(pieces.section("environments"))):
        hint = f"it has {', '.join(map(show, names[:10]))}" if names else None
        pieces.fail(f"has no environment {ENVIRONMENT}", hint=hint)
    wanted: dict[str, tuple[str, int]] = {}
    for number, text in pieces.entries(pieces.section("environments", ENVIRONMENT, "packages", platform)):
        # Version 6 may say which of several entries of an address is meant; for packages of a channel there is one.
        match = _LISTED.match(text.strip().split("\n")[0])
        if match is None:
            pieces.fail("lists something that is no package of conda or PyPI", number)
        wanted[match["url"]] = (match["kind"], number)
        if len(wanted) > MOST:
            pieces.fail(f"has more than {MOST} packages for {platform}", number)
    if not wanted:
        return None
    found = Environment()
    there: set[str] = set()
    for number, text in pieces.entries(pieces.section("packages")):
        entry = fields(text)
        url = next((url for key in ("conda", "pypi", "url", "path") if (url := entry.get(key, "")) in wanted), "")
        if url and url not in there:
            there.add(url)
            _take(pieces, number, wanted[url][0], url, entry, found)
    if missing := [url for url in wanted if url not in there]:
        pieces.fail(f"lists {show(missing[0][:200])} and says nothing more of it", wanted[missing[0]][1])
    found.notes.append(f"environment {ENVIRONMENT}")
    return found


def _take(pieces: Pieces, number: int, kind: str, url: str, entry: Mapping[str, str], found: Environment) -> None:
    sha256, md5 = entry.get("sha256", "").lower(), entry.get("md5", "").lower()
    if kind == "conda":
        digest = sha256 or md5
        if not _CONDA.fullmatch(url):
            pieces.fail(f"has {show(url[:200])}, which is no package of a channel", number)
        if not _HEX.fullmatch(digest):
            pieces.fail(f"has no hash of {show(url[:200])}", number)
        found.exact.append(f"{url}#{digest}")
        return
    name, version = entry.get("name", ""), entry.get("version", "")
    if url.startswith("git+"):
        match = _GIT.fullmatch(url)
        if match is None:
            pieces.fail(f"takes {show(name)} from {show(url[:200])}, which is no commit of an https address", number)
        found.pip.append((f"{name} @ git+{match['url']}@{match['commit']}", number))
    elif "://" in url:
        version = version or _version_of(url)
        found.pip.append((pip_line(pieces, number, name, version, url, sha256), number))
    else:
        # A folder of the repository: mostly the project itself.
        place = url if url.startswith(".") else f"./{url}"
        found.pip.append((f"-e {place}" if entry.get("editable") == "true" else place, number))


def _version_of(url: str) -> str:
    """A version by a file's name, which version 6 leaves out for some."""
    parts = unquote(url.rpartition("/")[2]).split("-")
    return parts[1] if len(parts) > 1 else ""
