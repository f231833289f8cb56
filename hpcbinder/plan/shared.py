"""What all buildpacks of one plan write on together, and what finds versions for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from hpcbinder.errors import DetectError
from hpcbinder.model import (
    AsOf,
    Decision,
    Inferred,
    Lock,
    OwnDockerfile,
    Python,
    Step,
    Wanted,
    WantedConda,
)
from hpcbinder.plan.foundation import Foundation, Stand, bootstrapped
from hpcbinder.plan.suites import OLDEST, PYTHON_2, served, too_old


@dataclass(frozen=True)
class SystemPackage:
    """A Debian package that a buildpack wants.

    Attributes:
        name: Package name, without a version.
        version: Exact version, "" for the suite's.
        reason: Why, for a person.
        pack: Who wants it.
    """

    name: str
    version: str
    reason: str
    pack: str


class Resolver(Protocol):
    """Finds versions before anything is built (hpcbinder.lock has the one there is)."""

    def __call__(self, wanted: Wanted) -> Lock:
        """The exact versions of what is wanted, found without running any of it.

        Raises:
            DetectError: There are none that fit together.
        """

    def layered(self, lock: Lock) -> Lock:
        """A lock from elsewhere, in layers that environments made before have already."""

    def known(self, wanted: Wanted, *, built: bool) -> frozenset[str]:
        """Those of the requirements, each for itself and without what it depends on, that the index can meet; with
        `built` also where that has to be built."""

    def constraints_as_of(self, wanted: Wanted) -> tuple[str, ...]:
        """Lines of a constraints file that leave a pip only what was there at `wanted.as_of`.

        Raises:
            DetectError: The index does not say when its files were uploaded.
        """


CondaResolver = Callable[[WantedConda], tuple[Lock, tuple[str, ...]]]
"""Finds conda packages (hpcbinder.conda has the one there is): what is wanted -> the lock, and what is to be said of
it. Raises DetectError where none fit together."""


@dataclass(frozen=True)
class Provided:
    """An environment at `/opt/env` that a pack makes whole, with its interpreter: others only add to it.

    Attributes:
        pack: Who makes it.
        path: The repository's file that says what is in it.
        packages: Python packages in it: normalised name (PEP 503) -> version.
        requirements: Text of a requirements file: what pip is to install into it. Its line numbers are those of `path`.
    """

    pack: str
    path: str
    packages: Mapping[str, str]
    requirements: str = ""


@dataclass(frozen=True)
class Translated:
    """What pip is to install in place of what a file of another ecosystem asks for, as if a requirements.txt said so.

    Attributes:
        pack: Who translated it.
        path: The repository's file.
        requirements: Text of a requirements file. Its line numbers are those of `path`.
        python: The pack chose the interpreter, since the file says which.
    """

    pack: str
    path: str
    requirements: str
    python: bool


@dataclass(frozen=True)
class Described:
    """The repository's own projects, where no other file says what is installed.

    Attributes:
        names: Normalised names (PEP 503) of theirs, and of what they say they depend on.
        optional: What they name without depending on it (extras): normalised name -> requirement (PEP 508).
        resolve: Normalised names of all there would be with some more requirements; None where that is not known
            before the build. Raises DetectError where no versions fit together.
    """

    names: frozenset[str]
    optional: Mapping[str, str]
    resolve: Callable[[Sequence[str]], frozenset[str] | None]


Infer = Callable[[Described | None], Sequence[Inferred]]
"""Tells which Python packages are wanted: all of them, or what is missing beside what a project describes."""


@dataclass
class Shared:
    """What all packs of one plan write on together."""

    pythons: tuple[Python, ...]
    python: Python
    architecture: str
    source: str
    resolver: Resolver | None = None
    conda: CondaResolver | None = None
    translate_conda: bool = False
    provided: Provided | None = None
    translated: Translated | None = None
    stand: Stand = bootstrapped
    foundation: Foundation | None = None
    locks: list[Lock] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    system: list[SystemPackage] = field(default_factory=list)
    system_taken: bool = False
    env: dict[str, str] = field(default_factory=dict)
    path: list[str] = field(default_factory=list)
    kernels: list[str] = field(default_factory=list)
    start: str | None = None
    asked: dict[str, set[str]] = field(default_factory=dict)
    outside: Callable[[str, str], str] | None = None
    own: OwnDockerfile | None = None
    own_pack: str = ""
    mpi_abi: str = "mpich"
    as_of: AsOf | None = None
    dated: AsOf | None = None
    infer: list[Infer] = field(default_factory=list)
    inferred: list[Inferred] = field(default_factory=list)

    def choose(self, python: Python) -> Foundation:
        """Take an interpreter, and find out what an image with it stands on.

        Raises:
            DetectError: It cannot be had.
        """
        if too_old(python.version):
            raise DetectError(
                f"Python {python.version} is too old for a notebook's kernel",
                hint=f"the oldest are {PYTHON_2} and {OLDEST}; there is Python {served(self.pythons)}",
            )
        self.foundation = self.stand(python, self.architecture)
        self.python = self.foundation.python
        return self.foundation
