"""A git repository made of files and of what an image says of their commit: without git, and without a network.

What comes of it is what `git clone --depth 1` would have made: the commit is there with its folders and files, `git
status` shows what was changed since, and fetching and pushing go to the origin. What the image says (`contract.COMMIT`,
JSON) is the commit itself and a list of all its files::

    {"format": 1, "id": …, "commit": the object's text, "branch": name or "", "files": [[mode, id, path], …]}

The ids are hashes of the contents, so what was changed on the way is found out, and taken for a change of the person's.

Formats: gitformat-pack(5), gitformat-index(5), gitrepository-layout(5), git-config(1); those of git 2.39.
"""

# Paths are text here: they become words of a command line, and may be no text at all.
# ruff: noqa: PTH103, PTH114, PTH115, PTH118, PTH120, PTH123

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import struct
import time
from dataclasses import dataclass
from typing import Any

from .pack import Pack

_LIMIT = 256 << 20
_ID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_BRANCH = re.compile(r"(?!.*(?:\.\.|//|@\{|\.lock(?:/|$)|/\.|\.(?:/|$)|/$))[^\W_][\w./+@#=-]{0,200}")
"""git-check-ref-format(1), and no more than that."""
_MODES = {"100644", "100755", "120000", "160000"}
_FILES = ("100644", "100755")
_LINK, _SUBMODULE = "120000", "160000"
_MANY = 1000
_DEPTH = 200
"""Folders in each other."""
_SMALL = 16 << 20
"""Bytes up to which a file is looked at for ends of lines that git changed on the way out."""


@dataclass(frozen=True)
class History:
    """What an image says of its commit.

    Attributes:
        id: Of the commit.
        commit: The object, without git's header.
        branch: That it was the newest of; "" if it was asked for as a tag or by its id.
        files: (mode, id, path) of all its files, by path as git sorts them.
        hash: Name of the ids' hash.
    """

    id: str
    commit: bytes
    branch: str
    files: tuple[tuple[str, str, bytes], ...]
    hash: str


def read_history(path: str) -> History | None:
    """What an image says, None if it says nothing that can be true.

    Args:
        path: Of the file.
    """
    try:
        with open(path, "rb") as file:
            values = json.loads(file.read(_LIMIT))
        return _history(values)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _history(values: Any) -> History | None:
    id_, commit = values["id"], values["commit"].encode("utf-8", "surrogateescape")
    hash_ = "sha256" if len(id_) == 64 else "sha1"
    if values["format"] != 1 or not _ID.fullmatch(id_) or _named("commit", commit, hash_) != id_:
        return None
    listed = (_file(mode, name, path, len(id_)) for mode, name, path in values["files"])
    files = tuple(sorted(listed, key=lambda entry: entry[2]))
    branch = values["branch"]
    trees = _trees(files, hash_)
    # The commit's first line names its tree: then the list is the true one.
    if commit.split(b"\n", 1)[0] != b"tree " + _named("tree", trees[b""], hash_).encode():
        return None
    return History(id_, commit, branch if _BRANCH.fullmatch(branch) else "", files, hash_)


def _file(mode: str, id_: str, path: str, length: int) -> tuple[str, str, bytes]:
    raw = path.encode("utf-8", "surrogateescape")
    if mode not in _MODES or len(id_) != length or not _ID.fullmatch(id_) or b"\0" in raw:
        raise ValueError("not a file of a commit")
    parts = raw.split(b"/")
    if len(parts) > _DEPTH or any(part.lower() in (b"", b".", b"..", b".git") for part in parts):
        raise ValueError("not a path")
    return mode, id_, raw


def write_git(top: str, history: History | None, origin: str) -> bool:
    """Make the folder `.git` of a folder of files.

    Args:
        top: The folder, which has no `.git`; files that are not there have been left out of the image.
        history: What is known of the commit; without it the repository is empty but for its origin.
        origin: URL to fetch from and push to.

    Returns:
        True if all the commit's files are there; else git fetches some when they are needed.

    Raises:
        OSError: It cannot be written.
    """
    git = os.path.join(os.fsencode(top), b".git")
    for name in (b"objects/info", b"objects/pack", b"refs/heads", b"refs/tags", b"info"):
        os.makedirs(os.path.join(git, name))
    whole, branch = True, "main"
    refs: dict[str, str] = {}
    if history is not None:
        whole = _write_objects(top, git, history)
        branch = history.branch or f"from-{history.id[:12]}"
        refs[f"refs/heads/{branch}"] = history.id
        if history.branch:
            refs[f"refs/remotes/origin/{branch}"] = history.id
        if b"\nparent " in history.commit.split(b"\n\n", 1)[0]:
            _write(git, b"shallow", f"{history.id}\n")
    for ref, id_ in refs.items():
        os.makedirs(os.path.dirname(os.path.join(git, os.fsencode(ref))), exist_ok=True)
        _write(git, os.fsencode(ref), f"{id_}\n")
    followed = branch if history is None or history.branch else ""
    _write(git, b"config", _config(origin, followed, history.hash if history else "sha1", whole))
    made = "" if history is None else _made(os.fsencode(top), {name for *_, name in history.files})
    _write(git, b"info/exclude", f"# What git is to overlook here: what the build of the image made.\n{made}")
    _write(git, b"HEAD", f"ref: refs/heads/{branch}\n")
    return whole


