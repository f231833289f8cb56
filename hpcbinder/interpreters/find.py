"""Which interpreters there are in the folders that a configuration names."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcbinder.interpreters.look import Interpreter, NotUsable, look, stamp
from hpcbinder.model import to_json

_PROGRAM = re.compile(r"python(2\.7|3\.[0-9]{1,2})\Z")
_SEVERAL = 500
"""Entries of a folder that are looked at: more are no folder of interpreters."""


@dataclass(frozen=True)
class Found:
    """What there is.

    Attributes:
        interpreters: Newest first; of one version that of the first folder that has it, in its newest release.
        problems: Path of an interpreter or a folder -> why nothing comes of it.
    """

    interpreters: tuple[Interpreter, ...]
    problems: dict[str, str]


def find_interpreters(folders: Sequence[Path], *, cache: Path | None = None) -> Found:
    """Find the CPythons of folders.

    A folder is itself an interpreter's prefix (`bin/python3.12`, `lib/python3.12/`), or holds several: `versions/` of
    pyenv, `~/.local/share/uv/python`, a centre's `/opt/python`. Symlinks are followed.

    Args:
        folders: The most wanted first.
        cache: Folder where to keep what was found out, so that each interpreter is run but once; need not exist, and
            is not needed.
    """
    best: dict[str, Interpreter] = {}
    problems: dict[str, str] = {}
    seen: set[tuple[Path, str]] = set()
    for folder in folders:
        mine: dict[str, Interpreter] = {}
        try:
            candidates = list(_candidates(folder))
        except OSError as error:
            problems[os.fspath(folder)] = (error.strerror or str(error)).lower()
            continue
        if not candidates:
            problems[os.fspath(folder)] = (
                "holds no interpreter: there is no bin/python2.7 or bin/python3.X in it or one level below"
            )
        for prefix, version in candidates:
            if (prefix, version) in seen:
                continue
            seen.add((prefix, version))
            try:
                found = _cached(prefix, version, cache)
            except NotUsable as error:
                problems[f"{prefix}/bin/python{version}"] = str(error)
                continue
            if version not in mine or _release(mine[version]) < _release(found):
                mine[version] = found
        best = {**mine, **best}
    newest = sorted(best.values(), key=_release, reverse=True)
    return Found(tuple(newest), problems)


def _candidates(folder: Path) -> Iterator[tuple[Path, str]]:
    """(prefix, version), sorted; symlinks resolved."""
    inside = list(_programs(folder))
    if inside:
        yield from inside
        return
    names = sorted(os.listdir(folder))[:_SEVERAL]  # noqa: PTH208 - its error is the caller's to tell
    yield from dict.fromkeys(candidate for name in names for candidate in _programs(folder / name))


def _programs(prefix: Path) -> Iterator[tuple[Path, str]]:
    try:
        names = sorted(os.listdir(prefix / "bin"))  # noqa: PTH208
    except OSError:
        return
    for name in names:
        if match := _PROGRAM.match(name):
            version = match[1]
            if (prefix / "bin" / name).is_file() and (prefix / "lib" / f"python{version}").is_dir():
                yield Path(os.path.realpath(prefix)), version


def _release(interpreter: Interpreter) -> tuple[int, ...]:
    return tuple(map(int, interpreter.full.split(".")))


def _cached(prefix: Path, version: str, cache: Path | None) -> Interpreter:
    mark = stamp(prefix, version)
    kept = cache / f"{mark[:32]}.json" if cache is not None else None
    if kept is not None and (known := _load(kept, prefix, version)) is not None:
        return known
    found = look(prefix, version)
    if kept is not None:
        _keep(kept, found)
    return found


def _load(path: Path, prefix: Path, version: str) -> Interpreter | None:
    try:
        values = json.loads(path.read_bytes())
        if values["prefix"] != os.fspath(prefix) or values["version"] != version:
            return None
        return Interpreter(
            prefix=prefix,
            version=version,
            full=str(values["full"]),
            architecture=str(values["architecture"]),
            built_for=str(values["built_for"]),
            glibc=(int(values["glibc"][0]), int(values["glibc"][1])),
            system={str(name): tuple(map(str, users)) for name, users in values["system"].items()},
            libraries=tuple(map(str, values["libraries"])),
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None


def _keep(path: Path, found: Interpreter) -> None:
    """Keep what was found out; where that cannot be done, it is found out again next time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".look-", delete=False) as file:
            try:
                json.dump(to_json(found), file)
                file.flush()
                os.replace(file.name, path)  # noqa: PTH105
            except BaseException:
                os.unlink(file.name)  # noqa: PTH108
                raise
    except OSError:
        pass
