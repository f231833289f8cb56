"""A resolver that knows a few packages by heart: plans made with it are the same every day and on every machine.

It stands for the real one (hpcbinder.lock), which asks an index whose packages change; that one's own tests are in
tests/lock.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

from packaging.markers import Marker
from packaging.requirements import Requirement

from hpcbinder.errors import DetectError
from hpcbinder.model import Lock, LockedPackage, Wanted

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
        asked: What it was asked for.
    """

    before: tuple[tuple[str, ...], ...] = ()
    asked: list[Wanted] = field(default_factory=list)

    def __call__(self, wanted: Wanted) -> Lock:
        self.asked.append(wanted)
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
            if name not in PACKAGES and name not in exact:
                raise DetectError(f"no versions fit together: {name} was not found in the package registry")
            version, requires = PACKAGES.get(name, ("any", ()))
            (names if version else built).add(name)
            waiting += map(Requirement, requires)
        packages = tuple(
            exact.get(name) or LockedPackage(name, PACKAGES[name][0], (_hash(name),)) for name in sorted(names)
        )
        platform = f"{'x86_64' if wanted.architecture == 'amd64' else 'aarch64'}-manylinux_2_36"
        lock = Lock("pypi", "resolved", python, platform, packages, (), tuple(sorted(built)))
        return self.layered(lock)

    def layered(self, lock: Lock) -> Lock:
        names = {package.name for package in lock.packages}
        below = tuple(layer for layer in self.before if names.issuperset(layer))
        rest = tuple(sorted(names.difference(*below)))
        return Lock(**{**vars(lock), "layers": (*below, rest) if rest else below})


def _exact(line: str) -> list[tuple[str, LockedPackage]]:
    name, equals, rest = line.partition("==")
    version, *hashes = rest.split(" --hash=")
    return [(name, LockedPackage(name, version, tuple(sorted(hashes))))] if equals and hashes else []


def _hash(name: str) -> str:
    return f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"
