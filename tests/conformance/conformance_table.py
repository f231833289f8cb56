"""What is known of repo2docker's test repositories: cases.toml, and what both sides call the same."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

KINDS = {
    "DockerBuildPack": "dockerfile",
    "NixBuildPack": "nix",
    "JuliaProjectTomlBuildPack": "julia",
    "JuliaRequireBuildPack": "julia",
    "CondaBuildPack": "conda",
    "RBuildPack": "r",
    "PipfileBuildPack": "python",
    "PythonBuildPack": "python",
}
"""repo2docker's class -> our buildpack, the one that counts most first."""


@dataclass(frozen=True)
class Case:
    """One of their repositories.

    Attributes:
        verified: It is built and its `verify` run.
        slow: That takes so long that it is done each night only.
        options: Of `hpcbinder build` for that.
        because: Why it is not, or why its script fails where it should not succeed.
        differs: Why our choice is another, "" where it is the same.
        note: What else is done otherwise.
    """

    verified: bool = False
    slow: bool = False
    options: tuple[str, ...] = ()
    because: str = ""
    differs: str = ""
    note: str = ""

    @property
    def said(self) -> str:
        """For the page."""
        if not self.verified:
            return f"not run: {self.because}"
        return "passes" + (f" ({' '.join(self.options)})" if self.options else "")


def read_table() -> dict[str, Case]:
    """cases.toml. A reason that starts with `$` stands there once, under [reasons]."""
    table = tomllib.loads((Path(__file__).parent / "cases.toml").read_text())
    reasons = table.pop("reasons")

    def meant(text: str) -> str:
        return reasons[text[1:]] if text.startswith("$") else text

    return {
        name: Case(
            verified=case.get("verified", False),
            slow=case.get("slow", False),
            options=tuple(case.get("options", ())),
            because=meant(case.get("because", "")),
            differs=meant(case.get("differs", "")),
            note=case.get("note", ""),
        )
        for name, case in table.items()
    }


TABLE = read_table()
