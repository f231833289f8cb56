"""DESCRIPTION of an R package: Debian's control format, as R reads it ("Writing R Extensions", section 1.1.1)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hpcbinder.plan import DetectError, Repo, show

_FIELD = re.compile(r"(?P<name>[A-Za-z][A-Za-z0-9@/_.-]*)[ \t]*:(?P<value>.*)")
_DEPENDENCY = re.compile(
    r"(?P<name>[A-Za-z][A-Za-z0-9.]*)\s*(?:\(\s*(?P<how>[<>=!]{1,2})\s*(?P<version>[0-9][0-9.-]*)\s*\))?\Z"
)


@dataclass(frozen=True)
class Dependency:
    """A package that another one needs.

    Attributes:
        least: The version it must have at least, "" for any.
        line: Of DESCRIPTION, from 1, where its field begins.
    """

    name: str
    least: str
    line: int


@dataclass(frozen=True)
class Description:
    """What counts of a DESCRIPTION.

    Attributes:
        package: Name, "" for what is no package but only says what it needs.
        dependencies: Of Depends, Imports and LinkingTo, without R itself.
        r: The version that R must have at least, "".
        remotes: What `Remotes` names.
    """

    package: str
    dependencies: tuple[Dependency, ...]
    r: str
    remotes: tuple[str, ...]


def is_description(text: str) -> bool:
    """Whether a text is of R: other tools have files of this name."""
    return re.search(r"^(Package|Imports|Depends)[ \t]*:", text, re.MULTILINE) is not None


def read_description(repo: Repo, path: str) -> Description:
    """Read a DESCRIPTION.

    Raises:
        DetectError: A line that cannot be read, with its number.
    """
    lines: dict[str, tuple[list[str], int]] = {}
    last = ""
    for number, line in enumerate(repo.read_text(path).splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        if line[0] in " \t" and last:
            lines[last][0].append(line)
            continue
        match = _FIELD.match(line)
        if match is None:
            raise DetectError(
                f"'{show(line[:80])}' is no field", where=f"{show(path)}:{number}", hint="write NAME: VALUE"
            )
        last = match["name"]
        lines[last] = ([match["value"]], number)
    fields = {name: ("\n".join(values), first) for name, (values, first) in lines.items()}
    found, least = [], ""
    for field in ("Depends", "Imports", "LinkingTo"):
        value, first = fields.get(field, ("", 0))
        for word in filter(None, map(str.strip, value.split(","))):
            match = _DEPENDENCY.match(word)
            if match is None:
                raise DetectError(
                    f"{field} has '{show(word[:80])}', which is no package", where=f"{show(path)}:{first}"
                )
            wanted = match["version"] if (match["how"] or "").startswith(">") else ""
            if match["name"] == "R":
                least = wanted or ""
            else:
                found.append(Dependency(match["name"], wanted or "", first))
    package = fields.get("Package", ("", 0))[0].strip()
    if package and not re.match(r"[A-Za-z][A-Za-z0-9.]*\Z", package):
        raise DetectError(f"'{show(package)}' is no name of a package", where=f"{show(path)}:{fields['Package'][1]}")
    remotes = tuple(filter(None, map(str.strip, fields.get("Remotes", ("", 0))[0].split(","))))
    return Description(package, tuple(found), least, remotes)
