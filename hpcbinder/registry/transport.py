"""HTTP as registries need it: a site's proxies and certificates, time-outs, retries, nothing endless."""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urljoin, urlsplit

from hpcbinder.config import SiteConfig, redact
from hpcbinder.errors import RegistryError
from hpcbinder.text import one_line

if TYPE_CHECKING:
    import requests

PASSING = frozenset({429, 500, 502, 503, 504})
"""Statuses that may be others a moment later."""
_PIECE = 1 << 20
_LONGEST = 20.0
"""Seconds that a person is left waiting for the next attempt, also if a registry would like more."""


@dataclass(frozen=True)
class Patience:
    """How long a registry may take. Seconds, and bytes per second.

    Attributes:
        connect: To be reached.
        silence: Between two pieces of an answer.
        answer: For a whole answer that is no blob.
        attempts: How often something is tried that may only fail for the moment.
        pause: Before the second attempt; doubled each time.
        rate: What a blob must come with, over a window of `silence`.
    """

    connect: float = 20.0
    silence: float = 60.0
    answer: float = 120.0
    attempts: int = 4
    pause: float = 0.5
    rate: int = 512

    def rest(self, number: int, least: float = 0.0) -> None:
        """Wait before the next attempt.

        Args:
            number: Of the attempt that failed, from 0.
            least: Seconds that the other side asks for.
        """
        wait = self.pause * 2**number * random.uniform(0.75, 1.25)
        time.sleep(min(max(wait, least), _LONGEST))


class Transport:
    """Sends requests. May be used by several threads.

    Args:
        site: Proxies and certificates.
        patience: How long to wait.
    """

    def __init__(self, site: SiteConfig, patience: Patience | None = None) -> None:
        self.patience = patience or Patience()
        self._site = site
        self._adapter: Any = None
        self._lock = threading.Lock()

    def send(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, body: Any = None
    ) -> requests.Response:
        """Send one request and return the answer's head; no redirect is followed, no login added.

        Raises:
            RegistryError: No answer.
        """
        import requests

        with self._lock:
            if self._adapter is None:
                self._adapter = requests.adapters.HTTPAdapter(pool_connections=8, pool_maxsize=16)
        known = {"User-Agent": "hpcbinder", "Accept-Encoding": "identity", **(headers or {})}
        try:
            # Not through a Session: it keeps cookies, knows ~/.netrc, and reads the whole body of a redirect.
            response: requests.Response = self._adapter.send(
                requests.Request(method, url, headers=known, data=body).prepare(),
                stream=True,
                timeout=(self.patience.connect, self.patience.silence),
                verify=self._authorities(),
                proxies=self._proxies(url),
            )
        except requests.exceptions.RequestException as error:
            raise _explained(error, url) from error
        return response

    def patiently(self, attempt: Callable[[], requests.Response]) -> requests.Response:
        """Make a request that may be repeated, again while the server is overloaded, restarting or unreachable.

        Raises:
            RegistryError: It stays so.
        """
        for number in range(self.patience.attempts):
            last, least = number == self.patience.attempts - 1, 0.0
            try:
                response = attempt()
            except Unreachable as error:
                if last or not error.may_pass:
                    raise
            else:
                if response.status_code not in PASSING or last:
                    return response
                least = _retry_after(response)
                response.close()
            self.patience.rest(number, least)
        raise AssertionError("the last attempt returns or raises")

    def read(self, response: requests.Response, limit: int) -> bytes:
        """A whole answer that is no blob.

        Args:
            limit: Bytes it may have.

        Raises:
            RegistryError: It is larger, does not end, or breaks off.
        """
        pieces, size = [], 0
        end = time.monotonic() + self.patience.answer
        for piece in self._pieces(response):
            size += len(piece)
            if size > limit:
                raise RegistryError(f"the answer is larger than {limit >> 10} KiB", where=shown(response.url))
            if time.monotonic() > end:
                raise RegistryError("the answer does not come to an end", where=shown(response.url))
            pieces.append(piece)
        return b"".join(pieces)

    def stream(self, response: requests.Response) -> Iterator[bytes]:
        """A blob's content in pieces.

        Raises:
            Unreachable: It breaks off, or comes slower than any link.
        """
        start, size = time.monotonic(), 0
        for piece in self._pieces(response):
            yield piece
            size += len(piece)
            now = time.monotonic()
            if now - start > self.patience.silence:
                if size < self.patience.rate * (now - start):
                    raise Unreachable("the answer comes too slowly", where=shown(response.url))
                start, size = now, 0

    def _pieces(self, response: requests.Response) -> Iterator[bytes]:
        import urllib3

        with response:
            while True:
                try:
                    # What has come so far: `read` would wait for all of the piece, however slowly it trickles in.
                    piece = response.raw.read1(_PIECE, decode_content=False)
                except (urllib3.exceptions.HTTPError, OSError) as error:
                    raise _explained(error, response.url) from error
                if not piece:
                    return
                yield piece

    def _authorities(self) -> str:
        """The bundle or folder of authorities: the site's, or the system's as curl and docker take it."""
        if self._site.ca_certificates is not None:
            return str(self._site.ca_certificates)
        import ssl

        paths = ssl.get_default_verify_paths()
        for path in (paths.cafile, paths.capath):
            if path and Path(path).exists():
                return path
        import certifi

        return certifi.where()

    def _proxies(self, url: str) -> dict[str, str]:
        import urllib.request

        parts = split(url)
        proxy = self._site.https_proxy if parts.scheme == "https" else self._site.http_proxy
        host = parts.hostname or ""
        if not proxy or is_loopback(host):
            return {}
        known = {"no": self._site.no_proxy or ""}
        if urllib.request.proxy_bypass_environment(parts.netloc.rpartition("@")[2], known):  # type: ignore[attr-defined, unused-ignore]
            return {}
        return {parts.scheme: proxy}


