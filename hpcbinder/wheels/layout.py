"""Where each file of a wheel belongs in an environment, and what the installer adds (packaging.python.org, "Binary
distribution format", "Installing a wheel"; sysconfig's scheme `venv`)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from urllib.parse import parse_qs, urlsplit

from hpcbinder.text import one_line
from hpcbinder.wheels.archive import Archive, Refused, checked_name
from hpcbinder.wheels.distinfo import REWRITTEN, DistInfo, Script
from hpcbinder.wheels.target import Target

INSTALLER = b"hpcbinder\n"
_PLACEHOLDER = b"#!python"
_LONGEST_SHEBANG = 127
"""Bytes of `#!` and a path that every Linux starts (BINPRM_BUF_SIZE before 5.1)."""
_LARGEST_SCRIPT = 16 << 20


@dataclass(frozen=True)
class Placed:
    """A file to install.

    Attributes:
        path: Below the prefix.
        member: Its name in the wheel; "" if it is made here.
        content: All of it, where it is made here, or is another than in the wheel.
        executable: Whether it may be run.
    """

    path: str
    member: str
    content: bytes | None
    executable: bool


def lay_out(archive: Archive, info: DistInfo, target: Target, *, url: str = "", digest: str = "") -> list[Placed]:
    """All files of an installed wheel but RECORD, sorted by path.

    Args:
        url: Where the wheel came from, if a lock named that and no index.
        digest: SHA-256 (hex) of the wheel.

    Raises:
        Refused: A file would lie where it must not.
    """
    placed: dict[str, Placed] = {}
    for file in (*_members(archive, info, target), *_made(info, target, url, digest)):
        there = placed.get(file.path)
        # A command that an entry point makes takes the place of the wheel's own of that name, as with pip.
        if there is not None and (file.member or not there.path.startswith("bin/")):
            raise Refused(f"two of its files would be {file.path!r}")
        placed[file.path] = file
    folders = {parent for path in placed for parent in _parents(path)}
    if wrong := sorted(folders & placed.keys()):
        raise Refused(f"it has a file {wrong[0]!r} where a folder must be")
    pyc = f".{target.cache_tag}.pyc"
    return [file for path, file in sorted(placed.items()) if not (path.endswith(pyc) and _source(path) in placed)]


def record_path(target: Target, info: DistInfo) -> str:
    """Where RECORD is, below the prefix."""
    return f"{target.packages}/{info.folder}/RECORD"


def bytecode_path(path: str, target: Target) -> str | None:
    """Where the bytecode of a file is (PEP 3147); None if it gets none."""
    if not path.endswith(".py") or not path.startswith(f"{target.packages}/") or "/__pycache__/" in path:
        return None
    folder, _, name = path.rpartition("/")
    return f"{folder}/__pycache__/{name.removesuffix('.py')}.{target.cache_tag}.pyc"


def _source(path: str) -> str:
    folder, _, name = path.rpartition("/")
    return f"{folder.removesuffix('/__pycache__')}/{name.partition('.')[0]}.py"


def _parents(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _members(archive: Archive, info: DistInfo, target: Target) -> Iterator[Placed]:
    dropped = {f"{info.folder}/{name}" for name in REWRITTEN}
    for name, member in archive.members.items():
        if name in dropped:
            continue
        path, script = _place(name, info, target)
        _check(path, info, target)
        content = _started(archive, name, target) if script else None
        yield Placed(path, name, content, script or member.executable)


def _place(name: str, info: DistInfo, target: Target) -> tuple[str, bool]:
    """Path below the prefix, and whether it is a script."""
    top, _, rest = name.partition("/")
    if top != info.data:
        return f"{target.packages}/{name}", False
    scheme, _, below = rest.partition("/")
    if not below:
        raise Refused(f"{name!r} is in no folder of its .data")
    if scheme in ("purelib", "platlib"):
        return f"{target.packages}/{below}", False
    if scheme == "headers":
        return f"{target.headers}/{info.name}/{below}", False
    if scheme == "scripts":
        return f"bin/{below}", True
    if scheme == "data":
        # venvs have lib64 as a link to lib
        return f"lib/{below.removeprefix('lib64/')}" if below.startswith("lib64/") else below, False
    raise Refused(f"{name!r} is of an unknown scheme")


def _check(path: str, info: DistInfo, target: Target) -> None:
    checked_name(path)
    if path in _environments_own(target):
        raise Refused(f"its {path!r} would take the place of the environment's own")
    packages = f"{target.packages}/"
    if path.startswith(packages):
        top, slash, rest = path.removeprefix(packages).partition("/")
        if top.lower().endswith(".dist-info") and (top != info.folder or not slash or rest in REWRITTEN):
            raise Refused(f"its {one_line(path, 200)!r} would speak for another package, or for the installer")


@lru_cache
def _environments_own(target: Target) -> frozenset[str]:
    interpreters = {f"bin/python{end}" for end in ("", "3", f"3.{target.version[1]}")}
    folders = {"bin", "include", "lib64", target.packages, *_parents(target.packages)}
    return frozenset({"pyvenv.cfg", *interpreters, *folders})


def _started(archive: Archive, name: str, target: Target) -> bytes | None:
    """A script that is to run with the environment's interpreter; None if it stays as it is."""
    first = next(archive.pieces(name), b"")
    if not first.startswith(_PLACEHOLDER):
        return None
    line, end, rest = archive.read(name, _LARGEST_SCRIPT).partition(b"\n")
    return shebang(target.executable).encode() + (rest if end else b"")


