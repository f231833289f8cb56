"""From what is wanted to a lock."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hpcbinder.config import SiteConfig
from hpcbinder.errors import DetectError
from hpcbinder.lock.layers import layered
from hpcbinder.lock.messages import conflict, must_be_built, without_wheels
from hpcbinder.lock.platform import platform_of, uv_platform
from hpcbinder.lock.pylock import read_pylock
from hpcbinder.lock.store import LockStore, inputs_key
from hpcbinder.lock.uv import DEFAULT_INDEX, Answer, Uv
from hpcbinder.model import Lock, LockedPackage, Wanted
from hpcbinder.progress import Reporter
from hpcbinder.text import one_line

_SCHEME = "1"
"""Version of how a lock is found; raise it when the same inputs should lead to another lock."""

_MOST_BUILT = 40
"""Packages without wheels that are told apart one by one before we give up."""


class Resolver:
    """Finds versions, and remembers what it found.

    Args:
        store: The catalog's folder, which need not be there: then nothing is kept.
        site: The package index, certificates and proxies.
        refresh: Forget what was found before.
        reporter: Gets a line for what takes time.
        given: Locks of an image that is to be made again: taken where the same is asked for, else their versions are
            kept where they fit.
        cache: Folder for uv's cache of the index instead of the user's own (`$XDG_CACHE_HOME/hpcbinder/uv`).
    """

    def __init__(
        self,
        store: Path,
        site: SiteConfig,
        *,
        refresh: bool,
        reporter: Reporter,
        given: Sequence[Lock] = (),
        cache: Path | None = None,
    ) -> None:
        self._store = store
        self._given = given
        self._site = site
        self._refresh = refresh
        self._reporter = reporter
        self._cache = cache

    def __call__(self, wanted: Wanted) -> Lock:
        """The lock of what is wanted: the one found before for the same, else a new one.

        Raises:
            DetectError: No versions fit together.
            FetchError: The index cannot be asked.
            BuildError: uv cannot be started.
        """
        platform = platform_of(wanted.architecture, wanted.suite)
        python = ".".join(wanted.python.split(".")[:2])
        store = LockStore(self._store, python=python, platform=platform)
        index = re.sub(r"://[^/]*@", "://", self._site.pip_index_url or DEFAULT_INDEX)
        inputs = inputs_key(_SCHEME, replace(wanted, source=""))
        key, source_key = inputs_key(index, inputs), inputs_key(index, "source", wanted.source)
        for lock in self._given:
            if lock.inputs == inputs:
                self._reporter.phase("plan", f"{len(lock.packages)} Python packages as the given lock has them")
                return lock
        before = next((lock for lock in self._given if (lock.python, lock.platform) == (python, platform)), None)
        if before is None and not self._refresh:
            if (found := store.find(key)) is not None:
                count = len(found.packages)
                self._reporter.phase("plan", f"{count} Python packages as found before (--refresh looks for others)")
                return found
            before = store.find(source_key)
        lock = replace(self._resolve(wanted, python, platform, before), inputs=inputs)
        lock = self._in_layers(lock, store)
        store.add(key, lock)
        store.add(source_key, lock)
        return lock

    def layered(self, lock: Lock) -> Lock:
        """A lock from a repository's own file, in layers that stand on those of environments made before."""
        store = LockStore(self._store, python=lock.python, platform=lock.platform)
        lock = self._in_layers(lock, store)
        store.add(inputs_key(replace(lock, layers=())), lock)
        return lock

    def _in_layers(self, lock: Lock, store: LockStore) -> Lock:
        for given in self._given:
            if (given.platform, given.python, given.packages) == (lock.platform, lock.python, lock.packages):
                return replace(lock, layers=given.layers)
        return replace(lock, layers=layered(lock, store.newest()))

    def _resolve(self, wanted: Wanted, python: str, platform: str, before: Lock | None) -> Lock:
        begin = time.monotonic()
        self._reporter.phase("plan", f"finding versions of {len(wanted.requirements)} requirements for Python {python}")
        uv = Uv(self._site, cache=self._cache or _user_cache())
        asked = _Question(uv, wanted, platform, before, self._refresh, self._reporter)
        hashed = [_split_hashes(line) for line in (*wanted.requirements, *wanted.constraints)]
        built: set[str] = set()
        while True:
            packages = asked.packages(built)
            packages, foreign = _with_hashes(packages, hashed)
            if not foreign:
                break
            built |= foreign
        seconds = time.monotonic() - begin
        self._reporter.phase("plan", f"{len(packages)} Python packages resolved in {seconds:.1f} s")
        return Lock(
            ecosystem=wanted.ecosystem,
            origin="resolved",
            python=python,
            platform=platform,
            packages=packages,
            layers=(),
            unresolved=tuple(sorted(built)),
        )


