"""Wheels from the index, or from where a lock says, into the cache of wheels: hashed on the way, or not kept."""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
import time
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from hpcbinder.catalog import mark_used
from hpcbinder.config import SiteConfig, redact
from hpcbinder.errors import FetchError, HpcbinderError
from hpcbinder.model import LockedPackage
from hpcbinder.source import Reach, web_error, web_session
from hpcbinder.text import one_line
from hpcbinder.wheels.index import ACCEPT, Candidate, best, may_be, rank_of, read_page, wheel_name
from hpcbinder.wheels.sdists import Sdist, read_sdists
from hpcbinder.wheels.target import Target

if TYPE_CHECKING:
    import requests

DEFAULT_INDEX = "https://pypi.org/simple"

_LARGEST = 8 << 30
"""Bytes of a wheel; PyTorch's have 0.9 GB."""
_LARGEST_PAGE = 64 << 20
_SLOWEST = 8 << 10
"""Bytes per second below which a server counts as stuck, once it had `_PATIENCE` seconds."""
_PATIENCE = 120.0
_PIECE = 1 << 20
_TRIES = 3


class Downloads:
    """Gets wheels; several threads may ask at once.

    Args:
        folder: Where wheels are kept, as `SHA256.whl`.
        scratch: For what is not whole yet, on the same file system.
        site: Index, certificates, proxies. The index's login goes to the index only.
        hosts: Globs of hosts that a lock may lead to besides public ones.
        below: Folders like `folder` that are only read.
        ending: Of the files' names, where they are no wheels.
    """

    def __init__(
        self,
        folder: Path,
        scratch: Path,
        site: SiteConfig,
        hosts: Collection[str] = (),
        below: Sequence[Path] = (),
        ending: str = ".whl",
    ) -> None:
        self._folder = folder
        self._ending = ending
        self._scratch = scratch
        self._below = tuple(below)
        self._site = site
        index = urlsplit(site.pip_index_url or DEFAULT_INDEX)
        self._index = index._replace(netloc=index.netloc.rpartition("@")[2]).geturl().rstrip("/")
        self._login = (unquote(index.username or ""), unquote(index.password or "")) if index.username else None
        # The index is the site's choice, and so is where it has its files; a lock can be a repository's.
        self._reaches = {True: Reach((), ("*",)), False: Reach((), hosts)}
        self._threads = threading.local()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Nobody wants the rest: make those who still get it give up."""
        self._stopped.set()

    def path(self, digest: str) -> Path:
        """Where a wheel is, once it is there.

        Args:
            digest: SHA-256, hex.
        """
        return self._folder / f"{digest}{self._ending}"

    def kept(self, digest: str) -> Path | None:
        """A wheel that was fetched before."""
        paths = (folder / f"{digest}{self._ending}" for folder in (self._folder, *self._below))
        return next((path for path in paths if path.exists()), None)

    def find(self, package: LockedPackage, target: Target) -> Candidate:
        """Which file of the index, or of elsewhere, is the wheel that a lock means.

        Raises:
            FetchError: None, or the index cannot be asked.
        """
        if package.url:
            name = wheel_name(package.url)
            rank = rank_of(name, package, target)
            if rank is None or rank[0] < 0:
                raise FetchError(
                    f"{package.name} {package.version}: {one_line(name, 200)} is not it, or does not run on Python "
                    f"{target.python} of {target.platform}",
                    where=one_line(redact(package.url), 200),
                )
            return Candidate(name, package.url, frozenset())
        try:
            # Pages name thousands of files, of which a lock knows a few.
            candidates = [one for one in read_page(*self._page(package.name)) if may_be(one, package)]
        except FetchError as error:
            raise _named(package, error) from None
        return best(candidates, package, target)

    def sdists(self, name: str) -> list[Sdist]:
        """The source archives that the index has of a package.

        Raises:
            FetchError: The index cannot be asked.
        """
        try:
            return list(read_sdists(*self._page(name), name))
        except FetchError as error:
            raise FetchError(f"{name}: {error.message}", where=error.where, hint=error.hint) from None

    def _page(self, name: str) -> tuple[bytes, str, str]:
        """What the index says of a package: the page, its content type, and where it came from in the end."""
        headers = {"Accept": ACCEPT, "Accept-Encoding": "gzip"}
        with closing(self._get(f"{self._index}/{name}/", headers, trusted=True)) as response:
            content = b"".join(self._pieces(response, _LARGEST_PAGE))
        return content, response.headers.get("Content-Type", ""), response.url

    def fetch(self, package: LockedPackage, candidate: Candidate) -> str:
        """Have a wheel in the cache.

        Returns:
            Its SHA-256, hex.

        Raises:
            FetchError: It cannot be had, or is not what the lock says.
        """
        known = [value[7:] for value in package.hashes if value.startswith("sha256:")]
        told = [value[7:] for value in candidate.hashes if value.startswith("sha256:") and value[7:] in known]
        digest = told[0] if told else known[0] if len(known) == 1 else ""
        if digest and self.path(digest).exists():
            mark_used(self.path(digest))
            return digest
        temporary = self._scratch / f"{secrets.token_hex(8)}{self._ending}"
        try:
            for attempt in range(1, _TRIES + 1):
                try:
                    digest = self._download(package, candidate, temporary)
                    break
                except _Interrupted as error:
                    if attempt == _TRIES:
                        raise _named(package, error) from None
            temporary.replace(self.path(digest))
        except OSError as error:
            raise FetchError(f"{package.name}: cannot be kept: {error.strerror}", where=str(self._folder)) from None
        finally:
            temporary.unlink(missing_ok=True)
        return digest

    def _download(self, package: LockedPackage, candidate: Candidate, out: Path) -> str:
        shown = one_line(redact(candidate.url), 200)
        sums = {name: hashlib.new(name) for name in {"sha256", *(value.partition(":")[0] for value in package.hashes)}}
        try:
            with (
                closing(self._get(candidate.url, {"Accept-Encoding": "identity"}, trusted=not package.url)) as response,
                out.open("wb") as file,
            ):
                for piece in self._pieces(response, package.size or _LARGEST):
                    for one in sums.values():
                        one.update(piece)
                    file.write(piece)
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                os.fsync(file.fileno())
        except _Interrupted:
            raise
        except FetchError as error:
            raise _named(package, error) from None
        if not {f"{name}:{one.hexdigest()}" for name, one in sums.items()} & set(package.hashes):
            raise FetchError(
                f"{package.name} {package.version}: the file is not what the lock says (sha256 "
                f"{sums['sha256'].hexdigest()})",
                where=shown,
                hint="the index or a mirror gives out another file",
            )
        return sums["sha256"].hexdigest()

    def _pieces(self, response: requests.Response, limit: int) -> Iterator[bytes]:
        """An answer, as long as it comes at a bearable speed and somebody wants it."""
        where = one_line(redact(response.url), 200)
        size = 0
        for piece in _unpacked(self._received(response, where), response.headers.get("Content-Encoding", ""), where):
            size += len(piece)
            if size > limit:
                raise FetchError(f"the server sends more than {limit} bytes", where=where)
            yield piece

    def _received(self, response: requests.Response, where: str) -> Iterator[bytes]:
        """What comes, as it comes: `iter_content` would wait for a whole piece, and unpack what never ends."""
        import requests
        from urllib3.exceptions import HTTPError, ReadTimeoutError

        begin, size = time.monotonic(), 0
        try:
            while piece := response.raw.read1(_PIECE, decode_content=False):
                size += len(piece)
                spent = time.monotonic() - begin
                if self._stopped.is_set():
                    raise FetchError("given up")
                if spent > _PATIENCE and size / spent < _SLOWEST:
                    raise FetchError("the server is too slow", where=where, hint="try again later")
                yield piece
        except (HTTPError, OSError) as error:
            late = isinstance(error, ReadTimeoutError)
            kind = requests.exceptions.ReadTimeout if late else requests.exceptions.ChunkedEncodingError
            problem = web_error(kind(error, request=response.request))
            raise _Interrupted(problem.message, where=problem.where, hint=problem.hint) from None

    def _get(self, url: str, headers: dict[str, str], *, trusted: bool) -> requests.Response:
        try:
            response = self._session(trusted).get(url, headers=headers, auth=self._auth(url), stream=True)
        except HpcbinderError:
            raise
        except (OSError, ValueError) as error:
            raise web_error(error) from None
        if not response.ok:
            with closing(response):
                raise web_error(response)
        return response

    def _session(self, trusted: bool) -> requests.Session:
        sessions: dict[bool, requests.Session] = self._threads.__dict__.setdefault("sessions", {})
        if trusted not in sessions:
            sessions[trusted] = web_session(self._site, self._reaches[trusted])
        return sessions[trusted]

    def _auth(self, url: str) -> tuple[str, str] | None:
        return self._login if _origin(url) == _origin(self._index) else None


def _unpacked(pieces: Iterator[bytes], encoding: str, where: str) -> Iterator[bytes]:
    """What was received without the packing of the way (RFC 9110, 8.4.1.3), in pieces that are not large."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        yield from pieces
        return
    if encoding not in ("gzip", "x-gzip"):
        raise FetchError(f"the server packs its answer unasked, with {one_line(encoding, 40)}", where=where)
    stream = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        for piece in pieces:
            while piece:
                yield stream.decompress(piece, _PIECE)
                piece = stream.unconsumed_tail
            if stream.eof:
                return
        yield stream.flush()
    except zlib.error:
        raise FetchError("the server's answer cannot be unpacked", where=where) from None
    if not stream.eof:
        raise _Interrupted("the server's answer breaks off", where=where)


class _Interrupted(FetchError):
    """An answer that broke off: the same may be asked again."""


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    try:
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        port = -1
    return parts.scheme, parts.hostname, port


def _named(package: LockedPackage, error: FetchError) -> FetchError:
    return FetchError(f"{package.name}: {error.message}", where=error.where, hint=error.hint)
