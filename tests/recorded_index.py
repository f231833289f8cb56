"""A resolver that knows a few packages by heart: plans made with it are the same every day and on every machine.

It stands for the real one (hpcbinder.lock), which asks an index whose packages change; that one's own tests are in
tests/lock.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.version import Version

from hpcbinder.errors import DetectError, OldMetadataError
from hpcbinder.model import Lock, LockedPackage, Wanted, WantedConda

PACKAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "iniconfig": ("2.0.0", ()),
    "ipykernel": ("6.29.5", ("traitlets", "pyzmq")),
    "matplotlib": ("3.9.2", ("numpy", "pillow")),
    "numpy": ("2.1.1", ()),
    "pandas": ("2.2.3", ("numpy", "python-dateutil")),
    "pillow": ("10.4.0", ()),
    "pip": ("24.2", ()),
    "python-dateutil": ("2.9.0", ("six",)),
    "pyzmq": ("26.2.0", ()),
    "scipy": ("1.14.1", ("numpy",)),
    "six": ("1.16.0", ()),
    "torch": ("2.4.1", ("numpy",)),
    "traitlets": ("5.14.3", ()),
    # Says what it depends on only when it is built.
    "docopt": ("", ()),
}


@dataclass
class RecordedResolver:
    """Resolves from PACKAGES; what is not there does not exist, what has no version has no wheel. What is asked for in
    one version and with hashes is there, without depending on anything more.

    Attributes:
        before: Names in the layers that an environment made before has.
        packages: What the index has besides PACKAGES, written like these.
        since: Name -> the oldest Python (`X.Y`) that the index still has files for.
        refused: Names of packages whose metadata uv refuses.
        asked: What it was asked for.
    """

    before: tuple[tuple[str, ...], ...] = ()
    packages: Mapping[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    since: Mapping[str, str] = field(default_factory=dict)
    refused: Collection[str] = ()
    asked: list[Wanted] = field(default_factory=list)

    def __call__(self, wanted: Wanted) -> Lock:
        self.asked.append(wanted)
        known = {**PACKAGES, **self.packages}
        python = ".".join(wanted.python.split(".")[:2])
        names: set[str] = set()
        built: set[str] = set()
        waiting = [Requirement(line.split(" --hash")[0]) for line in wanted.requirements]
        exact = {name: package for line in wanted.requirements for name, package in _exact(line)}
        while waiting:
            requirement = waiting.pop()
            name = re.sub(r"[-_.]+", "-", requirement.name).lower()
            marker = requirement.marker or Marker("python_version > '0'")
            if name in {*names, *wanted.elsewhere} or not marker.evaluate({"python_version": python}):
                continue
            if name not in known and name not in exact:
                raise DetectError(f"no versions fit together: {name} was not found in the package registry")
            if name in self.refused:
                raise OldMetadataError(f"no versions fit together: {name}{requirement.specifier} has invalid metadata")
            if Version(python) < Version(self.since.get(name, "0")):
                raise DetectError(f"no versions fit together: {name} has no wheels for Python {python}")
            version, requires = known.get(name, ("any", ()))
            (names if version else built).add(name)
            waiting += map(Requirement, requires)
        packages = tuple(
            exact.get(name) or LockedPackage(name, known[name][0], (_hash(name),)) for name in sorted(names)
        )
        platform = f"{'x86_64' if wanted.architecture == 'amd64' else 'aarch64'}-manylinux_2_36"
        lock = Lock("pypi", "resolved", python, platform, packages, (), tuple(sorted(built)), as_of=wanted.as_of)
        return self.layered(lock)

    def known(self, wanted: Wanted, *, built: bool) -> frozenset[str]:
        known = {name for name, (version, _) in {**PACKAGES, **self.packages}.items() if version or built}
        return frozenset(line for line in wanted.requirements if _name(line) in known)

    def layered(self, lock: Lock) -> Lock:
        names = {package.name for package in lock.packages}
        below = tuple(layer for layer in self.before if names.issuperset(layer))
        rest = tuple(sorted(names.difference(*below)))
        return Lock(**{**vars(lock), "layers": (*below, rest) if rest else below})

    def constraints_as_of(self, wanted: Wanted) -> tuple[str, ...]:
        """What the index had in the newest version is what it had then."""
        known = {**PACKAGES, **self.packages}
        names = sorted({_name(line) for line in wanted.requirements}.intersection(known))
        return tuple(f"{name}<={known[name][0]}" for name in names if known[name][0])


@dataclass
class RecordedConda:
    """Solves conda environments from PACKAGES and Pythons: each package that is asked for by name, and nothing more.

    Attributes:
        packages: What the channels have besides these: name -> version.
    """

    packages: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, wanted: WantedConda) -> tuple[Lock, tuple[str, ...]]:
        known = {**{name: version for name, (version, _) in PACKAGES.items() if version}, **self.packages}
        found: dict[str, str] = {}
        python = f"{wanted.python}.0"
        for spec in wanted.specs:
            match = re.fullmatch(r"(?:.*::)?([A-Za-z0-9_.-]+)(.*)", spec)
            assert match is not None
            name, version = match[1].lower(), match[2].strip(" =").split("=")[0].strip("* ")
            if name == "python":
                asked = re.search(r"\d+\.\d+(\.\d+)?", version)
                python = (asked[0] if asked and asked[1] else f"{asked[0]}.0") if asked else python
                python = "2.7.18" if version == "2" else python
            elif name not in known:
                raise DetectError(f"no versions fit together: {name} is in no channel")
            else:
                found[name] = known[name]
        for url in wanted.exact:
            name, version, _ = url.partition("#")[0].rpartition("/")[2].rsplit("-", 2)
            if name == "python":
                python = version
            found[name] = version
        found |= {name: known[name] for name in wanted.extras if name in known}
        found["python"] = python
        url = "https://conda.example.org/channel/linux-64"
        packages = tuple(
            LockedPackage(name, version, (_hash(name),), f"{url}/{name}-{version}-{build}.conda", build, 1)
            for name, version in sorted(found.items())
            for build in ("pyhd8ed1ab_0" if name in PACKAGES else "0",)
        )
        short = ".".join(python.split(".")[:2])
        names = tuple(package.name for package in packages)
        lock = Lock("conda", "resolved", short, "x86_64-manylinux_2_36", packages, (names,))
        if wanted.not_after is not None and not wanted.exact:
            lock = replace(lock, as_of=f"{datetime.fromtimestamp(wanted.not_after, timezone.utc):%Y-%m-%dT%H:%M:%SZ}")
        return lock, ()


def _name(line: str) -> str:
    return re.sub(r"[-_.]+", "-", Requirement(line).name).lower()


def _exact(line: str) -> list[tuple[str, LockedPackage]]:
    name, equals, rest = line.partition("==")
    version, *hashes = rest.split(" --hash=")
    return [(name, LockedPackage(name, version, tuple(sorted(hashes))))] if equals and hashes else []


def _hash(name: str) -> str:
    return f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"
