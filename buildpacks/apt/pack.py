"""apt.txt: Debian packages, one or more on a line, `#` begins a comment, `name=version` asks for an exact version."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hpcbinder.plan import Assembly, DetectError, Draft, Repo, Stage, show

from .names import renamed

# Debian policy 5.6.1 (names) and 5.6.12 (versions), with apt's `*` for any end of a version. A name that ends in "-"
# would tell apt to remove a package.
_PACKAGE = re.compile(r"(?P<name>[a-z0-9][a-z0-9+.-]*[a-z0-9+.])(?:=(?P<version>[0-9][A-Za-z0-9.+:~-]*\*?))?\Z")


@dataclass(frozen=True)
class _Asked:
    name: str
    version: str
    line: int


def plan(repo: Repo, draft: Draft) -> None:
    path = repo.config("apt.txt")
    if path is not None:
        asked = _read(repo.read_text(path, utf16=True), show(path))
        notes = []
        for package in asked:
            name, version, note = _there(package, draft.python.suite, show(path))
            draft.want_system([name], "apt.txt", version=version)
            notes += [note] if note else []
        count = f"{len(asked)} Debian package{'s' * (len(asked) != 1)}" if asked else "names no package"
        draft.used(path, "; ".join((count, *notes)))
    packages = draft.take_system()
    if not packages:
        return
    versions: dict[str, str] = {}
    for wanted in packages:
        if wanted.version or wanted.name not in versions:
            versions[wanted.name] = wanted.version
    reasons = sorted({wanted.reason for wanted in packages})
    lines = [f"{name}={version}" if version else name for name, version in sorted(versions.items())]
    draft.add_step(
        Stage.SYSTEM,
        "install",
        f"Debian packages ({'; '.join(reasons)})",
        draft.script("install.sh"),
        data={"packages": "\n".join(lines) + "\n", "near.py": draft.script("near.py")},
        assembly=Assembly(system="packages"),
    )


def _there(package: _Asked, suite: str, where: str) -> tuple[str, str, str]:
    """What the release calls a package, the version to ask for, and what a person should know of it, or ""."""
    name = renamed(package.name, suite)
    if name is None:
        raise DetectError(
            f"Debian {suite} has no package '{package.name}', nor anything in its place",
            where=f"{where}:{package.line}",
            hint="take it out; what Debian does not have can be installed by postBuild",
        )
    if name != package.name:
        left = f" (not in version {package.version})" if package.version else ""
        return name, "", f"{package.name} is {name} in Debian {suite}{left}"
    if "ubuntu" in package.version:
        return name, "", f"{name} in Debian's version: {package.version} is Ubuntu's"
    return name, package.version, ""


def _read(text: str, where: str) -> list[_Asked]:
    wanted = []
    for number, line in enumerate(text.split("\n"), start=1):
        for word in line.partition("#")[0].split():
            match = _PACKAGE.match(word)
            if match is None:
                raise DetectError(
                    f"'{show(word)}' is not the name of a Debian package",
                    where=f"{where}:{number}",
                    hint="write names like gfortran or gfortran=4:12.2.0-3, one on a line; commands go into postBuild",
                )
            wanted.append(_Asked(match["name"], match["version"] or "", number))
    return wanted