def origin_of(top: str) -> str:
    """The URL of a clone's origin as its settings have it, "" for a folder that is none."""
    try:
        with open(os.path.join(top, ".git", "config"), encoding="utf-8", errors="replace") as file:
            text = file.read(1 << 16)
    except OSError:
        return ""
    found = re.search(r'^\[remote "origin"\]\s*\n(?:[ \t].*\n)*?[ \t]+url[ \t]*=[ \t]*(\S+)[ \t]*$', text, re.MULTILINE)
    return found[1].strip('"') if found else ""


def _made(top: bytes, tracked: set[bytes]) -> str:
    """Patterns (gitignore(5)) for the files that are there but not in the commit; for their folders, if they are many,
    though then a file that a person adds there is overlooked, too."""
    folders = {b"", *(name[:end] for name in tracked for end, byte in enumerate(name) if byte == ord("/"))}
    paths = []
    for folder, names, files in os.walk(top):
        below = os.path.relpath(folder, top)
        prefix = b"" if below == b"." else below + b"/"
        links = [name for name in names if os.path.islink(os.path.join(folder, name))]
        paths += [prefix + name for name in (*files, *links) if prefix + name not in tracked]
        # What is in a submodule is its own business.
        names[:] = [name for name in names if prefix + name not in tracked and prefix + name != b".git"]
    if len(paths) > _MANY:
        paths = [_topmost(path, folders) for path in paths]
    escaped = (re.sub(rb"[\\*?\[ ]", rb"\\\g<0>", path) for path in set(paths) if b"\n" not in path)
    return "".join(f"/{os.fsdecode(path)}\n" for path in sorted(escaped))


def _topmost(path: bytes, folders: set[bytes]) -> bytes:
    """The uppermost folder of a path that is none of these, the path itself if there is none."""
    parts = path.split(b"/")
    above = (b"/".join(parts[:end]) for end in range(1, len(parts)))
    return next((folder + b"/" for folder in above if folder not in folders), path)


def _write(git: bytes, name: bytes, text: str) -> None:
    with open(os.path.join(git, name), "x", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)


def _config(origin: str, branch: str, hash_: str, whole: bool) -> str:
    extensions = []
    if hash_ != "sha1":
        extensions.append(f"\tobjectformat = {hash_}\n")
    if not whole:
        # Only so may objects be missing (gitformat-pack(5), "partial packfiles"): they are fetched when asked for.
        extensions.append("\tpartialclone = origin\n")
    text = f"[core]\n\trepositoryformatversion = {1 if extensions else 0}\n\tfilemode = true\n\tbare = false\n"
    text += "\tlogallrefupdates = true\n"
    if extensions:
        text += "[extensions]\n" + "".join(extensions)
    text += f'[remote "origin"]\n\turl = {_quoted(origin)}\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n'
    if not whole:
        text += "\tpromisor = true\n"
    if branch:
        text += f"[branch {_quoted(branch)}]\n\tremote = origin\n\tmerge = {_quoted('refs/heads/' + branch)}\n"
    return text


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _named(kind: str, content: bytes, hash_: str) -> str:
    return hashlib.new(hash_, b"%s %d\0" % (kind.encode(), len(content)) + content).hexdigest()


