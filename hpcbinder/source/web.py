"""The web, asked with a site's proxies and certificates, with time-outs, and only where we may go."""

from __future__ import annotations

import ipaddress
import re
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter

from hpcbinder.config import SiteConfig, redact
from hpcbinder.errors import FetchError
from hpcbinder.source.reach import Reach, split
from hpcbinder.source.trust import trust
from hpcbinder.text import one_line

_TIMEOUTS = (30.0, 90.0)
"""Seconds to connect, and between two pieces of an answer."""
_ANSWER = 64 << 20
"""Bytes that what is no file may have."""
_PIECE = 1 << 20

offline = False
"""Nobody is asked (`hpcbinder.source.go_offline`)."""


def session(site: SiteConfig | None, reach: Reach) -> requests.Session:
    """A session that goes only where `reach` lets it, also when redirected, and takes nothing from the environment.

    Its answers are read as they come: `iter_content` gives pieces of a megabyte, whatever is asked for, and what is
    read whole (`content`, `json`) may not be endless.
    """
    made = requests.Session()
    made.trust_env = False  # ~/.netrc and the variables of proxies; the configuration has those
    made.max_redirects = 10
    adapter = _Adapter(site or SiteConfig(), reach)
    made.mount("http://", adapter)
    made.mount("https://", adapter)
    made.headers["User-Agent"] = "hpcbinder"
    return made


def explained(error: Exception) -> FetchError:
    """One line for what went wrong on the way."""
    if isinstance(error, FetchError):
        return error
    request = getattr(error, "request", None)
    where = one_line(redact(str(getattr(request, "url", "") or "")), 200) or None
    if isinstance(error, requests.exceptions.SSLError):
        hint = "set site.ca_certificates if your site has its own authority"
        return FetchError(f"no trust in the server's certificate: {_reason(error)}", where=where, hint=hint)
    if isinstance(error, (requests.exceptions.InvalidSchema, requests.exceptions.InvalidURL)):
        return FetchError(f"leads to what is no web address: {_reason(error)}", where=where)
    if isinstance(error, requests.exceptions.ProxyError):
        return FetchError(f"the proxy does not let us through: {_reason(error)}", where=where)
    if isinstance(error, (requests.exceptions.Timeout, TimeoutError)):
        return FetchError("the server says nothing", where=where, hint="try again later")
    if isinstance(error, requests.exceptions.HTTPError) and error.response is not None:
        return refused(error.response)
    if isinstance(error, requests.exceptions.ConnectionError):
        return FetchError(f"cannot reach the server: {_reason(error)}", where=where)
    if isinstance(error, requests.exceptions.JSONDecodeError):
        return FetchError("the server's answer is not JSON", where=where)
    return FetchError(f"the server's answer cannot be used: {_reason(error)}", where=where)


def refused(response: requests.Response) -> FetchError:
    """One line for an answer that is an error."""
    where = one_line(redact(response.url), 200)
    meanings = {
        401: ("needs a login", None),
        403: ("is not public", None),
        404: ("is not there", None),
        410: ("was taken away", None),
        429: ("was asked too often", "try again later"),
    }
    meaning, hint = meanings.get(response.status_code, (f"HTTP status {response.status_code}", None))
    if response.status_code >= 500:
        hint = "the server has a problem: try again later"
    return FetchError(meaning, where=where, hint=hint)


def _reason(error: Exception) -> str:
    # requests puts urllib3's error in its own, which holds the system's
    inner: Any = error.args[0] if error.args else error
    inner = getattr(inner, "reason", None) or inner
    text = str(inner)
    # it begins with the connection it was, as the class of it that this is
    return one_line(redact(re.sub(r"^(<.*?>|\w+\(.*?\)): ", "", text)), 200)


