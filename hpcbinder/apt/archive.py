"""Debian's archive over the web: as a site has it, in bounded time, and nothing that nobody vouches for."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

from hpcbinder.config import SiteConfig, mirrors, redact
from hpcbinder.debian import Mirrors
from hpcbinder.errors import FetchError, HpcbinderError
from hpcbinder.source import Reach, web_error, web_session
from hpcbinder.text import one_line

if TYPE_CHECKING:
    import requests

_T = TypeVar("_T")

_PIECE = 1 << 20
_SLOWEST = 8 << 10
"""Bytes per second below which a server counts as stuck, once it had `_PATIENCE` seconds."""
_PATIENCE = 120.0
_TRIES = 3
_HINT = "the Debian mirror cannot be used: see site.apt_mirror and site.http_proxy"


class Archive:
    """The mirrors of a release; several threads may ask at once.

    Args:
        site: Mirrors, proxies, certificates. Logins in a mirror's address stay in memory.
        suite: Of Debian.

    Attributes:
        sources: (Debian's own address, name of a suite there), as apt inside of the base knows them.
    """

    def __init__(self, site: SiteConfig, suite: str) -> None:
        self.sources = Mirrors().sources(suite)
        self._places = dict(zip(self.sources, (address for address, _ in mirrors(site).sources(suite)), strict=True))
        self._site = site
        self._threads = threading.local()

    def read(self, source: tuple[str, str], path: str, limit: int) -> bytes:
        """A file below a source's address.

        Args:
            limit: Bytes it may have.

        Raises:
            FetchError: It cannot be had.
        """
        return self._again(lambda: b"".join(self._pieces(self._url(source, path), limit)))

    def save(self, source: tuple[str, str], path: str, out: Path, *, sha256: str, size: int) -> None:
        """A file whose size (bytes) and SHA-256 (hex) are known.

        Raises:
            FetchError: It cannot be had, or is another one.
            OSError: `out` cannot be written.
        """
        url = self._url(source, path)

        def once() -> str:
            hashing = hashlib.sha256()
            out.unlink(missing_ok=True)
            with out.open("xb") as file:
                for piece in self._pieces(url, size):
                    hashing.update(piece)
                    file.write(piece)
            return hashing.hexdigest()

        if self._again(once) != sha256:
            out.unlink()
            raise FetchError(
                "is not the file that Debian's signed lists name",
                where=one_line(redact(url), 200),
                hint="the mirror is being updated, or gives out another file",
            )

    def _url(self, source: tuple[str, str], path: str) -> str:
        if source not in self._places:  # a record of a store says so, and anybody may have written that
            raise FetchError(f"is not of Debian's archives: {one_line(' '.join(source), 200)}")
        return f"{self._places[source]}/{quote(path, safe='/+~%')}"

    def _again(self, get: Callable[[], _T]) -> _T:
        for _ in range(_TRIES - 1):
            try:
                return get()
            except _Interrupted:
                continue
        return get()

    def _pieces(self, url: str, limit: int) -> Iterator[bytes]:
        """An answer as it comes, as long as it does so at a bearable speed."""
        from urllib3.exceptions import HTTPError

        where = one_line(redact(url), 200)
        begin, size = time.monotonic(), 0
        with closing(self._get(url)) as response:
            try:
                while piece := response.raw.read1(_PIECE, decode_content=False):
                    size += len(piece)
                    spent = time.monotonic() - begin
                    if size > limit:
                        raise FetchError(f"the server sends more than {limit} bytes", where=where)
                    if spent > _PATIENCE and size / spent < _SLOWEST:
                        raise FetchError("the server is too slow", where=where, hint=_HINT)
                    yield piece
            except (HTTPError, OSError):
                raise _Interrupted("the server's answer breaks off", where=where, hint=_HINT) from None

    def _get(self, url: str) -> requests.Response:
        try:
            response = self._session().get(url, headers={"Accept-Encoding": "identity"}, stream=True)
        except HpcbinderError:
            raise
        except (OSError, ValueError) as error:
            problem = web_error(error)
            raise FetchError(problem.message, where=problem.where, hint=problem.hint or _HINT) from None
        if not response.ok:
            with closing(response):
                problem = web_error(response)
                raise FetchError(problem.message, where=problem.where, hint=problem.hint or _HINT)
        return response

    def _session(self) -> requests.Session:
        sessions: dict[str, requests.Session] = self._threads.__dict__
        if "session" not in sessions:
            # Mirrors are the site's choice, and so is where these lead.
            sessions["session"] = web_session(self._site, Reach((), ("*",)))
        return sessions["session"]


class _Interrupted(FetchError):
    """An answer that broke off: the same may be asked again."""
