"""Where a requirement's source is: an archive of the index or a URL, a commit of a git repository; fetched, not run."""

from __future__ import annotations

import posixpath
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, unquote, urlsplit

from hpcbinder.catalog import make_folder
from hpcbinder.config import SiteConfig, SourceConfig, redact
from hpcbinder.errors import BuildError, FetchError
from hpcbinder.model import LockedPackage
from hpcbinder.progress import Reporter
from hpcbinder.source import Reach, fetch
from hpcbinder.text import one_line
from hpcbinder.wheels import Candidate, Downloads, Source, choose_sdist

if TYPE_CHECKING:
    from packaging.requirements import Requirement

_HASH = re.compile(r"(?<=\s)--hash=(sha256:[0-9a-f]{64})(?=\s|$)")


class Unbuildable(BuildError):
    """What is to be built cannot be built here, while an engine may build it.

    Attributes:
        step: Number of the step in the plan.
    """

    step: int = -1


class Finder:
    """Fetches sources.

    Args:
        folder: Where archives are kept (`sources/` of it).
        room: For what is not kept.
        site: Package index, certificates, proxies.
        source: From where git repositories may come.
        python: `X.Y.Z` that it is built for.
        prereleases: Pre-releases will do, too.
        as_of: Time of which sources of the index are, as far as it says when they were uploaded; "" for the newest.
    """

    def __init__(
        self,
        folder: Path,
        room: Path,
        site: SiteConfig,
        source: SourceConfig,
        reporter: Reporter,
        *,
        python: str,
        prereleases: bool,
        as_of: str = "",
    ) -> None:
        self._folder = folder
        self._room = room
        self._site = site
        self._source = source
        self._reporter = reporter
        self._python = python
        self._prereleases = prereleases
        self._as_of = as_of

    def find(self, requirement: Requirement, hashes: frozenset[str]) -> Source:
        """A requirement's source, fetched.

        Args:
            hashes: `sha256:…` that it must have one of; empty for any.

        Raises:
            Unbuildable: It is of a kind that is not built here.
            BuildError: There is none that will do.
            FetchError: It cannot be had.
        """
        name, url = name_of(requirement), requirement.url
        if requirement.extras:
            raise Unbuildable(f"{name} is wanted with extras, which only its build tells")
        if url is None:
            return self._chosen(name, requirement, hashes)
        if url.startswith("git+"):
            return self._git(name, url)
        path = urlsplit(url).path
        filename = unquote(path.rpartition("/")[2])
        ending = next((ending for ending in (".tar.gz", ".zip") if filename.endswith(ending)), None)
        if ending is None or not hashes or "#" in url:
            raise Unbuildable(f"{name} comes from {one_line(redact(url), 200)}, not from an archive with a SHA-256")
        return self._fetched(LockedPackage(name, "", tuple(sorted(hashes)), url), Candidate(filename, url, hashes))

    def _chosen(self, name: str, requirement: Requirement, hashes: frozenset[str]) -> Source:
        sdist = choose_sdist(
            self._downloads(".tar.gz").sdists(name),
            name,
            requirement.specifier,
            hashes=hashes,
            python=self._python,
            prereleases=self._prereleases,
            as_of=self._as_of,
        )
        package = LockedPackage(name, sdist.version, (f"sha256:{sdist.sha256}",))
        return self._fetched(package, Candidate(sdist.filename, sdist.url, frozenset(package.hashes)))

    def _fetched(self, package: LockedPackage, candidate: Candidate) -> Source:
        downloads = self._downloads(".zip" if candidate.filename.endswith(".zip") else ".tar.gz")
        self._reporter.log("fetch", one_line(candidate.filename, 200))
        digest = downloads.fetch(package, candidate)
        path = downloads.path(digest)
        return Source(package.name, package.version, f"sha256:{digest}", path, url=package.url)

    def _downloads(self, ending: str) -> Downloads:
        folder = self._folder / "sources"
        make_folder(folder)
        return Downloads(folder, self._room, self._site, self._source.hosts, (), ending)

    def _git(self, name: str, url: str) -> Source:
        parts = urlsplit(url.removeprefix("git+"))
        asked = {key: values[-1] for key, values in parse_qs(parts.fragment).items()}
        path, at, ref = parts.path.rpartition("@")
        plain = parts._replace(path=path if at else parts.path, fragment="", query="").geturl()
        below = posixpath.normpath(asked.get("subdirectory", ".")).lstrip("/")
        if ".." in below.split("/"):
            raise BuildError(f"{name}: the folder {one_line(below, 100)} is outside of its repository")
        if parts.scheme not in ("http", "https"):
            raise Unbuildable(f"{name} comes from {one_line(redact(url), 200)}, not over https")
        folder = self._room / secrets.token_hex(4)
        folder.mkdir()
        try:
            # A repository says where this is, and not who builds it.
            reach = Reach((), self._source.hosts)
            reach.check(plain)
            reach.look_up(parts.hostname or "")
            checkout = fetch(
                plain,
                ref=unquote(ref) if at else None,
                subdir=None,
                workdir=folder,
                reporter=self._reporter,
                site=self._site,
                source=self._source,
                named=False,
            )
        except FetchError as error:
            raise FetchError(f"{name}: {error.message}", where=error.where, hint=error.hint) from None
        told = {"requested_revision": unquote(ref)} if at else {}
        told |= {"subdirectory": below} if below != "." else {}
        fragment = "&".join(f"{key}={quote(value)}" for key, value in told.items())
        shown = f"git+{plain}@{checkout.commit}" + (f"#{fragment}" if fragment else "")
        identity = f"git:{checkout.commit}:{checkout.tree}"
        return Source(name, "", identity, checkout.root, "" if below == "." else below, shown, title=name)


def parse(line: str) -> tuple[Requirement, frozenset[str]]:
    """A requirement line, and the hashes (`sha256:…`) behind it.

    Raises:
        Unbuildable: It is none.
    """
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        return Requirement(_HASH.sub("", line).strip()), frozenset(_HASH.findall(line))
    except (InvalidRequirement, RecursionError):
        raise Unbuildable(f"{one_line(line, 100)} is nothing that is built here") from None


def name_of(requirement: Requirement) -> str:
    """The package it names, normalised."""
    from packaging.utils import canonicalize_name

    return canonicalize_name(requirement.name)