class _Adapter(HTTPAdapter):
    def __init__(self, site: SiteConfig, reach: Reach) -> None:
        self._reach = reach
        self._proxies = {
            scheme: proxy for scheme, proxy in (("http", site.http_proxy), ("https", site.https_proxy)) if proxy
        }
        self._no_proxy = site.no_proxy
        self._authorities = site.ca_certificates
        super().__init__(max_retries=urllib3.Retry(total=3, read=False, backoff_factor=0.5))

    def init_poolmanager(self, *args: Any, **keywords: Any) -> None:
        super().init_poolmanager(*args, **keywords)
        pools = self.poolmanager.pool_classes_by_scheme
        self.poolmanager.pool_classes_by_scheme = _pools(pools, self._authorities, self._reach)

    def proxy_manager_for(self, proxy: str, **keywords: Any) -> Any:
        if proxy not in self.proxy_manager:
            if proxy.startswith("https:"):
                keywords["proxy_ssl_context"] = trust(self._authorities)
            manager = super().proxy_manager_for(proxy, **keywords)
            manager.pool_classes_by_scheme = _pools(manager.pool_classes_by_scheme, self._authorities, None)
        return self.proxy_manager[proxy]

    def send(self, request: requests.PreparedRequest, *_: Any, **keywords: Any) -> requests.Response:
        url = request.url or ""
        if offline:
            raise FetchError("there is no network in this job", where=one_line(redact(url), 200))
        self._reach.check(url)
        proxies = {} if _direct(url, self._no_proxy) else self._proxies
        keywords |= {"proxies": proxies, "timeout": _TIMEOUTS, "verify": True, "stream": True}
        response = super().send(request, **keywords)
        _tame(response)
        return response


def _direct(url: str, no_proxy: str | None) -> bool:
    """Whether `no_proxy` names the host: by name, domain, address or network. (requests' own way changes the
    environment for a moment, which threads share.)"""
    if not no_proxy:
        return False
    host = split(url)[1]
    if urllib.request.proxy_bypass_environment(host, {"no": no_proxy}):  # type: ignore[attr-defined, unused-ignore]
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
        networks = [ipaddress.ip_network(item.strip(), strict=False) for item in no_proxy.split(",") if "/" in item]
    except ValueError:
        return False
    return any(address in network for network in networks)


def _tame(response: requests.Response) -> None:
    pieces: Callable[..., Iterator[Any]] = response.iter_content

    def iter_content(chunk_size: int | None = None, decode_unicode: bool = False) -> Iterator[Any]:
        # requests asks for 10 KiB when it wants an answer whole; with no size at all it would hold a file whole
        whole, read = chunk_size is not None and chunk_size < _PIECE, 0
        for piece in pieces(_PIECE, decode_unicode):
            read += len(piece)
            if whole and read > _ANSWER:
                raise FetchError(
                    f"answers with more than {_ANSWER >> 20} MiB", where=one_line(redact(response.url), 200)
                )
            yield piece

    response.iter_content = iter_content  # type: ignore[method-assign]


def _pools(known: Mapping[str, Any], authorities: Path | None, reach: Reach | None) -> dict[str, Any]:
    """Connections that trust whom we trust, and that are closed before a word is said if they lead to an address that
    we may not ask (without `reach`, that is a proxy's to know)."""

    plain_pool: Any = known["http"]
    secure_pool: Any = known["https"]
    plain: Any = plain_pool.ConnectionCls
    secure: Any = secure_pool.ConnectionCls

    def checked(connection: Any, connected: Any) -> Any:
        peer = connected.getpeername()
        if reach is not None and not reach.admits(connection.host, str(peer[0])):
            connected.close()
            raise reach.refusal(connection.host)
        return connected

    class Plain(plain):  # type: ignore[misc]
        def _new_conn(self) -> Any:
            return checked(self, super()._new_conn())

    class Secure(secure):  # type: ignore[misc]
        def _new_conn(self) -> Any:
            return checked(self, super()._new_conn())

        def connect(self) -> None:
            # requests names a file of authorities, which every connection would read again
            self.ssl_context, self.ca_certs, self.ca_cert_dir = trust(authorities), None, None
            super().connect()

    class PlainPool(plain_pool):  # type: ignore[misc]
        ConnectionCls = Plain

    class SecurePool(secure_pool):  # type: ignore[misc]
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}


def host_of(url: str) -> str:
    """The host a URL names, for `Reach`."""
    return split(url)[1]
