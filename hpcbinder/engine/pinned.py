"""A Dockerfile whose text changes when what its RUN lines mount does.

BuildKit looks at mounted files when it decides whether a step is in its cache. buildah 1.28 compares the line's text
only (`imagebuildah/stage_executor.go`, `getCreatedBy`), and would take the layer of another repository for ours. So
folders of the context and stages that are mounted get names that tell what is in them.

And a stage whose last instruction came from the cache is mounted as it was before that instruction: so one that does
nothing follows.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

_MARK = ".pin-"
_DIGITS = 16
_NOTHING = "ARG hpcbinder_end\n"
_FROM = re.compile(r"FROM\s+(?:--\S+\s+)*(?P<of>\S+)(?:\s+AS\s+(?P<name>\S+))?\s*\Z", re.I)
_FLAGS = re.compile(r"RUN(?:(?:\s|\\\r?\n)+--\S+)*", re.I)
_MOUNT = re.compile(r"(?<=--mount=)\S+")
_COPY_FLAGS = re.compile(r"(?:COPY|ADD)(?:(?:\s|\\\r?\n)+--\S+)*", re.I)
_COPY_FROM = re.compile(r"(?<=--from=)\S+")


@dataclass
class Pinned:
    """What became of a Dockerfile.

    Attributes:
        text: Its text.
        stages: Old name of a stage, in lower case -> new one.
        cacheable: False if something is mounted that no name can tell: then nothing may be taken from a cache.
    """

    text: str = ""
    stages: dict[str, str] = field(default_factory=dict)
    cacheable: bool = True


def pin(text: str, context: Path, image_id: Callable[[str], str | None]) -> Pinned:
    """Rename mounted folders and stages after what they hold.

    Args:
        text: A Dockerfile without heredocs.
        context: Its context; folders in it are renamed.
        image_id: The id of an image by its reference, None if there is none.
    """
    return _Pinning(context, image_id).run(text)


def unpinned(folder: str) -> str:
    """The name that a mounted folder of the context had."""
    return folder.partition(_MARK)[0]


def has_mounts(text: str) -> bool:
    """Whether a Dockerfile by anybody may have `RUN --mount`, however it is broken into lines."""
    lines = (line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))
    return "--mount" in re.sub(r"[\\`][ \t\r]*\n", "", "\n".join(lines))


@dataclass
class _Instruction:
    """One instruction: the comments in front of it, and its lines."""

    comments: str
    body: str

    @property
    def word(self) -> str:
        match = re.match(r"[A-Za-z]+", self.body)
        return match[0].upper() if match else ""

    @property
    def mounts(self) -> list[dict[str, str]]:
        """The options of a RUN line's mounts (`type` is always there)."""
        flags = _FLAGS.match(self.body)
        return [_options(token) for token in _MOUNT.findall(flags[0])] if flags else []

    @property
    def sources(self) -> list[str]:
        """What COPY or ADD takes from the context, relative to it; none of what comes from a stage."""
        flags = _COPY_FLAGS.match(self.body)
        if flags is None or _COPY_FROM.search(flags[0]):
            return []
        rest = self.body[flags.end() :].replace("\\\n", " ").strip()
        try:
            words = json.loads(rest) if rest.startswith("[") else rest.split()
        except ValueError:
            words = ["."]
        return [_relative(str(word)) for word in words[:-1]]


