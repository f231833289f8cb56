"""From what an environment file wants to a lock: rattler asks the site's channels, in a process of its own."""

from __future__ import annotations

import datetime
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hpcbinder.conda.channels import Channels
from hpcbinder.conda.relaxing import given_way
from hpcbinder.config import CondaConfig, SiteConfig
from hpcbinder.errors import BuildError, DetectError, FetchError
from hpcbinder.lock import LockStore, inputs_key, sound
from hpcbinder.model import Lock, LockedPackage, WantedConda
from hpcbinder.plan import MACHINES, SUITES
from hpcbinder.process import start, stop
from hpcbinder.progress import Reporter
from hpcbinder.text import one_line, printable

SUBDIRS = {"amd64": "linux-64", "arm64": "linux-aarch64", "ppc64le": "linux-ppc64le"}
"""OCI architecture -> what channels call it."""

TIMEOUT = 300.0
"""Seconds that a solver may search."""

_SCHEME = "1"
"""Version of how a lock is found; raise it when the same inputs should lead to another lock."""
_PATIENCE = 600.0
"""Seconds for all of it, with what has to be fetched."""
_LIMIT = 64 << 20
"""Bytes of an answer."""
_LINUX = "4.18"
"""Kernel that packages may count on: that of the oldest clusters in use (`__linux`)."""
_LONGEST_SPEC = 300


class CondaResolver:
    """Finds conda packages, and remembers what it found.

    Args:
        store: The catalog's folder, which need not be there: then nothing is kept.
        config: Channels.
        site: Certificates and proxies.
        refresh: Forget what was found before.
        reporter: Gets a line for what takes time.
        given: Locks of an image that is to be made again.
        cache: Folder for the channels' indexes instead of the user's own (`$XDG_CACHE_HOME/hpcbinder/conda`).
    """

    def __init__(
        self,
        store: Path,
        config: CondaConfig,
        site: SiteConfig,
        *,
        refresh: bool,
        reporter: Reporter,
        given: Sequence[Lock] = (),
        cache: Path | None = None,
    ) -> None:
        self._store = store
        self._config = config
        self._channels = Channels(config)
        self._site = site
        self._refresh = refresh
        self._reporter = reporter
        self._given = given
        self._cache = cache

    def __call__(self, wanted: WantedConda) -> tuple[Lock, tuple[str, ...]]:
        """The lock of what is wanted: the one found before for the same, else a new one.

        Returns:
            The lock, and what is to be said of it.

        Raises:
            DetectError: A channel is not asked here, a spec is none, or no packages fit together.
            FetchError: A channel cannot be asked.
            BuildError: rattler cannot be started.
        """
        subdir = SUBDIRS.get(wanted.architecture)
        if subdir is None:
            raise DetectError(f"conda packages for {wanted.architecture} are not known here")
        platform = f"{MACHINES[wanted.architecture]}-manylinux_{SUITES[wanted.suite].glibc.replace('.', '_')}"
        exact = [_explicit(self._channels, url) for url in wanted.exact]
        if exact:
            urls, notes = list(dict.fromkeys(self._channels.of_package(url) for url in exact)), list[str]()
        else:
            urls, notes = self._channels.urls(wanted.channels)
        specs = [self._channels.spec(checked_spec(text)) for text in wanted.specs]
        # A spec's own channel is asked too, after the others.
        urls += [url for url in (spec.rpartition("::")[0] for spec in specs) if url and url not in urls]
        asked = {
            "channels": urls,
            "specs": specs,
            "exact": exact,
            "extras": list(wanted.extras),
            "python": wanted.python,
            "subdir": subdir,
            "virtual": self._virtual(wanted),
            "timeout": TIMEOUT,
            # Only where they say something: what was found before stays found.
            **({"export": True} if wanted.export else {}),
            **({"not_after": wanted.not_after} if wanted.not_after is not None else {}),
        }
        inputs = inputs_key(_SCHEME, asked)
        for lock in self._given:
            if lock.inputs == inputs:
                self._reporter.phase("plan", f"{len(lock.packages)} conda packages as the given lock has them")
                return lock, (*notes, *_gave_way(wanted, lock))
        store = LockStore(self._store, python="conda", platform=platform)
        found = None if self._refresh or self._given else store.find(inputs)
        # That none of the time fitted is no answer to a person who named the date.
        if found is not None and (found.as_of or not wanted.not_after_exact):
            count = len(found.packages)
            self._reporter.phase("plan", f"{count} conda packages as found before (--refresh looks for others)")
            return found, (*notes, *_gave_way(wanted, found))
        lock = replace(self._dated(asked, wanted, urls, platform), inputs=inputs)
        store.add(inputs, lock)
        return lock, (*notes, *_gave_way(wanted, lock))

    def _virtual(self, wanted: WantedConda) -> list[tuple[str, str, str]]:
        """Virtual packages: what the image and the machines it runs on have (conda's documentation, "Managing virtual
        packages"). Nothing of this machine."""
        machine = MACHINES[wanted.architecture]
        found = [
            ("__unix", "0", "0"),
            ("__linux", _LINUX, "0"),
            ("__glibc", SUITES[wanted.suite].glibc, "0"),
            ("__archspec", "1", machine),
        ]
        return [*found, *([("__cuda", self._config.cuda, "0")] if self._config.cuda else [])]

    def _dated(self, asked: dict[str, Any], wanted: WantedConda, urls: Sequence[str], platform: str) -> Lock:
        """The lock as of a date, or the newest where nothing of that time fits and nobody named the date."""
        if wanted.not_after is None or wanted.exact:
            return self._solve(asked, urls, platform)
        as_of = f"{datetime.datetime.fromtimestamp(wanted.not_after, datetime.timezone.utc):%Y-%m-%dT%H:%M:%SZ}"
        try:
            return replace(self._solve(asked, urls, platform), as_of=as_of)
        except DetectError as error:
            problem = f"as of {as_of[:10]} {one_line(error.message, 300)}"
            if wanted.not_after_exact:
                raise DetectError(problem, where=error.where, hint=f"{error.hint}; or another --as-of") from None
            self._reporter.phase("plan", f"{problem}: the newest versions")
        undated = {name: value for name, value in asked.items() if name != "not_after"}
        return replace(self._solve(undated, urls, platform), note=f"{problem}: the newest versions")

    def _solve(self, asked: dict[str, Any], urls: Sequence[str], platform: str) -> Lock:
        begin = time.monotonic()
        what = f"{len(asked['exact'])} packages" if asked["exact"] else f"packages for {len(asked['specs'])} specs"
        self._reporter.phase("plan", f"finding {what} in {', '.join(urls)}")
        try:
            with tempfile.TemporaryDirectory(prefix="hpcbinder-conda-") as name:
                cache = self._cache or _user_cache() or Path(name) / "cache"
                whole = {**asked, "cache": str(cache), "refresh": self._refresh}
                answer = _run(whole, _environment(self._site, Path(name)), Path(name))
        except OSError as error:
            raise FetchError(f"no temporary folder can be used: {error.strerror}", hint="set TMPDIR") from error
        if "problem" in answer:
            raise _problem(str(answer["problem"]), str(answer.get("message", "")), urls)
        for note in answer.get("notes", []):
            self._reporter.phase("plan", one_line(str(note), 300))
        packages = [_package(entry) for entry in answer.get("records", [])]
        names = tuple(package.name for package in packages)
        python = next((package.version for package in packages if package.name == "python"), "")
        lock = Lock(
            ecosystem="conda",
            origin="resolved",
            python=".".join(python.split(".")[:2]),
            platform=platform,
            packages=tuple(sorted(packages, key=lambda package: package.name)),
            layers=(names,) if names else (),
        )
        if not sound(lock):
            raise FetchError("the channel has packages of names or versions that cannot be", where=urls[0])
        self._reporter.phase("plan", f"{len(names)} conda packages found in {time.monotonic() - begin:.1f} s")
        return lock


