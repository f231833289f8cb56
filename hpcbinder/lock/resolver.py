"""From what is wanted to a lock."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hpcbinder.config import SiteConfig
from hpcbinder.errors import DetectError, FetchError
from hpcbinder.lock.dated import find_dated, limits
from hpcbinder.lock.known import found_in, known_by_name, known_to_index
from hpcbinder.lock.layers import layered
from hpcbinder.lock.platform import platform_of
from hpcbinder.lock.question import Question
from hpcbinder.lock.store import LockStore, inputs_key
from hpcbinder.lock.times import UploadTimes
from hpcbinder.lock.uv import DEFAULT_INDEX, Uv
from hpcbinder.model import Lock, Wanted, to_json
from hpcbinder.plan import served_by_uv
from hpcbinder.progress import Reporter

_SCHEME = "1"
"""Version of how a lock is found; raise it when the same inputs should lead to another lock."""


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
        self._times = UploadTimes(site.pip_index_url or DEFAULT_INDEX, site)

    def __call__(self, wanted: Wanted) -> Lock:
        """The lock of what is wanted: the one found before for the same, else a new one.

        Raises:
            DetectError: No versions fit together.
            FetchError: The index cannot be asked.
            BuildError: uv cannot be started.
        """
        platform = platform_of(wanted.architecture, wanted.suite)
        python = ".".join(wanted.python.split(".")[:2])
        if not served_by_uv(python):
            raise DetectError(
                f"versions of Python packages cannot be found ahead for Python {python}: uv knows none older"
            )
        store = LockStore(self._store, python=python, platform=platform)
        index = re.sub(r"://[^/]*@", "://", self._site.pip_index_url or DEFAULT_INDEX)
        inputs = _inputs(wanted)
        key, source_key = inputs_key(index, inputs), inputs_key(index, "source", wanted.source)
        for lock in self._given:
            # Who gives a lock and names no date means the lock's.
            dates = (wanted.as_of,) if wanted.as_of_exact else (wanted.as_of, lock.as_of, "")
            if lock.inputs in [_inputs(replace(wanted, as_of=date)) for date in dates]:
                self._reporter.phase("plan", f"{len(lock.packages)} Python packages as the given lock has them")
                return lock
        before = next((lock for lock in self._given if (lock.python, lock.platform) == (python, platform)), None)
        if before is None and not self._refresh:
            found = store.find(key)
            # What was found without a date is no answer to who insists on it.
            if found is not None and (found.as_of or not wanted.as_of_exact or not wanted.as_of):
                count = len(found.packages)
                self._reporter.phase("plan", f"{count} Python packages as found before (--refresh looks for others)")
                return found
            before = store.find(source_key)
            if before is not None and before.as_of != wanted.as_of:
                before = None
        lock = self._resolve(wanted, python, platform, before)
        lock = replace(lock, inputs=inputs if lock.as_of else _inputs(replace(wanted, as_of="")))
        lock = self._in_layers(lock, store)
        store.add(key, lock)
        store.add(source_key, lock)
        return lock

    def constraints_as_of(self, wanted: Wanted) -> tuple[str, ...]:
        """Lines of a constraints file that leave a pip only what was there at `wanted.as_of`; see `dated.limits`.

        Raises:
            DetectError: A requirement that is none; or a person named the time, and the index does not say any.
            FetchError: The index cannot be asked.
        """
        self._reporter.phase("plan", f"versions as of {wanted.as_of} of {len(wanted.requirements)} requirements")
        return limits(wanted, self._times)

    def known(self, wanted: Wanted, *, built: bool) -> frozenset[str]:
        """Those of the requirements that the index can meet, each for itself; see `known_to_index`.

        Args:
            built: Also where that has to be built.

        Raises:
            FetchError: The index cannot be asked.
            BuildError: uv cannot be started.
        """
        python = ".".join(wanted.python.split(".")[:2])
        store = LockStore(self._store, python=python, platform=platform_of(wanted.architecture, wanted.suite))
        index = re.sub(r"://[^/]*@", "://", self._site.pip_index_url or DEFAULT_INDEX)
        before = None if self._refresh else store.find(inputs_key(index, "source", wanted.source))
        # What was found for the repository before was there: plans of it work without a network.
        there = found_in(wanted.requirements, [*self._given, *([before] if before else [])], built=built)
        rest = replace(wanted, requirements=tuple(line for line in wanted.requirements if line not in there))
        if not rest.requirements:
            return there
        self._reporter.phase("plan", f"asking the index for {len(rest.requirements)} packages by their names")
        try:
            if not served_by_uv(python):
                return there | known_by_name(rest, self._times, built=built)
            return there | known_to_index(Uv(self._site, cache=self._cache or _user_cache()), rest, built=built)
        except FetchError:
            if before is None:
                raise
            return there

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
        question = Question(uv, wanted, platform, before, self._refresh, self._reporter, self._times)
        if wanted.as_of:
            found, as_of, note = find_dated(question, wanted, self._times)
        else:
            found, as_of, note = question.answer("", ()), "", ""
        if note:
            self._reporter.phase("plan", note)
        seconds = time.monotonic() - begin
        self._reporter.phase("plan", f"{len(found.packages)} Python packages resolved in {seconds:.1f} s")
        return Lock(
            ecosystem=wanted.ecosystem,
            origin="resolved",
            python=python,
            platform=platform,
            packages=found.packages,
            layers=(),
            unresolved=tuple(sorted(found.built)),
            as_of=as_of,
            note=note,
        )


def _inputs(wanted: Wanted) -> str:
    """Names what leads to a lock. Of what was asked for without a date it is the same as before there were dates."""
    values = to_json(replace(wanted, source=""))
    dated = {"as_of": wanted.as_of} if wanted.as_of else {}
    return inputs_key(_SCHEME, {**{k: v for k, v in values.items() if not k.startswith("as_of")}, **dated})


def _user_cache() -> Path | None:
    """A folder of this user's alone; None if there can be none."""
    import platformdirs

    folder = platformdirs.user_cache_path("hpcbinder") / "uv"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    return folder