class _Pinning:
    def __init__(self, context: Path, image_id: Callable[[str], str | None]) -> None:
        self._context = context
        self._image_id = image_id
        self._folders: dict[str, str] = {}
        self._mounted: set[str] = set()
        self._pinned = Pinned()

    def run(self, text: str) -> Pinned:
        instructions = list(_instructions(text))
        self._rename_folders(instructions)
        begins: list[_Instruction] = []
        digests: dict[str, str] = {}
        stages = list(_stages(instructions))
        named: dict[str, list[_Instruction]] = {}
        for stage in stages:
            name, content = self._stage(stage, digests)
            if name:
                digests[name] = hashlib.sha256(content.encode("utf-8", "surrogateescape")).hexdigest()[:_DIGITS]
                self._pinned.stages[name] = f"{name}-{digests[name]}"
                begins.append(stage[0])
                named[name] = stage
        for begin in begins:  # at last: a stage's own name is not known before its end
            match = _FROM.match(begin.body)
            assert match is not None
            new = self._pinned.stages[match["name"].lower()]
            begin.body = begin.body[: match.start("name")] + new + begin.body[match.end("name") :]
        for name in self._mounted & named.keys():
            if len(named[name]) > 1:
                named[name].append(_Instruction("\n", _NOTHING))
        self._pinned.text = "".join(one.comments + one.body for stage in stages for one in stage)
        return self._pinned

    def _stage(self, stage: list[_Instruction], digests: dict[str, str]) -> tuple[str, str]:
        """Put new names into a stage. Returns its name, "" if it has none, and text that tells all that is in it."""
        begin = stage[0]
        match = _FROM.match(begin.body) if begin.word == "FROM" else None
        if match is None:
            return "", ""
        of, name = match["of"], (match["name"] or "").lower()
        content = [digests.get(of.lower()) or self._image_id(of) or of]
        if of.lower() in self._pinned.stages:
            begin.body = (
                begin.body[: match.start("of")] + self._pinned.stages[of.lower()] + begin.body[match.end("of") :]
            )
        for instruction in stage[1:]:
            if instruction.word == "RUN":
                self._pin_mounts(instruction)
            elif instruction.word in ("COPY", "ADD"):
                flags = _COPY_FLAGS.match(instruction.body)
                end = flags.end() if flags else 0
                pinned = _COPY_FROM.sub(self._stage_name, instruction.body[:end])
                instruction.body = pinned + instruction.body[end:]
                if name:
                    content += [_digest(self._context / source) for source in instruction.sources]
            content.append(instruction.body)
        return name, "\n".join(content)

    def _stage_name(self, match: re.Match[str]) -> str:
        return self._pinned.stages.get(match[0].lower(), match[0])

    def _rename_folders(self, instructions: list[_Instruction]) -> None:
        """Rename what is mounted of the context, unless something else needs it under its name."""
        wanted = dict.fromkeys(
            _relative(mount["source"])
            for instruction in instructions
            if instruction.word == "RUN"
            for mount in instruction.mounts
            if mount["type"] == "bind" and "from" not in mount
        )
        taken = [*wanted, *(s for one in instructions if one.word in ("COPY", "ADD") for s in one.sources)]
        for source in wanted:
            path = self._context / source
            overlap = any(other != source and (_within(other, source) or _within(source, other)) for other in taken)
            if not os.path.lexists(path) and "$" not in source:
                # Of a stage that is not built now, or it will fail: neither asks a cache.
                self._folders[source] = source
                continue
            if overlap or taken.count(source) > 1 or source == "." or "$" in source or not path.is_dir():
                continue
            new = f"{source}{_MARK}{_digest(path)}"
            path.rename(self._context / new)
            self._folders[source] = new

    def _pin_mounts(self, instruction: _Instruction) -> None:
        flags = _FLAGS.match(instruction.body)
        assert flags is not None
        instruction.body = _MOUNT.sub(self._mount, flags[0]) + instruction.body[flags.end() :]

    def _mount(self, match: re.Match[str]) -> str:
        token, mount = match[0], _options(match[0])
        if "from" in mount:
            new = self._pinned.stages.get(mount["from"].lower())
            self._mounted.add(mount["from"].lower())
            return self._replaced(token, "from", new)
        if mount["type"] == "bind":
            return self._replaced(token, "source", self._folders.get(_relative(mount["source"])))
        return token

    def _replaced(self, token: str, key: str, new: str | None) -> str:
        if new is None:
            self._pinned.cacheable = False
            return token
        names = ("source", "src") if key == "source" else (key,)
        parts = token.split(",")
        return ",".join(f"{key}={new}" if part.partition("=")[0].lower() in names else part for part in parts)


def _instructions(text: str) -> Iterator[_Instruction]:
    comments, body = "", ""
    for line in text.splitlines(keepends=True):
        stripped = line.strip()
        if not body and (not stripped or stripped.startswith("#")):
            comments += line
            continue
        body += line if body else line.lstrip()
        if stripped.startswith("#") or stripped.endswith("\\"):
            continue
        yield _Instruction(comments, body)
        comments, body = "", ""
    if comments or body:
        yield _Instruction(comments, body)


def _stages(instructions: list[_Instruction]) -> Iterator[list[_Instruction]]:
    stage: list[_Instruction] = []
    for instruction in instructions:
        if instruction.word == "FROM" and stage:
            yield stage
            stage = []
        stage.append(instruction)
    if stage:
        yield stage


def _options(token: str) -> dict[str, str]:
    """The options of `--mount=…`, under the names they usually have."""
    options = {"type": "bind"}
    for part in token.split(","):
        key, _, value = part.partition("=")
        key = key.lower()
        options["source" if key == "src" else key] = value
    options.setdefault("source", "/")
    return options


def _relative(source: str) -> str:
    """A path in the context, without `..` and the leading `/` it may have."""
    if any(sign in source for sign in "*?["):
        return "."
    return posixpath.normpath("/" + source).lstrip("/") or "."


def _within(path: str, folder: str) -> bool:
    return folder == "." or path == folder or path.startswith(f"{folder}/")


def _digest(path: Path) -> str:
    """Identity of a file or folder: names, modes, contents; no times."""
    digest = hashlib.sha256()
    for item in _walked(path):
        if not os.path.lexists(item):
            continue
        mode = item.lstat().st_mode
        digest.update(f"{os.fsencode(item.relative_to(path))!r} {mode:o}\n".encode())
        if item.is_symlink():
            digest.update(os.fsencode(item.readlink()) + b"\n")
        elif item.is_file():
            with item.open("rb") as file:
                inner = hashlib.sha256()
                while block := file.read(1 << 20):
                    inner.update(block)
            digest.update(inner.digest())
    return digest.hexdigest()[:_DIGITS]


def _walked(path: Path) -> Iterator[Path]:
    """A path and all below it, in a fixed order, however deep."""
    left = [path]
    while left:
        item = left.pop()
        yield item
        if item.is_dir() and not item.is_symlink():
            left += sorted(item.iterdir(), reverse=True)
