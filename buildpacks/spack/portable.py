"""spack.yaml (spack.readthedocs.io, "Environments"): what of it means the same on any machine, and what only does on
the one it was written on."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hpcbinder.plan import DetectError, Repo, show

_LARGEST = 128 << 10
_BLOCKS = re.compile(r"^[ \t]*([-?:][ \t]+){20}|^[ \t]{200}", re.MULTILINE)
"""Folds that no environment has, and for which a parser of YAML takes ages."""
_DEEPEST = 20

LEFT_OUT = {
    "compilers": "the image has Debian's gcc",
    "toolchains": "the image has Debian's gcc",
    "mirrors": "packages come from Spack's own servers",
    "upstreams": "another installation on that machine",
    "modules": "no modules are made",
    "config": "where Spack installs is the image's choice",
    "include": "files of that machine",
    "bootstrap": "where Spack finds its own tools",
    "view": "there is one view, /opt/spack/view",
    "container": "it is for another kind of image",
    "ci": "",
    "cdash": "",
    "env_vars": "",
    "licenses": "",
}
"""Sections that say nothing of what is to be there, and why."""

REFUSED = {
    "develop": "sources of one's own",
    "repos": "recipes of one's own",
}

_PORTABLE = ("version", "variants", "require", "prefer", "conflict", "providers")
"""Of `packages`."""

_PINS = re.compile(r"\s*\b(?:arch|target|os|operating_system|platform)\s*=+\s*(?:'[^']*'|\"[^\"]*\"|\S+)")
_COMPILER = re.compile(r"\s*%+\[?(?P<name>[a-z0-9_-]+)(?:@[=0-9A-Za-z._:,+-]*)?")
_HASH = re.compile(r"(^|[\s^\w])/[a-z0-9]{4,}")
_SPEC = re.compile(r"[A-Za-z0-9@=+~^%:.,_$/'\"\[\] *!-]{1,500}\Z")


@dataclass
class Environment:
    """The portable part of a spack.yaml.

    Attributes:
        content: It, as Spack reads it.
        names: Packages that its specs name.
        notes: What was left out, for a person.
    """

    content: dict[str, Any] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_environment(repo: Repo, path: str) -> Environment:
    """Read a spack.yaml.

    Raises:
        DetectError: Malformed, or it names what is nowhere but on one machine, with the line.
    """
    text = repo.read_text(path)
    document = _load(text, show(path))
    spack = document.get("spack", document.get("env"))
    if not isinstance(spack, dict) or not isinstance(spack.get("specs"), list) or not spack["specs"]:
        raise DetectError("has no specs", where=show(path), hint="spack: specs: [hdf5, …]")
    return _Reading(text, show(path)).environment(spack)


class _Reading:
    def __init__(self, text: str, where: str) -> None:
        self._text = text
        self._where = where
        self._found = Environment()
        self._pins: set[str] = set()

    def environment(self, spack: Mapping[str, Any]) -> Environment:
        found = self._found
        for key, why in REFUSED.items():
            if spack.get(key):
                raise self._bad(
                    f"has {key}: {why}, which are not supported", key, "--without spack leaves the file out"
                )
        found.content["specs"] = [self._spec(spec) for spec in spack["specs"]]
        if isinstance(spack.get("definitions"), list):
            found.content["definitions"] = self._plain(spack["definitions"])
        concretizer = spack.get("concretizer")
        unify = concretizer.get("unify", True) if isinstance(concretizer, dict) else True
        found.content["concretizer"] = {"unify": unify if unify in (True, False, "when_possible") else True}
        packages = self._packages(spack.get("packages"))
        if packages:
            found.content["packages"] = packages
        for key in spack:
            if key not in ("specs", "definitions", "concretizer", "packages", *REFUSED):
                why = LEFT_OUT.get(str(key), "not known here")
                found.notes.append(f"{show(str(key)[:80])} left out{f' ({why})' if why else ''}")
        found.notes += [f"{show(pin)} taken out of the specs" for pin in sorted(self._pins)]
        return found

    def _packages(self, packages: Any) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for name, settings in packages.items() if isinstance(packages, dict) else ():
            if not isinstance(settings, dict):
                continue
            mine = {key: self._plain(value) for key, value in settings.items() if key in _PORTABLE}
            left = [str(key) for key in settings if key not in _PORTABLE]
            if left:
                self._found.notes.append(f"packages.{show(str(name)[:80])}: {show(', '.join(left)[:200])} left out")
            if mine := {key: value for key, value in mine.items() if value not in ("", [], {}, None)}:
                kept[str(name)] = mine
        return kept

    def _plain(self, value: Any) -> Any:
        """A setting without pins to a machine, in what JSON knows."""
        if isinstance(value, dict):
            return {str(key): self._plain(each) for key, each in value.items()}
        if isinstance(value, list):
            # Of a matrix nothing may be left of an axis that only pinned it to a machine.
            return [kept for each in value if (kept := self._plain(each)) not in ("", [], {})]
        if isinstance(value, (bool, int, float)) or value is None:
            return value
        return self._portable(str(value))

    def _spec(self, spec: Any) -> Any:
        if isinstance(spec, dict):
            return self._plain(spec)
        kept = self._portable(str(spec))
        name = re.match(r"[a-zA-Z0-9_-]+", kept)
        if name is None and not kept.startswith("$"):
            raise self._bad(f"has the spec '{show(str(spec)[:80])}', which names no package", str(spec))
        if name is not None:
            self._found.names.append(name[0])
        return kept

    def _portable(self, text: str) -> str:
        if not _SPEC.match(text) and text:
            raise self._bad(f"has '{show(text[:80])}', which is no spec", text)
        if _HASH.search(text):
            raise self._bad(
                f"names what is installed on one machine: {show(text[:80])}", text, "name its version instead"
            )
        if match := re.search(r"\bcray-[a-z-]+", text):
            hint = "mpich has the same ABI"
            raise self._bad(f"asks for {match[0]}, which is only on machines of Cray's", text, hint)
        self._pins |= {pin.strip() for pin in _PINS.findall(text)} | {m[0].strip() for m in _COMPILER.finditer(text)}
        return _COMPILER.sub("", _PINS.sub("", text)).strip()

    def _bad(self, message: str, word: str, hint: str | None = None) -> DetectError:
        line = self._text[: max(self._text.find(word), 0)].count("\n") + 1
        return DetectError(message, where=f"{self._where}:{line}", hint=hint)


def _load(text: str, where: str) -> Mapping[Any, Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    if len(text) > _LARGEST or _BLOCKS.search(text) or _depth(text) > _DEEPEST:
        raise DetectError("is larger or deeper than any environment", where=where)
    try:
        if (line := _anchor(text)) is not None:
            raise DetectError("has YAML's anchors, which are not supported", where=f"{where}:{line}")
        document = YAML(typ="safe", pure=True).load(io.StringIO(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{where}:{mark.line + 1}" if mark is not None else where
        raise DetectError(f"is not YAML: {show(str(error.problem or error.context))}", where=place) from None
    except (YAMLError, ValueError, RecursionError):
        raise DetectError("is not YAML", where=where) from None
    return document if isinstance(document, dict) else {}


def _anchor(text: str) -> int | None:
    """The line of the first anchor or alias: a few that stand for each other make more words than memory holds."""
    from ruamel.yaml import YAML

    if "&" not in text and "*" not in text:
        return None
    events = YAML(typ="safe", pure=True).parse(io.StringIO(text))
    return next((event.start_mark.line + 1 for event in events if getattr(event, "anchor", None) is not None), None)


def _depth(text: str) -> int:
    """How many brackets are open at once, at most."""
    deepest = depth = 0
    for bracket in re.findall(r"[][{}]", text):
        depth = depth + 1 if bracket in "[{" else max(0, depth - 1)
        deepest = max(deepest, depth)
    return deepest