def checked_spec(text: str) -> str:
    """A match spec of a repository that can only choose among a channel's packages.

    Raises:
        DetectError: It cannot be one, or leads elsewhere.
    """
    if not text.isprintable() or len(text) > _LONGEST_SPEC or "[" in text or "/" in text.rpartition("::")[2]:
        raise DetectError(f"'{one_line(text, 100)}' is not a match spec that is taken here")
    return text


def _explicit(channels: Channels, url: str) -> str:
    address, mark, digest = url.partition("#")
    return f"{channels.package(address)}{mark}{digest}"


def _gave_way(wanted: WantedConda, lock: Lock) -> tuple[str, ...]:
    return given_way(wanted.specs, lock) if wanted.export else ()


def _run(asked: Mapping[str, Any], env: Mapping[str, str], home: Path) -> dict[str, Any]:
    argv = [sys.executable, "-I", "-m", "hpcbinder.conda.solving"]
    try:
        process = start(argv, env=env, stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=home)
    except OSError as error:
        raise BuildError(f"{sys.executable} cannot be started: {error.strerror}") from error
    try:
        output, errors = process.communicate(json.dumps(asked).encode(), timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        raise FetchError(f"finding conda packages took more than {_PATIENCE:.0f} s", hint="pin some versions") from None
    finally:
        stop(process)
    if process.returncode or len(output) > _LIMIT:
        last = errors.decode("utf-8", "replace").strip().splitlines()[-1:] or ["it said nothing"]
        if "No module named 'rattler'" in last[0]:
            raise BuildError("py-rattler is not there", hint="reinstall the package py-rattler from PyPI")
        raise FetchError(f"rattler failed: {one_line(last[0], 300)}")
    answer: dict[str, Any] = json.loads(output)
    return answer


def _environment(site: SiteConfig, home: Path) -> dict[str, str]:
    """All that rattler gets: no home with settings or logins."""
    values = {"HOME": str(home), "TMPDIR": str(home), "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        if value := getattr(site, name):
            values |= {name: value, name.upper(): value}
    if site.ca_certificates is not None:
        values["SSL_CERT_FILE"] = str(site.ca_certificates)
    return values


def _problem(kind: str, message: str, urls: Sequence[str]) -> DetectError | FetchError:
    text = re.sub(r"://[^\s/'\"`]*@", "://", message)
    if kind == "spec":
        return DetectError(one_line(text, 500))
    if kind == "conflict":
        lines = "; ".join(line.strip() for line in printable_lines(text) if line.strip())
        return DetectError(
            f"no conda packages fit together: {lines[:1500]}",
            hint=f"asked were {', '.join(urls)}; loosen or leave out what it names",
        )
    return FetchError(
        f"the conda channels could not be asked: {one_line(text, 500)}",
        hint="check conda.server, conda.mirrors, the proxies and certificates; "
        "--conda pypi builds from Debian's and PyPI's packages instead",
    )


def printable_lines(text: str) -> list[str]:
    """Lines of a message of rattler, safe to show."""
    return [printable(line) for line in text.splitlines()]


def _package(entry: Mapping[str, Any]) -> LockedPackage:
    name, url = str(entry["name"]), str(entry["url"])
    return LockedPackage(
        name,
        str(entry["version"]),
        (f"sha256:{entry['sha256']}",),
        url,
        str(entry["build"]),
        int(entry["size"]),
    )


def _user_cache() -> Path | None:
    """A folder of this user's alone; None if there can be none."""
    import platformdirs

    folder = platformdirs.user_cache_path("hpcbinder") / "conda"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    return folder
