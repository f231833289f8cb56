"""How a raw value, a text from a file, the environment or a flag, is read; and how one is shown."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from hpcbinder.errors import UsageError

# A login without a password is no secret to ssh; to http it may be a token.
_CREDENTIALS = re.compile(r"\b(?:(https?://)[^/?#\s]*|([a-z][a-z0-9+.-]{0,30}://)[^/?#\s:]*:\S*)@", re.IGNORECASE)


def redact(text: str) -> str:
    """`https://user:secret@host/` -> `https://***@host/`, wherever in the text it stands."""
    if "@" not in text:
        return text
    return "".join(map(_redacted, re.split(r"(\s+)", text)))


def _redacted(word: str) -> str:
    # Only up to the last @ can there be a login. Behind it, or without one, the pattern would try every beginning to
    # the word's end, which takes minutes for a long line that a build step chose to print.
    head, at, tail = word.rpartition("@")
    return _CREDENTIALS.sub(lambda match: f"{match[1] or match[2]}***@", head + at) + tail


@dataclass(frozen=True)
class Source:
    """Where a raw value came from, and what that means for reading it."""

    origin: str
    environ: Mapping[str, str]
    folder: Path
    splits: bool
    """True where the world only has strings (the environment): a list is then split from one."""
    option: str | None = None
    """`--name` of the command line that it was given by: then that is what a person knows it as."""

    def refuse(self, key: str, problem: str) -> UsageError:
        return UsageError(f"{self.option or key} {problem}", where=None if self.option else self.origin)


Reader = Callable[[str, str, Source], Any]
"""(key, text, source) -> value."""


@dataclass(frozen=True)
class Spec:
    """One key: how its value is read, and what the documentation says about it."""

    kind: str
    doc: str
    read: Reader
    optional: bool = False
    separator: str | None = None
    """Set for a list or a table: what separates its elements in an environment variable."""
    names: Reader | None = None
    """Set for a table of texts (NAME = VALUE): how its names are read; `read` reads the values."""
    usual: tuple[str, ...] = ()
    """Variables of other tools that are taken when nothing else sets the key, first one set wins."""
    default_doc: str | None = None


def quoted(text: str) -> str:
    """A value as a message may show it: no credentials, no control characters, not endless."""
    shown = redact(text)
    return ascii(shown if len(shown) <= 80 else shown[:77] + "...")


def matching(pattern: str, what: str) -> Reader:
    compiled = re.compile(pattern)

    def read(key: str, text: str, source: Source) -> str:
        if not compiled.fullmatch(text):
            raise source.refuse(key, f"must be {what}, not {quoted(text)}")
        return text

    return read


def one_of(*choices: str) -> Reader:
    def read(key: str, text: str, source: Source) -> str:
        if text not in choices:
            raise source.refuse(key, f"must be one of {', '.join(choices)}, not {quoted(text)}")
        return text

    return read


def read_flag(key: str, text: str, source: Source) -> bool:
    if text not in ("true", "false"):
        raise source.refuse(key, f"must be true or false, not {quoted(text)}")
    return text == "true"


_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))", re.ASCII)


def _expand(key: str, text: str, source: Source) -> str:
    """Replace `$NAME`, `${NAME}` and a leading `~`: sites say "$SCRATCH/hpcbinder" once for all their users."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if not source.environ.get(name):
            raise source.refuse(key, f"needs the environment variable {name}, which is not set")
        return source.environ[name]

    expanded = _VARIABLE.sub(value, text)
    if expanded == "~" or expanded.startswith("~/"):
        home = source.environ.get("HOME") or os.path.expanduser("~")  # noqa: PTH111 (no exception without a home)
        expanded = home + expanded[1:]
    return expanded


def read_path(key: str, text: str, source: Source) -> Path:
    if not text:
        raise source.refuse(key, "must be a path, not empty")
    path = Path(os.path.normpath(source.folder / _expand(key, text, source)))
    if not path.is_absolute():
        raise source.refuse(key, f"must be an absolute path, not {quoted(text)}")
    return path


URL = r"https?://[^\s'\"\\<>`$]+"

REGISTRY = r"(?:[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?"
IMAGE = r"[A-Za-z0-9\[][A-Za-z0-9._:/\[\]-]*(@sha256:[0-9a-f]{64})?"
REPOSITORY = rf"{REGISTRY}(/[a-z0-9]+([._-]+[a-z0-9]+)*)*"


def read_proxy(key: str, text: str, source: Source) -> str:
    # "proxy.site:3128" is common in the environment; apt and uv want the scheme.
    url = text if "://" in text else f"http://{text}"
    return str(matching(r"(https?|socks5h?)://[^\s'\"\\<>`$]+", "a proxy's URL")(key, url, source))


def read_no_proxy(key: str, text: str, source: Source) -> str:
    return str(matching(r"[^'\"\\<>`$;&|]*", "a list of hosts")(key, "".join(text.split()), source))


def read_bind(key: str, text: str, source: Source) -> str:
    expanded = _expand(key, text, source)
    # Apptainer splits its argument at commas, so a path with one cannot be bound.
    char = r"[^:,\x00-\x1f\x7f]"
    return str(matching(rf"/{char}+|/{char}*:/{char}+(:(ro|rw))?", "/SOURCE[:/TARGET[:ro|rw]]")(key, expanded, source))


def read_as_of(key: str, text: str, source: Source) -> str:
    """A word as it is; a day or a time of RFC 3339 as `YYYY-MM-DDTHH:MM:SSZ`, of a day its last second."""
    if text in ("auto", "commit", "now"):
        return text
    day = re.fullmatch(r"\d{4}-\d\d-\d\d", text)
    moment = re.fullmatch(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.\d+)?([Zz]|[+-]\d\d:\d\d)", text)
    if day is None and moment is None:
        raise source.refuse(key, f"must be commit, now, YYYY-MM-DD or a time as in RFC 3339, not {quoted(text)}")
    try:
        if moment is None:
            when = datetime.fromisoformat(f"{text}T23:59:59+00:00")
        else:
            zone = "+00:00" if moment[3] in "Zz" else moment[3]
            when = datetime.fromisoformat(f"{moment[1]}T{moment[2]}{zone}").astimezone(timezone.utc)
    except (ValueError, OverflowError):
        raise source.refuse(key, f"is no day of the calendar: {quoted(text)}") from None
    return f"{when:%Y-%m-%dT%H:%M:%S}Z"


def read_compression(key: str, text: str, source: Source) -> str:
    what = "auto, gzip, gzip:1 to gzip:12, zstd, zstd:1 to zstd:22, xz, xz:0 to xz:9, lz4, or lz4:1 to lz4:12"
    matching(r"auto|(gzip|lz4)(:([1-9]|1[0-2]))?|zstd(:([1-9]|1[0-9]|2[0-2]))?|xz(:[0-9])?", what)(key, text, source)
    return text
