"""When the files of a package were uploaded, asked of the index itself: uv does not tell it of what it does not take.

The page of a package is read as JSON (PEP 691, upload times by PEP 700) or as HTML, where mirrors write the same time
into `data-upload-time`, as uv reads it too.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from hpcbinder.config import SiteConfig
from hpcbinder.errors import FetchError
from hpcbinder.source import Reach, web_error, web_session
from hpcbinder.text import one_line

if TYPE_CHECKING:
    import requests

_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"  # PEP 691
_PAGE = 32 << 20
"""Bytes of a package's page: the longest of PyPI's that anybody installs has 12 million."""
_METADATA = 4 << 20
_FILES = 100_000
_SECONDS = 300.0
"""Time for all questions together."""
_TIME = re.compile(r"(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2})(?:\.\d{1,9})?(?:Z|\+00:00)")


@dataclass(frozen=True)
class Uploaded:
    """A file of a package.

    Attributes:
        name: Its file name.
        uploaded: When (RFC 3339 in UTC, whole seconds), "" if the index does not say it.
        requires_python: As the index has it.
        yanked: It was taken back.
        metadata: Where its metadata are (PEP 658), "" if the index does not have them apart.
    """

    name: str
    uploaded: str
    requires_python: str = ""
    yanked: bool = False
    metadata: str = ""


class UploadTimes:
    """Asks an index, for each package once.

    Args:
        index: Its address, with a login if it wants one.
        site: Proxies and certificates.
    """

    def __init__(self, index: str, site: SiteConfig) -> None:
        self._index = index.rstrip("/")
        self._site = site
        self._known: dict[str, tuple[Uploaded, ...]] = {}
        self._session: requests.Session | None = None
        self._spent = 0.0

    def of(self, name: str) -> tuple[Uploaded, ...]:
        """A package's files, none if the index does not have it.

        Args:
            name: Normalised (PEP 503).

        Raises:
            FetchError: The index cannot be asked, or its answer cannot be used.
        """
        if name not in self._known:
            url = f"{self._index}/{name}/"
            found = self._get(url, _PAGE)
            self._known[name] = _files(*found, where=_shown(url)) if found is not None else ()
        return self._known[name]

    def metadata(self, file: Uploaded) -> str:
        """The text of a file's metadata, "" if they cannot be had without the file."""
        if not file.metadata:
            return ""
        try:
            found = self._get(file.metadata, _METADATA)
        except FetchError:
            return ""
        return found[0].decode("utf-8", "replace") if found is not None else ""

    def _get(self, url: str, limit: int) -> tuple[bytes, str, str] | None:
        """What is at an address: its bytes, their type and where it really was; None if nothing is."""
        import requests

        begin = time.monotonic()
        if self._session is None:
            host = urlsplit(self._index).hostname or ""
            self._session = web_session(self._site, Reach({host}, plain=False))
        try:
            with self._session.get(url, headers={"Accept": _ACCEPT}) as answer:
                if answer.status_code in (404, 410):
                    return None
                if not answer.ok:
                    raise web_error(answer)
                content = bytearray()
                for piece in answer.iter_content(1 << 20):
                    content += piece
                    if len(content) > limit:
                        raise FetchError(f"answers with more than {limit >> 20} MiB", where=_shown(url))
                    self._check(begin, url)
                return bytes(content), str(answer.headers.get("Content-Type", "")), str(answer.url)
        except (requests.RequestException, OSError) as error:
            raise web_error(error) from error
        finally:
            self._spent += time.monotonic() - begin

    def _check(self, begin: float, url: str) -> None:
        if self._spent + time.monotonic() - begin > _SECONDS:
            raise FetchError(f"asking when files were uploaded took more than {_SECONDS:.0f} s", where=_shown(url))


def _files(content: bytes, kind: str, url: str, *, where: str) -> tuple[Uploaded, ...]:
    text = content.decode("utf-8", "replace")
    if kind.partition(";")[0].strip().endswith("json"):
        try:
            entries = json.loads(text)["files"]
            found = [_from_json(entry, url) for entry in entries[:_FILES]]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise FetchError("the index's answer is no list of files (PEP 691)", where=where) from None
        return tuple(found)
    page = _Page()
    page.feed(text)
    return tuple(_from_html(entry, url) for entry in page.anchors[:_FILES])


def _from_json(entry: dict[str, Any], page: str) -> Uploaded:
    metadata = bool(entry.get("core-metadata", entry.get("dist-info-metadata")))
    return Uploaded(
        name=str(entry["filename"]),
        uploaded=_seconds(str(entry.get("upload-time") or "")),
        requires_python=str(entry.get("requires-python") or ""),
        yanked=bool(entry.get("yanked")),
        metadata=f"{urljoin(page, str(entry['url']))}.metadata" if metadata else "",
    )


def _from_html(entry: tuple[str, dict[str, str]], page: str) -> Uploaded:
    name, attributes = entry
    url = urljoin(page, attributes.get("href", "")).partition("#")[0]
    told = attributes.get("data-core-metadata", attributes.get("data-dist-info-metadata", "false"))
    return Uploaded(
        name=name,
        uploaded=_seconds(attributes.get("data-upload-time", "")),
        requires_python=attributes.get("data-requires-python", ""),
        yanked="data-yanked" in attributes,
        metadata="" if told == "false" else f"{url}.metadata",
    )


class _Page(HTMLParser):
    """The anchors of a page: their text and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.anchors: list[tuple[str, dict[str, str]]] = []
        self._open: dict[str, str] | None = None
        self._text = ""

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        if tag == "a":
            self._open, self._text = {key: value or "" for key, value in attrs}, ""

    def handle_data(self, data: str) -> None:
        if self._open is not None and len(self._text) < 1000:
            self._text += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "a" and self._open is not None:
            self.anchors.append((self._text.strip(), self._open))
            self._open = None


def _seconds(text: str) -> str:
    match = _TIME.fullmatch(text)
    return f"{match[1]}Z" if match else ""


def _shown(url: str) -> str:
    return one_line(re.sub(r"://[^/]*@", "://", url), 200)
