"""What a package index says it has of a package (packaging.python.org, "Simple repository API": JSON and HTML)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from hpcbinder.config import redact
from hpcbinder.errors import FetchError
from hpcbinder.model import LockedPackage
from hpcbinder.text import one_line
from hpcbinder.wheels.target import Target

ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"

_ANCHOR = re.compile(r"<a\s[^<>]{0,4000}>", re.IGNORECASE)
_BASE = re.compile(r"<base\s[^<>]{0,2000}>", re.IGNORECASE)
_HASH = re.compile(r"(sha256|sha384|sha512)=([0-9a-f]{64,128})")


@dataclass(frozen=True)
class Candidate:
    """A file of an index.

    Attributes:
        filename: Its name.
        url: Where it is.
        hashes: `sha256:…`, and others that the index gives; empty if it gives none.
    """

    filename: str
    url: str
    hashes: frozenset[str]


def read_page(content: bytes, kind: str, url: str) -> Iterator[Candidate]:
    """The wheels on a package's page.

    Args:
        content: The page.
        kind: Its content type.
        url: Where it came from in the end: what it links to may be relative.

    Raises:
        FetchError: It is no such page.
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise FetchError("the index's page is not UTF-8", where=one_line(redact(url), 200)) from None
    return _read_json(text, url) if "json" in kind else _read_html(text, url)


def _read_json(text: str, url: str) -> Iterator[Candidate]:
    try:
        files = json.loads(text)["files"]
        for entry in files:
            name, link, hashes = str(entry["filename"]), str(entry["url"]), entry.get("hashes") or {}
            if name.endswith(".whl"):
                yield Candidate(name, join(url, link), _hashes(hashes))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise FetchError("the index's page is not what PEP 691 says", where=one_line(redact(url), 200)) from None


def _hashes(values: dict[str, Any]) -> frozenset[str]:
    pairs = (f"{name}={value}" for name, value in values.items())
    return frozenset(f"{match[1]}:{match[2]}" for match in map(_HASH.fullmatch, pairs) if match)


def _read_html(text: str, url: str) -> Iterator[Candidate]:
    # Pages have thousands of links; the standard parser is slow, and gets only what may be one to a wheel.
    base = _base(text, url)
    for match in _ANCHOR.finditer(text):
        if ".whl" in match[0] and (link := _attributes(match[0]).get("href")):
            target, _, fragment = link.partition("#")
            name = unquote(target.partition("?")[0].rpartition("/")[2])
            if name.endswith(".whl"):
                hashes = frozenset(f"{found[1]}:{found[2]}" for found in _HASH.finditer(fragment))
                yield Candidate(name, join(base, target), hashes)


def anchors(text: str) -> Iterator[tuple[str, str, str, dict[str, str | None]]]:
    """The links to anything but wheels on an HTML page: name, target, fragment, all attributes."""
    base = _base(text, "")
    for match in _ANCHOR.finditer(text):
        attributes = {} if ".whl" in match[0] else _attributes(match[0])
        if link := attributes.get("href"):
            target, _, fragment = link.partition("#")
            yield unquote(target.partition("?")[0].rpartition("/")[2]), join(base, target), fragment, attributes


def _base(text: str, url: str) -> str:
    found = _BASE.search(text)
    return join(url, _attributes(found[0]).get("href") or "") if found else url


class _Tag(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, str | None] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found = dict(attrs)


def _attributes(tag: str) -> dict[str, str | None]:
    parser = _Tag()
    parser.feed(tag)
    return parser.found


def join(base: str, link: str) -> str:
    """Where a link leads; "" for one that leads nowhere."""
    try:
        return urljoin(base, link)
    except ValueError:
        return ""


def may_be(candidate: Candidate, package: LockedPackage) -> bool:
    """Whether a file may be one that the lock knows, by the hashes that the index gives, if it gives any."""
    algorithms = {value.partition(":")[0] for value in package.hashes}
    comparable = {value for value in candidate.hashes if value.partition(":")[0] in algorithms}
    return not comparable or bool(comparable & set(package.hashes))


def best(candidates: Iterable[Candidate], package: LockedPackage, target: Target) -> Candidate:
    """The wheel that an installer takes of those that may be: of the locked version, with the best tag, then build
    number.

    Raises:
        FetchError: None of them will do.
    """
    found: list[tuple[int, tuple[int, str], Candidate]] = []
    seen = False
    for candidate in candidates:
        rank = rank_of(candidate.filename, package, target)
        seen = seen or rank is not None
        if rank is not None and rank[0] >= 0:
            found.append((-rank[0], rank[1], candidate))
    if not found:
        name = f"{package.name} {package.version}"
        if seen:
            raise FetchError(f"{name}: no wheel of it runs on Python {target.python} of {target.platform}")
        raise FetchError(
            f"{name}: the index has no wheel with a hash that the lock has",
            hint="make the lock anew: it may be of another index, or the files were taken away",
        )
    return max(found, key=lambda entry: entry[:2])[2]


def rank_of(filename: str, package: LockedPackage, target: Target) -> tuple[int, tuple[int, str]] | None:
    """How good a wheel is for a target, by its name.

    Returns:
        Rank of its best tag (0 is best, -1 if none will do) and its build number; None if it is not of this package
        and version, or its name is no wheel's.
    """
    from packaging.utils import canonicalize_name, parse_wheel_filename
    from packaging.version import Version

    # Most files of a page are of other versions; the name up to there is cheap to compare.
    parts = filename.split("-")
    if len(parts) not in (5, 6) or canonicalize_name(parts[0]) != package.name:
        return None
    try:
        if parts[1] != package.version and Version(parts[1]) != Version(package.version):
            return None
        _, _, build, tags = parse_wheel_filename(filename)
    except ValueError:  # InvalidWheelFilename and InvalidVersion are; thousands of digits are another
        return None
    ranks = [target.tags[tag] for tag in tags if tag in target.tags]
    return (min(ranks) if ranks else -1), (build or (0, ""))


def wheel_name(url: str) -> str:
    """The file's name in a URL.

    Raises:
        FetchError: It is no wheel's.
    """
    from packaging.utils import parse_wheel_filename

    name = unquote(urlsplit(url).path.rpartition("/")[2])
    try:
        parse_wheel_filename(name)
    except ValueError:
        raise FetchError(f"{one_line(name, 200)!r} is no name of a wheel", where=one_line(redact(url), 200)) from None
    return name
