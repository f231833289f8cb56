"""What a repository of tests/repos needs besides its files: NAME.toml beside it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOS = Path(__file__).parent.parent / "repos"
NAMES = sorted(path.name for path in REPOS.iterdir() if path.is_dir())


@dataclass(frozen=True)
class Situation:
    """tests/repos/NAME.toml: what a plan of the repository is made with.

    Attributes:
        commit_date: When its commit was made (a TOML date and time).
        checkout: More of its `Checkout`, by the names of its attributes.
        options: Arguments of `make_plan`, by name.
        packages: Packages that the index has besides the recorded ones: name -> version; "" for one without a wheel.
        refused: Names of packages whose metadata uv refuses.
        since: Name -> the oldest Python that the index still has files for.
        conda: Conda packages that the channels have besides those: name -> version.
        pythons: Full versions of interpreters that can be had besides those of the Debian releases.
        lock: Versions are found before the build.
        as_of: Of which time versions are, as --as-of has it, decided on 2026-06-01; "" for nobody having decided.
    """

    commit_date: Any = None
    checkout: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)
    refused: tuple[str, ...] = ()
    since: Mapping[str, str] = field(default_factory=dict)
    conda: Mapping[str, str] = field(default_factory=dict)
    pythons: tuple[str, ...] = ()
    lock: bool = True
    as_of: str = ""

    @classmethod
    def of(cls, name: str) -> Situation:
        """That of the repository NAME."""
        file = REPOS / f"{name}.toml"
        return cls(**tomllib.loads(file.read_text())) if file.exists() else cls()
