"""Definition files of Apptainer and Singularity, read by sections (apptainer.org/docs, "Definition Files")."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from hpcbinder.plan import DetectError, Repo, show

LEFT_OUT = ("runscript", "startscript", "test", "help", "labels")
"""Sections that say nothing of what an image holds."""

_REFUSED = {
    "setup": "runs on the machine that builds, outside of the image",
    "pre": "runs on the machine that builds, outside of the image",
    "arguments": "has values that only a person who builds it gives",
}
_KNOWN = ("post", "environment", "files", *LEFT_OUT)
_SECTION = re.compile(r"%(?P<name>[A-Za-z]+)(?P<rest>[ \t].*)?\Z")
_HEADER = re.compile(r"(?P<key>[A-Za-z]+)[ \t]*:[ \t]*(?P<value>.*)\Z")
_ASSIGNMENT = re.compile(r"(?:export[ \t]+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)=(?P<value>.*)\Z")
_WORD = re.compile(r"(?:[A-Za-z0-9_./:,+@%=~-]|\$\{?[A-Za-z_][A-Za-z0-9_]*(?![A-Za-z0-9_])\}?)*|\"[^\"`\\]*\"|'[^']*'")
_VARIABLE = re.compile(r"\$\{?(?P<name>[A-Za-z_][A-Za-z0-9_]*)\}?")

MOST_FILES = 1000
"""Lines of %files."""

MOST_VALUE = 32 << 10
"""Characters of one variable's value, with what the variables in it stand for."""

MOST_VALUES = 128 << 10
"""Characters of all values together; the kernel starts no program with a variable longer than that."""

MOST_FOLDERS = 1000
"""Folders put on PATH."""

Line = tuple[int, str]
"""Its number in the file, from 1, and its text."""


@dataclass(frozen=True)
class Definition:
    """A definition file.

    Attributes:
        path: Its path.
        header: Key, in lower case -> value and line.
        sections: Name -> its lines; a section that is there twice counts as one.
        shell: What %post is run with.
    """

    path: str
    header: Mapping[str, tuple[str, int]]
    sections: Mapping[str, list[Line]]
    shell: str


def read_definition(repo: Repo, path: str) -> Definition:
    """Read one.

    Raises:
        DetectError: It cannot be read, or has a part that cannot be brought into an image of ours, with its line.
    """
    header: dict[str, tuple[str, int]] = {}
    sections: dict[str, list[Line]] = {}
    shell, now = "/bin/sh", ""
    for number, line in enumerate(repo.read_text(path).split("\n"), start=1):
        where = f"{show(path)}:{number}"
        if "}}" in line.partition("{{")[2]:
            raise DetectError("has {{ … }}, a value that only a person who builds it gives", where=where)
        match = _SECTION.match(line.rstrip())
        if match is not None:
            now, rest = match["name"].lower(), (match["rest"] or "").strip()
            if now in _REFUSED or now not in _KNOWN:
                reason = _REFUSED.get(now, "is of a kind that no image of ours has")
                raise DetectError(
                    f"has a section %{now}, which {reason}", where=where, hint="take it out, or see %post"
                )
            if now == "files" and rest:
                raise DetectError("takes files from another stage, which is not supported", where=where)
            if now == "post" and rest:
                words = rest.split()
                if words[0] != "-c" or len(words) != 2 or words[1] not in ("/bin/bash", "/bin/sh"):
                    raise DetectError(f"runs %post with {show(rest)}, which is not supported", where=where)
                shell = words[1]
            sections.setdefault(now, [])
        elif now:
            sections[now].append((number, line))
        elif line.strip() and not line.lstrip().startswith("#"):
            match = _HEADER.match(line.strip())
            if match is None:
                raise DetectError(f"'{show(line.strip()[:80])}' is neither a header nor in a section", where=where)
            if match["key"].lower() in header:
                raise DetectError("has more than one stage, which is not supported", where=where)
            header[match["key"].lower()] = (match["value"].rstrip().strip("\"'"), number)
    if any(_HEADER.match(text) and text.lower().startswith("bootstrap:") for s in sections.values() for _, text in s):
        raise DetectError("has more than one stage, which is not supported", where=show(path))
    return Definition(path, header, sections, shell)


def variables(definition: Definition) -> tuple[dict[str, str], list[str]]:
    """What %environment sets, and the folders it puts on PATH.

    Raises:
        DetectError: It does more than set variables, or their values grow beyond all use, with the line.
    """
    found: dict[str, str] = {}
    folders: list[str] = []
    total = 0
    for number, line in definition.sections.get("environment", []):
        text = line.strip().rstrip(";")
        if not text or text.startswith("#") or re.fullmatch(r"export( [A-Za-z_][A-Za-z0-9_]*)+", text):
            continue
        match = _ASSIGNMENT.match(text)
        if match is None or not _WORD.fullmatch(match["value"]):
            raise DetectError(
                f"does more in %environment than set variables: {show(text[:120])}",
                where=f"{show(definition.path)}:{number}",
                hint="a file `start` runs before every kernel; plain `export NAME=value` can stay here",
            )
        name, value = match["name"], match["value"]
        literal = value.startswith("'")
        value = value[1:-1] if value[:1] in ("'", '"') else value
        where = f"{show(definition.path)}:{number}"
        value = _filled(name, value, None if literal else found, where)
        total += len(value)
        if total > MOST_VALUES:
            raise DetectError(f"sets variables to more than {MOST_VALUES} characters together", where=where)
        if name == "PATH" and not literal:
            folders += [part for part in value.split(":") if part and part != "$PATH"]
            if len(folders) > MOST_FOLDERS:
                raise DetectError(f"sets PATH to more than {MOST_FOLDERS} folders", where=where)
            continue
        # What stood there before, in a list of folders, is nothing here.
        found[name] = value.strip(":") if name.endswith("PATH") else value
    return found, folders


def _filled(name: str, value: str, known: Mapping[str, str] | None, where: str) -> str:
    """A value with what its variables stand for, counted before it is put together: each can be as long as any value.

    Args:
        name: Whose value it is.
        value: As it is written, without quotes.
        known: Name -> value; None if `$` is only a character.
        where: Its line.

    Raises:
        DetectError: It is longer than `MOST_VALUE`.
    """
    parts: list[str] = []
    size = at = 0
    for match in () if known is None else _VARIABLE.finditer(value):
        # PATH in PATH stays as it is, to be told from folders.
        put = "$PATH" if match["name"] == name == "PATH" else (known or {}).get(match["name"], "")
        parts += [value[at : match.start()], put]
        size += len(parts[-2]) + len(parts[-1])
        at = match.end()
        if size > MOST_VALUE:
            break
    parts.append(value[at:])
    if size + len(parts[-1]) > MOST_VALUE:
        raise DetectError(f"sets {show(name)} to more than {MOST_VALUE} characters", where=where)
    return "".join(parts)


def files(definition: Definition) -> list[tuple[str, str, int]]:
    """What %files copies: from, to, line.

    Raises:
        DetectError: A line that cannot be read.
    """
    found = []
    for number, line in definition.sections.get("files", []):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        words = text.split()
        if len(words) > 2 or re.search(r"[\"'\\$*?\[\]`]", text):
            raise DetectError(
                f"copies {show(text[:120])}, which is not one plain path to another",
                where=f"{show(definition.path)}:{number}",
            )
        found.append((words[0], words[-1], number))
    if len(found) > MOST_FILES:
        raise DetectError(f"copies more than {MOST_FILES} files in %files", where=show(definition.path))
    return found
