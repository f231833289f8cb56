"""pixi.toml, and `[tool.pixi]` of pyproject.toml (https://pixi.sh, "Manifest reference"): the environment `default`
of a workspace, for one platform."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hpcbinder.plan import DetectError, Repo, show

from .environment import Environment
from .pieces import word

ENVIRONMENT = "default"
_KEY = re.compile(r"\s*\[*[\"']?([A-Za-z0-9_-]+)")
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")
_CONDA_TABLES = ("dependencies", "host-dependencies", "build-dependencies")
"""All three are in the environment."""


def has_workspace(repo: Repo, path: str) -> bool:
    """Whether a pyproject.toml is also a pixi workspace; what is wrong with one is for those to say who read it."""
    try:
        return "pixi" in repo.read_text(path) and bool(_dig(repo.read_toml(path), "tool", "pixi"))
    except DetectError:
        return False


def read_pixi(repo: Repo, path: str, platform: str) -> Environment:
    """What the environment `default` asks for.

    Args:
        platform: As conda names it (`linux-64`).

    Raises:
        DetectError: It is not for this platform, or asks for what cannot be taken.
    """
    values: Mapping[str, Any] = repo.read_toml(path)
    text = repo.read_text(path)
    project: Mapping[str, Any] = {}
    if path.rpartition("/")[2] == "pyproject.toml":
        project, values = _dig(values, "project"), _dig(values, "tool", "pixi")
    return _Manifest(path, text, platform).read(values, project)


@dataclass(frozen=True)
class _Manifest:
    path: str
    text: str
    platform: str

    def read(self, values: Mapping[str, Any], project: Mapping[str, Any]) -> Environment:
        workspace = {**_dig(values, "project"), **_dig(values, "workspace")}
        names, default = self._features(values)
        features = [values] if default else []
        features += [_dig(values, "feature", name) for name in names]
        platforms = [word(each) for each in _list(workspace.get("platforms"))]
        for feature in features:
            if "platforms" in feature and feature is not values:
                platforms = [each for each in platforms if each in map(word, _list(feature["platforms"]))]
        if (platforms or "platforms" in workspace) and self.platform not in platforms:
            raise self.bad(
                f"is for {', '.join(map(show, platforms[:10])) or 'no platform'}, and the image for {self.platform}",
                "platforms",
                hint=f"`pixi workspace platform add {self.platform}` adds it, if the packages are there for it",
            )
        found = Environment()
        named = (name for table in (*features, workspace) for name in self._channels(table))
        found.channels = list(dict.fromkeys(named))
        for feature in features:
            for table in (feature, *self._targets(feature)):
                self._add(table, found)
        for line in self._of_project(project, names) if default else ():
            found.pip.append((line, self.line("dependencies")))
        python = word(project.get("requires-python")).replace(" ", "")
        if python and not any(re.match(r"(\S+::)?python(\s|=|$)", spec) for spec, _ in found.specs):
            found.specs.append((f"python {python}", self.line("requires-python")))
        found.notes.append(f"environment {ENVIRONMENT}" + (f" with {', '.join(map(show, names))}" if names else ""))
        others = [name for name in _dig(values, "environments") if name != ENVIRONMENT]
        if others:
            found.notes.append(f"not {', '.join(map(show, others[:10]))}")
        if "tasks" in values:
            found.notes.append("its tasks are not run")
        if any("system-requirements" in feature for feature in features):
            found.notes.append("its system-requirements are the site's to say")
        return found

    def _features(self, values: Mapping[str, Any]) -> tuple[list[str], bool]:
        """Names of the features of the environment besides the default one, and whether that is one of them."""
        listed = _dig(values, "environments").get(ENVIRONMENT, [])
        table = listed if isinstance(listed, Mapping) else {"features": listed}
        names = list(dict.fromkeys(word(name) for name in _list(table.get("features"))))
        if unknown := [name for name in names if name not in _dig(values, "feature")]:
            raise self.bad(
                f"has no feature {show(unknown[0])}, which its environment {ENVIRONMENT} names", "environments"
            )
        return names, table.get("no-default-feature") is not True

    def _channels(self, table: Mapping[str, Any]) -> list[str]:
        named = [each.get("channel") if isinstance(each, Mapping) else each for each in _list(table.get("channels"))]
        for name in named:
            if not isinstance(name, str) or not name.isprintable() or len(name) > 500:
                raise self.bad("has a channel that can be none", "channels")
        return [str(name) for name in named]

    def _targets(self, feature: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """What is said for this platform alone, the widest first."""
        for name in ("unix", "linux", self.platform):
            if table := _dig(feature, "target", name):
                yield table

    def _add(self, table: Mapping[str, Any], found: Environment) -> None:
        for key in _CONDA_TABLES:
            for name, value in _dig(table, key).items():
                found.specs.append((self._spec(name, value), self.line(name)))
        options = _dig(table, "pypi-options")
        indexes = [("--index-url", options.get("index-url"))]
        indexes += [("--extra-index-url", url) for url in _list(options.get("extra-index-urls"))]
        found.pip += [(f"{option} {word(url)}", self.line("pypi-options")) for option, url in indexes if url]
        for name, value in _dig(table, "pypi-dependencies").items():
            found.pip.append((self._requirement(name, value), self.line(name)))
        for name, value in _dig(table, "activation", "env").items():
            if not _VARIABLE.fullmatch(name) or not word(value).isprintable():
                raise self.bad(f"has a variable {show(name)} that can be none", name)
            found.variables[name] = word(value)
        if _list(_dig(table, "activation").get("scripts")):
            found.notes.append("its activation scripts are not run")

    def _spec(self, name: str, value: Any) -> str:
        table = value if isinstance(value, Mapping) else {"version": value}
        if unknown := [key for key in table if key not in ("version", "build", "channel")]:
            raise self.bad(f"takes {show(name)} by its {show(str(unknown[0]))}, which is not taken here", name)
        version, build, channel = (word(table.get(key)) for key in ("version", "build", "channel"))
        if not _NAME.fullmatch(name) or not (version or build or channel):
            raise self.bad(f"asks for {show(name)} in a way that is no match spec", name)
        what = f"{name} {version or '*'} {build}".strip() if build or version not in ("", "*") else name
        return f"{channel}::{what}" if channel else what

    def _requirement(self, name: str, value: Any) -> str:
        table = value if isinstance(value, Mapping) else {"version": value}
        known = (
            "version",
            "extras",
            "git",
            "rev",
            "branch",
            "tag",
            "subdirectory",
            "path",
            "editable",
            "url",
            "env-markers",
        )
        if unknown := [key for key in table if key not in known]:
            raise self.bad(f"takes {show(name)} by its {show(str(unknown[0]))}, which is not taken here", name)
        if not _NAME.fullmatch(name):
            raise self.bad(f"'{show(name)}' is not the name of a package", name)
        extras = ",".join(word(each) for each in _list(table.get("extras")))
        what = f"{name}[{extras}]" if extras else name
        marker = f" ; {word(table['env-markers'])}" if table.get("env-markers") else ""
        if path := word(table.get("path")):
            place = path if path.startswith(".") else f"./{path}"
            place += f"[{extras}]" if extras else ""
            return f"-e {place}" if table.get("editable") is True else place
        if git := word(table.get("git")):
            revision = next((word(table[key]) for key in ("rev", "tag", "branch") if table.get(key)), "")
            if revision and not _REVISION.fullmatch(revision):
                raise self.bad(f"takes {show(name)} from a revision that can be none", name)
            below = word(table.get("subdirectory"))
            url = f"git+{git.removeprefix('git+')}" + (f"@{revision}" if revision else "")
            return f"{what} @ {url}" + (f"#subdirectory={below}" if below else "") + marker
        if url := word(table.get("url")):
            return f"{what} @ {url}{marker}"
        version = word(table.get("version"))
        return f"{what}{'' if version in ('', '*') else _plain(version)}{marker}"

    def _of_project(self, project: Mapping[str, Any], features: list[str]) -> Iterator[str]:
        """pyproject's own dependencies, which are pixi's, too; features may be its extras."""
        lists = [project.get("dependencies")]
        lists += [_dig(project, "optional-dependencies").get(name) for name in features]
        for each in lists:
            for line in _list(each):
                yield word(line).replace("\n", " ")

    @functools.cached_property
    def _lines(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for number, line in enumerate(self.text.split("\n"), start=1):
            if match := _KEY.match(line):
                found.setdefault(match[1], number)
        return found

    def line(self, key: str) -> int:
        """Where a key stands first; 0 if that is not known."""
        return self._lines.get(key, self._lines.get(re.split(r"[^A-Za-z0-9_-]", key)[0], 0))

    def bad(self, message: str, key: str, *, hint: str | None = None) -> DetectError:
        number = self.line(key)
        return DetectError(message, where=f"{show(self.path)}:{number}" if number else show(self.path), hint=hint)


def _plain(version: str) -> str:
    """A version without an operator is exact to pixi."""
    return version if re.match(r"[=<>!~]", version) else f"=={version}"


def _dig(table: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    found: Any = table
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