class _Question:
    """What is asked of uv, again and again with more packages left out."""

    def __init__(
        self, uv: Uv, wanted: Wanted, platform: str, before: Lock | None, refresh: bool, reporter: Reporter
    ) -> None:
        self._uv = uv
        self._wanted = wanted
        self._platform = uv_platform(platform)
        self._requirements = [_plain(line) for line in wanted.requirements]
        self._constraints = [_plain(line) for line in wanted.constraints]
        self._preferences = [(package.name, package.version) for package in before.packages] if before else []
        self._refresh = refresh
        self._reporter = reporter

    def packages(self, built: set[str]) -> tuple[LockedPackage, ...]:
        """The packages that fit, without those that come from elsewhere.

        Args:
            built: Names that have to be built; more of them are added.

        Raises:
            DetectError: There are none that fit.
        """
        while True:
            answer = self._ask(self._requirements, excluded={*self._wanted.elsewhere, *built})
            if answer.pylock is not None:
                for line in answer.message.splitlines():
                    if line.startswith("warning: "):
                        self._reporter.phase("plan", one_line(line, 500))
                return read_pylock(answer.pylock)
            found = {
                name for name in without_wheels(answer.message) if name not in built and self._no_wheel(answer, name)
            }
            if not found or len(built) > _MOST_BUILT:
                raise conflict(answer.message)
            built |= found

    def _ask(self, requirements: Sequence[str], *, excluded: set[str], dependencies: bool = True) -> Answer:
        refresh, self._refresh = self._refresh, False
        return self._uv.compile(
            requirements,
            constraints=self._constraints,
            excluded=sorted(excluded),
            preferences=self._preferences,
            prereleases=self._wanted.prereleases,
            python=self._wanted.python,
            platform=self._platform,
            refresh=refresh,
            dependencies=dependencies,
        )

    def _no_wheel(self, answer: Answer, name: str) -> bool:
        """Nothing of a package that would do has a wheel: not just some version that uv came across."""
        asked = [line for line in self._requirements if _name(line) == name]
        if not asked:
            return must_be_built(answer.message, name)
        alone = self._ask(asked, excluded=set(), dependencies=False)
        return alone.pylock is None and name in without_wheels(alone.message)


def _plain(line: str) -> str:
    """A requirement without its hashes, checked: uv would follow options, run git for its URLs, and read files.

    Raises:
        DetectError: It is not just a name, versions and a marker.
    """
    from packaging.requirements import InvalidRequirement, Requirement

    text, _ = _split_hashes(line)
    try:
        requirement = Requirement(text)
    except (InvalidRequirement, RecursionError):
        requirement = None
    if requirement is None or requirement.url is not None or "$" in text or len(text.splitlines()) != 1:
        raise DetectError(f"'{one_line(text, 200)}' names nothing on the package index")
    return text


def _split_hashes(line: str) -> tuple[str, frozenset[str]]:
    """A requirement, and the `sha256:…` that it says it has."""
    text, *hashes = line.split(" --hash=")
    return text.strip(), frozenset(value.strip() for value in hashes)


def _with_hashes(
    packages: tuple[LockedPackage, ...], lines: Sequence[tuple[str, frozenset[str]]]
) -> tuple[tuple[LockedPackage, ...], set[str]]:
    """Leave only the files whose hashes the requirements name; and the names of packages that have none of these (it
    may be a source's hash)."""
    named: dict[str, frozenset[str]] = {}
    for text, hashes in lines:
        if hashes:
            named[_name(text)] = named.get(_name(text), frozenset()) | hashes
    result, foreign = [], set()
    for package in packages:
        if package.name in named:
            package = replace(package, hashes=tuple(sorted(named[package.name].intersection(package.hashes))))
            if not package.hashes:
                foreign.add(package.name)
        result.append(package)
    return tuple(result), foreign


def _name(line: str) -> str:
    match = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line)
    return re.sub(r"[-_.]+", "-", match[0]).lower() if match else ""


def _user_cache() -> Path | None:
    """A folder of this user's alone; None if there can be none."""
    import platformdirs

    folder = platformdirs.user_cache_path("hpcbinder") / "uv"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    return folder
