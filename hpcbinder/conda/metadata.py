"""What a conda package says of itself below `info/` (docs.conda.io, "Package specification"; CEP 34)."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hpcbinder.conda.archive import Unpacked
from hpcbinder.conda.prefix import OLD_PLACEHOLDER
from hpcbinder.model import LockedPackage
from hpcbinder.text import one_line
from hpcbinder.wheels import Refused, Script, checked_name, read_script

_DEEPEST = 400
"""Characters of a placeholder; conda-build's have 255."""
_MODES = ("text", "binary")


@dataclass(frozen=True)
class PathEntry:
    """What `paths.json` says of a file.

    Attributes:
        sha256: Of it in the package, hex; "" if it does not say.
        placeholder: Prefix in it that is to be replaced; "" for none.
        binary: How that is done.
    """

    sha256: str = ""
    placeholder: str = ""
    binary: bool = False


@dataclass(frozen=True)
class Metadata:
    """What an installer needs to know.

    Attributes:
        index: `info/index.json`.
        paths: Path -> what is said of it. What the package has besides is not installed.
        noarch: `python`, `generic` or "".
        scripts: Commands that entry points make.
    """

    index: Mapping[str, Any]
    paths: Mapping[str, PathEntry]
    noarch: str
    scripts: tuple[Script, ...] = field(default=())


def read_metadata(unpacked: Unpacked, package: LockedPackage) -> Metadata:
    """Read and check it.

    Raises:
        Refused: It is not what the lock says, or not well made.
    """
    index = _object(unpacked, "index.json")
    said = tuple(str(index.get(key, "")) for key in ("name", "version", "build"))
    if said != (package.name, package.version, package.build):
        raise Refused(f"its index.json is of {one_line(' '.join(said), 100)}")
    noarch = index.get("noarch") or ""
    noarch = "generic" if noarch is True else str(noarch)
    if noarch not in ("", "generic", "python"):
        raise Refused(f"it is of the kind noarch {one_line(noarch, 40)!r}, which is not known")
    paths = _paths(unpacked) if "paths.json" in unpacked.info else _old_paths(unpacked)
    if missing := sorted(paths.keys() - unpacked.files.keys()):
        raise Refused(f"{one_line(missing[0], 200)!r} of its list of files is not there")
    return Metadata(index, paths, noarch, _scripts(unpacked) if noarch == "python" else ())


def _object(unpacked: Unpacked, name: str) -> dict[str, Any]:
    try:
        value = json.loads(unpacked.info[name])
    except KeyError:
        raise Refused(f"it has no info/{name}") from None
    except (ValueError, RecursionError):
        raise Refused(f"its info/{name} cannot be read") from None
    if not isinstance(value, dict):
        raise Refused(f"its info/{name} is no object")
    return value


def _paths(unpacked: Unpacked) -> dict[str, PathEntry]:
    found: dict[str, PathEntry] = {}
    entries = _object(unpacked, "paths.json").get("paths")
    if not isinstance(entries, list):
        raise Refused("its info/paths.json has no list of paths")
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("_path"), str):
            raise Refused("its info/paths.json has something that is no path")
        path = checked_name(entry["_path"])
        kind = entry.get("path_type", "hardlink")
        if path in found or kind not in ("hardlink", "softlink", "directory"):
            raise Refused(f"its info/paths.json has {path!r} twice, or as {one_line(str(kind), 40)!r}")
        if kind == "directory":
            continue
        packed = unpacked.files.get(path)
        if packed is not None and (packed.content is None) != (kind == "softlink"):
            raise Refused(f"its info/paths.json says that {path!r} is a {kind}")
        size = entry.get("size_in_bytes")
        if kind == "hardlink" and packed is not None and size is not None and size != packed.size:
            raise Refused(f"{path!r} has {packed.size} bytes, its info/paths.json says {one_line(str(size), 40)}")
        digest = entry.get("sha256") if kind == "hardlink" else None
        found[path] = PathEntry(
            str(digest or ""), *_placeholder(path, entry.get("prefix_placeholder"), entry.get("file_mode"))
        )
    return found


def _placeholder(path: str, placeholder: object, mode: object) -> tuple[str, bool]:
    if not placeholder:
        return "", False
    if not isinstance(placeholder, str) or not placeholder.isprintable() or len(placeholder) > _DEEPEST:
        raise Refused(f"{path!r} has a prefix in it that can be none")
    if mode not in _MODES:
        raise Refused(f"{path!r} has a prefix in it in the mode {one_line(str(mode), 40)!r}")
    return placeholder, mode == "binary"


def _old_paths(unpacked: Unpacked) -> dict[str, PathEntry]:
    """Of a package from before `paths.json` (conda-build 2)."""
    found = {checked_name(path): PathEntry() for path in _lines(unpacked, "files")}
    for line in _lines(unpacked, "has_prefix"):
        try:
            words = shlex.split(line)
        except ValueError:
            words = []
        if len(words) == 1:
            words = [OLD_PLACEHOLDER, "text", words[0]]
        if len(words) != 3 or words[2] not in found:
            raise Refused(f"its info/has_prefix has a line {one_line(line, 200)!r}")
        found[words[2]] = PathEntry("", *_placeholder(words[2], words[0], words[1]))
    return found


def _lines(unpacked: Unpacked, name: str) -> list[str]:
    try:
        text = unpacked.info.get(name, b"").decode("utf-8")
    except UnicodeDecodeError:
        raise Refused(f"its info/{name} is not UTF-8") from None
    return [line for line in re.split(r"\r?\n", text) if line.strip()]


def _scripts(unpacked: Unpacked) -> tuple[Script, ...]:
    if "link.json" not in unpacked.info:
        return ()
    noarch = _object(unpacked, "link.json").get("noarch")
    lines = noarch.get("entry_points") if isinstance(noarch, dict) else None
    if lines is None:
        return ()
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise Refused("its info/link.json has no list of entry points")
    scripts = [read_script(name.strip(), value) for name, _, value in (line.partition("=") for line in lines)]
    if len({script.name for script in scripts}) != len(scripts):
        raise Refused("it has an entry point twice")
    return tuple(sorted(scripts, key=lambda script: script.name))
