"""devcontainer.json (containers.dev, "Development Container Metadata reference"), as far as it says what an image is.

It is meant for editors, and most repositories that have one say elsewhere what they need to run. So it counts only
where nothing else does.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hpcbinder.plan import DetectError, Repo, show

PLACES = (".devcontainer/devcontainer.json", ".devcontainer.json")

FOLDER = "/srv/repo"

ELSEWHERE = (
    *("Dockerfile", "requirements.txt", "environment.yml", "environment.yaml", "pyproject.toml", "setup.py", "Pipfile"),
    *("Pipfile.lock", "uv.lock", "poetry.lock", "pylock.toml", "conda-lock.yml", "conda-linux-64.lock", "pixi.toml"),
    *("pixi.lock", "install.R", "DESCRIPTION", "renv.lock", "Project.toml", "apt.txt", "postBuild", "runtime.txt"),
    *("default.nix", "spack.yaml", "Singularity", "Apptainer", "REQUIRE", "setup.cfg", "environment.lock"),
)
"""Files that say what a repository needs to run."""

COMMANDS = ("onCreateCommand", "updateContentCommand", "postCreateCommand")
"""Run once, in this order, when a container is made."""

_LATER = ("postStartCommand", "postAttachCommand", "initializeCommand")
_NOT_OURS = ("mounts", "runArgs", "privileged", "capAdd", "securityOpt", "workspaceMount", "hostRequirements")
# What has no end goes to the end of the file: else each quote in it would be looked at as a beginning again.
_TEXT = r"\"(?:[^\"\\]|\\.)*(?:\"|\\?\Z)"
_STRING = re.compile(rf"{_TEXT}|//[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL)
_COMMA = re.compile(rf"({_TEXT})|,(?=\s*[}}\]])", re.DOTALL)
_COPIES = re.compile(r"^[ \t]*(COPY|ADD)[ \t]+(?!--from)", re.MULTILINE | re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_UNPLAIN = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_STEERS = re.compile(r"(?:BUILDKIT_.*|SOURCE_DATE_EPOCH|(?:https?|ftp|all|no)_proxy)\Z", re.IGNORECASE)
"""Build arguments that an engine itself heeds: another frontend, other proxies (docs.docker.com, "BuildKit built-in
build args" and "Predefined ARGs")."""


@dataclass(frozen=True)
class Devcontainer:
    """What counts of a devcontainer.json.

    Attributes:
        path: The file.
        image: The image it stands on, or "".
        dockerfile: Else the path of its Dockerfile.
        arguments: Build arguments of that.
        tail: Instructions that come behind those of the Dockerfile, or behind `FROM image`.
        notes: What was left out, for a person.
    """

    path: str
    image: str
    dockerfile: str
    arguments: Mapping[str, str]
    tail: str
    notes: tuple[str, ...]


def find_devcontainer(repo: Repo) -> str | None:
    """Path of a repository's devcontainer.json."""
    return next((path for path in PLACES if repo.is_file(path)), None)


def read_devcontainer(repo: Repo, path: str) -> Devcontainer:
    """Read one.

    Raises:
        DetectError: Malformed, or it asks for what cannot be done, with the line where that can be told.
    """
    text = repo.read_text(path)

    def bad(message: str, key: str, hint: str | None = None) -> DetectError:
        line = text[: max(text.find(f'"{key}"'), 0)].count("\n") + 1
        return DetectError(message, where=f"{show(path)}:{line}", hint=hint)

    content = _parse(text, show(path))
    leave = "--without dockerfile leaves the file out"
    for feature in content.get("features") or {}:
        raise bad(f"asks for the feature {show(str(feature)[:200])}, which cannot be installed", str(feature), leave)
    if "dockerComposeFile" in content:
        raise bad("stands on a dockerComposeFile, and an image is but one container", "dockerComposeFile", leave)
    build = content.get("build")
    build = build if isinstance(build, dict) else {}
    image, dockerfile = content.get("image"), build.get("dockerfile") or content.get("dockerFile")
    folder = posixpath.dirname(path)
    arguments = build.get("args") or {}
    if isinstance(image, str) and not dockerfile:
        if not re.match(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,500}\Z", image):
            raise bad(f"names an image {show(image[:200])}, of which it does not say what it is", "image", leave)
        dockerfile, arguments = "", {}
    elif isinstance(dockerfile, str):
        image, dockerfile = "", posixpath.normpath(posixpath.join(folder, dockerfile))
        if not repo.is_file(dockerfile):
            raise bad(f"has no Dockerfile at {show(dockerfile)}", "dockerfile")
        context = posixpath.normpath(posixpath.join(folder, str(build.get("context") or content.get("context") or ".")))
        if context != "." and _COPIES.search(repo.read_text(dockerfile)):
            raise bad(
                f"builds with {show(context)} as its context, and a context here is the whole repository",
                "build",
                'write "context": ".." and paths from the root, or ' + leave,
            )
        if build.get("target"):
            raise bad("asks for one target of its Dockerfile, and here the last one is built", "target", leave)
    else:
        raise bad("names neither an image nor a Dockerfile", "", leave)
    if not isinstance(arguments, dict) or not all(
        _NAME.match(name) and isinstance(value, str) and "${" not in value and not _UNPLAIN.search(value)
        for name, value in arguments.items()
    ):
        raise bad("has build arguments that are not plain texts", "args", leave)
    for name in arguments:
        if _STEERS.match(name):
            raise bad(f"gives the build argument {name[:80]}, which is the site's to give", name, leave)
    notes = [f"{name} is not run" for name in _LATER if content.get(name)]
    notes += [f"{name} is left out" for name in _NOT_OURS if content.get(name)]
    lines = [f"COPY . {FOLDER}", f"WORKDIR {FOLDER}", *_environment(content, bad, notes), *_commands(content, bad)]
    return Devcontainer(path, image or "", dockerfile, dict(arguments), "\n".join(lines) + "\n", tuple(notes))


def _parse(text: str, where: str) -> dict[str, Any]:
    """JSON with comments and commas at the end of lists, as editors take it."""
    plain = _STRING.sub(lambda match: match[0] if match[0][0] == '"' else re.sub(r"[^\n]", " ", match[0]), text)
    plain = _COMMA.sub(lambda match: match[1] or " ", plain)
    try:
        content = json.loads(plain)
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        raise DetectError("is no JSON, be it with comments", where=f"{where}:{line}") from None
    if not isinstance(content, dict):
        raise DetectError("is no JSON object", where=f"{where}:1")
    return content


def _environment(content: Mapping[str, Any], bad: Any, notes: list[str]) -> list[str]:
    lines = []
    for key in ("containerEnv", "remoteEnv"):
        values = content.get(key) or {}
        for name, value in values.items() if isinstance(values, dict) else ():
            if not _NAME.match(str(name)):
                raise bad(f"sets a variable {show(str(name)[:80])}, which is no name", key)
            text = str(value).replace("${containerWorkspaceFolder}", FOLDER)
            if "${" in text or value is None or _UNPLAIN.search(text):
                notes.append(f"{name} is not set, which needs more than the file to know")
                continue
            quoted = re.sub(r'([\\"$])', r"\\\1", text)
            lines.append(f'ENV {name}="{quoted}"')
    return lines


def _commands(content: Mapping[str, Any], bad: Any) -> list[str]:
    lines = []
    for key in COMMANDS:
        value = content.get(key)
        for command in value.values() if isinstance(value, dict) else [value] if value else []:
            argv = ["/bin/sh", "-ec", command] if isinstance(command, str) else command
            if not isinstance(argv, list) or not argv or not all(isinstance(word, str) for word in argv):
                raise bad(f"has {key}, which is no command", key)
            argv = [word.replace("${containerWorkspaceFolder}", FOLDER) for word in argv]
            # As JSON nothing of it is read by a builder, and it has no line end.
            lines.append(f"RUN {json.dumps(argv)}")
    return lines