def shebang(executable: str) -> str:
    """The first line of a script; where the kernel would cut it off, one for a shell that Python reads as text."""
    if len(executable) + 2 <= _LONGEST_SHEBANG:
        return f"#!{executable}\n"
    return f"#!/bin/sh\n'''exec' '{executable}' \"$0\" \"$@\"\n' '''\n"


def _made(info: DistInfo, target: Target, url: str, digest: str) -> Iterator[Placed]:
    folder = f"{target.packages}/{info.folder}"
    yield Placed(f"{folder}/INSTALLER", "", INSTALLER, False)
    yield Placed(f"{folder}/REQUESTED", "", b"", False)
    if url:
        yield Placed(f"{folder}/direct_url.json", "", _direct_url(url, digest), False)
    for script in (*info.scripts, *_numbered(info, target)):
        path = f"bin/{script.name}"
        _check(path, info, target)
        yield Placed(path, "", _command(script, target), True)


def _numbered(info: DistInfo, target: Target) -> Iterator[Script]:
    """`pip3.X`, which pip and uv make beside `pip3`, though no wheel of pip's can say what X is."""
    name = f"pip{target.version[0]}.{target.version[1]}"
    if info.name == "pip" and all(script.name != name for script in info.scripts):
        yield from (replace(script, name=name) for script in info.scripts if script.name == "pip3")


def _command(script: Script, target: Target) -> bytes:
    first = script.attribute.partition(".")[0]
    return (
        f"{shebang(target.executable)}"
        "import sys\n"
        f"from {script.module} import {first}\n"
        'if __name__ == "__main__":\n'
        f"    sys.exit({script.attribute}())\n"
    ).encode()


def _direct_url(url: str, digest: str) -> bytes:
    """packaging.python.org, "Direct URL Data Structure". A query may be what lets one in, and is not told.

    Args:
        url: `https://…` of an archive, `git+https://…@COMMIT` with what was asked for in the fragment
            (`requested_revision`, `subdirectory`), or `file://…` of a folder that is not there any more.
        digest: SHA-256 of the archive, hex.
    """
    parts = urlsplit(url.removeprefix("git+"))
    shown = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="")
    value: dict[str, object]
    if url.startswith("git+"):
        path, _, commit = shown.path.rpartition("@")
        asked = {name: values[-1] for name, values in parse_qs(parts.fragment).items()}
        vcs = {"vcs": "git", "commit_id": commit}
        if revision := asked.get("requested_revision"):
            vcs["requested_revision"] = revision
        value = {"url": shown._replace(path=path).geturl(), "vcs_info": vcs}
        if below := asked.get("subdirectory"):
            value["subdirectory"] = below
    elif url.startswith("file:"):
        value = {"url": shown.geturl(), "dir_info": {}}
    else:
        value = {"archive_info": {"hash": f"sha256={digest}", "hashes": {"sha256": digest}}, "url": shown.geturl()}
    return json.dumps(value, sort_keys=True).encode()
