"""apt.txt: Debian packages, one or more on a line, `#` begins a comment, `name=version` asks for an exact version."""

from __future__ import annotations

import re

from hpcbinder.plan import Assembly, DetectError, Draft, Repo, Stage, show

# Debian policy 5.6.1 (names) and 5.6.12 (versions). A name that ends in "-" would tell apt to remove a package.
_PACKAGE = re.compile(r"(?P<name>[a-z0-9][a-z0-9+.-]*[a-z0-9+.])(?:=(?P<version>[0-9][A-Za-z0-9.+:~-]*))?\Z")


def plan(repo: Repo, draft: Draft) -> None:
    path = repo.config("apt.txt")
    if path is not None:
        wanted = _read(repo.read_text(path), show(path))
        for name, version in wanted:
            draft.want_system([name], "apt.txt", version=version)
        draft.used(path, f"{len(wanted)} Debian package{'s' * (len(wanted) != 1)}" if wanted else "names no package")
    packages = draft.take_system()
    if not packages:
        return
    versions: dict[str, str] = {}
    for package in packages:
        if package.version or package.name not in versions:
            versions[package.name] = package.version
    reasons = sorted({package.reason for package in packages})
    lines = [f"{name}={version}" if version else name for name, version in sorted(versions.items())]
    draft.add_step(
        Stage.SYSTEM,
        "install",
        f"Debian packages ({'; '.join(reasons)})",
        draft.script("install.sh"),
        data={"packages": "\n".join(lines) + "\n"},
        assembly=Assembly(system="packages"),
    )


def _read(text: str, where: str) -> list[tuple[str, str]]:
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
            wanted.append((match["name"], match["version"] or ""))
    return wanted
