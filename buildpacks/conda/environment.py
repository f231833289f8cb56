"""environment.yml, as conda reads it (docs.conda.io, "Creating an environment file manually"): checked, nothing of it
run or expanded."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from hpcbinder.plan import DetectError, Repo, show

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
_LARGEST = 128 << 10
"""Characters of an environment file: an export of a thousand packages has 40,000."""
_DEEPEST = 20
_BLOCKS = re.compile(r"^[ \t]*([-?:][ \t]+){20}|^[ \t]{200}", re.MULTILINE)
"""Folds that no environment file has, and for which a parser of YAML takes ages."""
_BUILD = re.compile(r"[^\s=<>!~]+=[^\s=<>!~,|*]+=[^\s=<>!~,|*]+")
_VERSION = re.compile(r"[^\s=<>!~]+={1,2}[^\s=<>!~,|*]+(=[^\s=<>!~,|*]+)?")
"""Lines of exports: `numpy=1.26.4=py312h1_0`, and `numpy=1.26.4` with `--no-builds`."""
_MANY = 80
"""Packages of which nobody writes nearly all versions."""
_KNOWN = ("name", "channels", "dependencies", "prefix", "variables", "category", "platforms")


@dataclass
class Environment:
    """What an environment file says.

    Attributes:
        specs: (match spec, line).
        channels: In their order.
        pip: (line of a requirements file, line).
        variables: To be set in the environment.
        exact: URLs of packages with `#HASH` behind them, all there are to be, where a lock says so.
        notes: What is left aside, for a person.
        elsewhere: It says where it lay (`prefix`), as exports do.
    """

    specs: list[tuple[str, int]] = field(default_factory=list)
    channels: list[str] = field(default_factory=list)
    pip: list[tuple[str, int]] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    exact: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    elsewhere: bool = False

    @property
    def export(self) -> bool:
        """It is what `conda env export` wrote: most packages have a build, or nearly all a version, and there is a
        prefix or more of them than a person writes."""
        builds = sum(_BUILD.fullmatch(spec) is not None for spec, _ in self.specs)
        versions = sum(_VERSION.fullmatch(spec) is not None for spec, _ in self.specs)
        written = not self.elsewhere and len(self.specs) < _MANY
        return 2 * builds > len(self.specs) or (4 * versions > 3 * len(self.specs) and not written)

    @property
    def requirements(self) -> str:
        """The pip section as a requirements file, each line at the number that it has in the environment file."""
        return requirements_text(self.pip)


def requirements_text(lines: Sequence[tuple[str, int]]) -> str:
    """A requirements file of lines at their numbers, as far as there is one line at each."""
    text = ""
    for line, number in sorted(lines, key=lambda each: each[1]):
        text += "\n" * max(0, number - 1 - text.count("\n")) + f"{line}\n"
    return text


def read_environment(repo: Repo, path: str) -> Environment:
    """Read an environment file.

    Raises:
        DetectError: It is no such file, or holds what is not allowed, with file and line.
    """
    document = load_yaml(repo.read_text(path, utf16=True), show(path))
    found = Environment(elsewhere=document.get("prefix") is not None)
    if unknown := [str(key) for key in document if key not in _KNOWN]:
        found.notes.append(f"{', '.join(map(show, unknown[:5]))} means nothing in it")
    for channel, number in _texts(document, "channels", path):
        if not channel.isprintable() or len(channel) > 500:
            raise _bad("has a channel that can be none", path, number)
        found.channels.append(channel)
    for value, number in _items(document, "dependencies", path):
        if isinstance(value, str):
            found.specs.append((value.strip(), number))
        elif isinstance(value, dict) and len(value) == 1 and "pip" in value:
            lines = value["pip"]
            if isinstance(lines, str):
                # Conda takes it apart letter by letter, and repositories have it all the same.
                if len(lines.splitlines()) > 1:
                    raise _bad("has a pip section that is one text: put a dash before each requirement", path, number)
                found.notes.append(f"line {number}: its pip section is a text, taken as the one requirement of a list")
                lines = [lines]
            found.pip += _pip(lines, path, number)
        else:
            raise _bad("has a dependency that is neither a match spec nor a pip section", path, number)
    variables = document.get("variables") or {}
    if not isinstance(variables, dict):
        raise _bad("has variables that are no table", path, _line(document, "variables"))
    for name, value in variables.items():
        if not isinstance(name, str) or not _VARIABLE.fullmatch(name) or isinstance(value, (dict, list)):
            raise _bad(f"has a variable {show(str(name))} that can be none", path, _line(variables, name))
        found.variables[name] = str(value)
    if found.elsewhere:
        found.notes.append("its prefix says nothing here")
    if not found.specs and not found.pip:
        found.notes.append("it names no dependencies")
    return found


def _pip(lines: Any, path: str, number: int) -> Iterator[tuple[str, int]]:
    if lines is None:
        return
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise _bad("has a pip section that is no list of requirements", path, number)
    for index, line in enumerate(lines):
        text = line.strip()
        if "\n" in text or "\r" in text:
            raise _bad("has a requirement of several lines", path, _line(lines, index) or number)
        yield text, _line(lines, index) or number


def load_yaml(text: str, name: str) -> dict[Any, Any]:
    """A table in YAML.

    Args:
        name: The file, for messages.

    Raises:
        DetectError: It is none, or larger or deeper than any that people write.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    if len(text) > _LARGEST or _BLOCKS.search(text) or _depth(text) > _DEEPEST:
        raise DetectError("is larger, or deeper, than any environment file", where=name)
    yaml = YAML(typ="rt", pure=True)
    try:
        document = yaml.load(io.StringIO(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}" if mark is not None else name
        raise DetectError(f"is not YAML: {show(str(error.problem or error.context))}", where=where) from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise DetectError(
            f"is not YAML: {show(str(error).splitlines()[0] if str(error) else '')}", where=name
        ) from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise DetectError("is no environment file: it has no table of channels and dependencies", where=name)
    return document


def _depth(text: str) -> int:
    """How many brackets are open at once, at most."""
    deepest = depth = 0
    for bracket in re.findall(r"[][{}]", text):
        depth = depth + 1 if bracket in "[{" else max(0, depth - 1)
        deepest = max(deepest, depth)
    return deepest


def _items(document: dict[Any, Any], key: str, path: str) -> Iterator[tuple[Any, int]]:
    values = document.get(key)
    if values is None:
        return
    if not isinstance(values, list):
        raise _bad(f"has {key} that are no list", path, _line(document, key))
    for index, value in enumerate(values):
        yield value, _line(values, index)


def _texts(document: dict[Any, Any], key: str, path: str) -> Iterator[tuple[str, int]]:
    for value, number in _items(document, key, path):
        if not isinstance(value, str):
            raise _bad(f"has something in {key} that is no text", path, number)
        yield value.strip(), number


def _line(node: Any, key: Any) -> int:
    """The line of an element; 0 if that is not known."""
    try:
        lines = node.lc
        return int((lines.item(key) if isinstance(node, list) else lines.key(key))[0]) + 1
    except (AttributeError, KeyError, TypeError, IndexError):
        return 0


def _bad(message: str, path: str, number: int) -> DetectError:
    return DetectError(message, where=f"{show(path)}:{number}" if number else show(path))