def _trees(files: tuple[tuple[str, str, bytes], ...], hash_: str) -> dict[bytes, bytes]:
    """Folder -> its tree object; b"" is the root."""
    inside: dict[bytes, dict[bytes, tuple[bytes, str]]] = {b"": {}}
    for mode, id_, path in files:
        folder, _, name = path.rpartition(b"/")
        inside.setdefault(folder, {})[name] = (mode.encode(), id_)
        while folder and folder.rpartition(b"/")[0] not in inside:
            folder = folder.rpartition(b"/")[0]
            inside[folder] = {}
    if len({path for *_, path in files}) < len(files) or any(path in inside for *_, path in files):
        raise ValueError("a name stands for two things")
    trees = {}
    for folder in sorted(inside, key=lambda path: path.count(b"/") + bool(path), reverse=True):
        # A folder is sorted as if its name ended with a slash.
        entries = sorted(inside[folder].items(), key=lambda item: item[0] + (b"/" if item[1][0] == b"40000" else b""))
        trees[folder] = b"".join(b"%s %s\0" % (mode, name) + bytes.fromhex(id_) for name, (mode, id_) in entries)
        if folder:
            above, _, name = folder.rpartition(b"/")
            inside[above][name] = (b"40000", _named("tree", trees[folder], hash_))
    return trees


def _write_objects(top: str, git: bytes, history: History) -> bool:
    """Write pack and index; True if no object is missing."""
    missing = False
    lines = []
    folders: dict[bytes, bool] = {b"": True}
    with Pack(os.path.join(git, b"objects", b"pack"), history.hash) as pack:
        pack.add("commit", history.commit)
        for tree in _trees(history.files, history.hash).values():
            pack.add("tree", tree)
        for mode, id_, name in history.files:
            path = os.path.join(os.fsencode(top), name)
            found = _lstat(os.fsencode(top), name, folders)
            if mode == _SUBMODULE:
                lines.append(_line(mode, id_, name, None, left_out=found is None))
                continue
            same = found is not None and _add(pack, mode, id_, path, found)
            missing = missing or not same
            # Without times git looks into the file itself.
            lines.append(_line(mode, id_, name, os.lstat(path) if same else None, left_out=found is None))
        pack.finish(partial=missing)
    content = b"DIRC" + struct.pack(">II", 3, len(lines)) + b"".join(lines)
    with open(os.path.join(git, b"index"), "xb") as file:
        file.write(content + hashlib.new(history.hash, content).digest())
    return not missing


def _lstat(top: bytes, name: bytes, folders: dict[bytes, bool]) -> os.stat_result | None:
    """What is at a path, None for nothing and for what lies behind a link."""
    folder = name.rpartition(b"/")[0]
    if folder not in folders:
        found = _lstat(top, folder, folders)
        folders[folder] = found is not None and stat.S_ISDIR(found.st_mode)
    try:
        return os.lstat(os.path.join(top, name)) if folders[folder] else None
    except (FileNotFoundError, NotADirectoryError):
        return None


def _add(pack: Pack, mode: str, id_: str, path: bytes, found: os.stat_result) -> bool:
    """Add the contents that git has of a file; False if what is there is something else."""
    if mode == _LINK:
        return stat.S_ISLNK(found.st_mode) and pack.add("blob", os.readlink(path), id_)
    if not stat.S_ISREG(found.st_mode):
        return False
    if pack.add_file(path, found.st_size, id_):
        return True
    if found.st_size <= _SMALL:
        with open(path, "rb") as file:
            content = file.read(_SMALL + 1)
        # .gitattributes(5), "eol": what is \r\n here is \n there.
        if pack.add("blob", content.replace(b"\r\n", b"\n"), id_):
            return True
    pointer = _lfs_pointer(path, found.st_size)
    if not pack.add("blob", pointer, id_):
        return False
    # git takes it for unchanged by its time, if that is clearly older than the index ("racy git").
    before = time.time() - 10
    os.utime(path, (before, before))
    return True


def _lfs_pointer(path: bytes, size: int) -> bytes:
    """What git has of a file in Git LFS (git-lfs, docs/spec.md)."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest.hexdigest()}\nsize {size}\n".encode()


def _line(mode: str, id_: str, name: bytes, found: os.stat_result | None, *, left_out: bool) -> bytes:
    """An entry of the index; what was left out of the image is not looked for (skip-worktree)."""
    times = [0] * 9
    if found is not None:
        times = [
            *divmod(found.st_ctime_ns, 10**9),
            *divmod(found.st_mtime_ns, 10**9),
            *(found.st_dev, found.st_ino, found.st_uid, found.st_gid, found.st_size),
        ]
    low = [number & 0xFFFFFFFF for number in times]
    flags = min(len(name), 0xFFF) | (0x4000 if left_out else 0)
    fields = struct.pack(">6I", *low[:6]) + struct.pack(">I", int(mode, 8)) + struct.pack(">3I", *low[6:])
    entry = fields + bytes.fromhex(id_) + struct.pack(">H", flags)
    entry += (struct.pack(">H", 0x4000) if left_out else b"") + name
    return entry + bytes(8 - len(entry) % 8)