class Unreachable(RegistryError):
    """No answer, or one that broke off.

    Attributes:
        may_pass: Whether it may go better a moment later.
    """

    may_pass = True


class Refused(Unreachable):
    """No host of this name, none that we trust, or nothing that can be asked."""

    may_pass = False


class NotEncrypted(Unreachable):
    """The other side does not speak TLS as it should."""

    may_pass = False


def split(url: str) -> SplitResult:
    """A URL's parts.

    Raises:
        RegistryError: It is none with a host.
    """
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 (raises where it is no number)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise RegistryError(f"the registry names {one_line(repr(redact(url)), 120)}, which is no web address")
    return parts


def resolve(base: str, location: str) -> str:
    """The URL that a `Location` means.

    Raises:
        RegistryError: None.
    """
    try:
        return urljoin(base, location)
    except ValueError:
        raise RegistryError(f"the registry names {one_line(repr(location), 120)}, which is no web address") from None


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port: what may see the same credentials."""
    parts = split(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def is_loopback(host: str) -> bool:
    """Whether a host, without port, is this machine by its name or address."""
    bare = host.strip("[]").lower()
    try:
        return ip_address(bare).is_loopback
    except ValueError:
        return bare == "localhost" or bare.endswith(".localhost")


def shown(url: str) -> str:
    """A URL as a message may show it: what follows ? may be a signature that opens the door."""
    return one_line(redact(url.partition("?")[0]), 200)


def _retry_after(response: requests.Response) -> float:
    """RFC 9110, 10.2.3; the form with a date is not used by registries."""
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0.0


def _explained(error: Exception, url: str) -> Unreachable:
    import requests
    import urllib3

    where = shown(url)
    if isinstance(error, (requests.exceptions.SSLError, urllib3.exceptions.SSLError)):
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            hint = "site.ca_certificates names the authorities of a site"
            return Refused(f"no trust in its certificate: {_reason(error)}", where=where, hint=hint)
        hint = "registry.insecure names registries without encryption"
        return NotEncrypted(f"does not encrypt as it should: {_reason(error)}", where=where, hint=hint)
    if isinstance(error, (requests.exceptions.ProxyError, urllib3.exceptions.ProxyError)):
        return Unreachable(f"the proxy does not let us through: {_reason(error)}", where=where)
    if isinstance(error, (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)):
        return Unreachable("the registry says nothing", where=where)
    if "NameResolutionError" in str(error):
        return Refused(f"no such host: {_reason(error)}", where=where)
    if isinstance(error, (requests.exceptions.ConnectionError, urllib3.exceptions.HTTPError, OSError)):
        return Unreachable(f"cannot be reached: {_reason(error)}", where=where)
    return Refused(f"cannot be asked: {_reason(error)}", where=where)


def _reason(error: Exception) -> str:
    # requests wraps urllib3's error, which wraps the system's: the innermost says it best.
    inner: Any = error
    while True:
        below = getattr(inner, "reason", None) or (inner.args[0] if getattr(inner, "args", None) else None)
        if not isinstance(below, BaseException):
            break
        inner = below
    text = getattr(inner, "strerror", None) or str(inner)
    return one_line(redact(re.sub(r"^(<.*>|\w+\(.*?\)): ", "", text)), 200)
