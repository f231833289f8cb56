"""Where a repository or a dataset may send us: not into the network of the machine we run on."""

from __future__ import annotations

import fnmatch
import ipaddress
import re
import socket
from collections.abc import Collection
from urllib.parse import urlsplit

from hpcbinder.config import redact
from hpcbinder.errors import FetchError
from hpcbinder.text import one_line

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class Reach:
    """Which hosts may be asked.

    Args:
        named: Hosts that the person named: asked whatever they are.
        allowed: Globs of hosts that the site lets repositories name (`source.hosts`).
        plain: Whether http will do elsewhere than on the named hosts.
    """

    def __init__(self, named: Collection[str], allowed: Collection[str] = (), *, plain: bool = False) -> None:
        self.named = frozenset(host.lower() for host in named)
        self.allowed = tuple(host.lower() for host in allowed)
        self.plain = plain

    def knows(self, host: str) -> bool:
        """Whether the person or the site named it."""
        host = host.lower()
        return host in self.named or any(fnmatch.fnmatchcase(host, glob) for glob in self.allowed)

    def check(self, url: str) -> None:
        """Let a URL pass.

        Raises:
            FetchError: It is no web address, not encrypted, or its host has a private address by its name already.
        """
        scheme, host = split(url)
        shown = one_line(redact(url), 200)
        if scheme not in ("http", "https") or not host:
            raise FetchError(f"{shown} is no web address")
        if self.knows(host):
            return
        if scheme == "http" and not self.plain:
            raise FetchError(f"{shown} is not encrypted", hint="only https is followed")
        if host == "localhost" or host.endswith(".localhost") or not self.admits(host, host):
            raise self.refusal(host)

    def admits(self, host: str, address: str) -> bool:
        """Whether `host` may have this address; also of what is no address."""
        if self.knows(host):
            return True
        try:
            found = ipaddress.ip_address(address.strip("[]").partition("%")[0])
        except ValueError:
            # 127.1 and 0x7f000001 are addresses too to a resolver, and no public host is called so
            return re.fullmatch(r"[0-9.]+|0[xX][0-9a-fA-F.xX]+", address) is None
        inner = _inner(found)
        return found.is_global and not found.is_multicast and (inner is None or inner.is_global)

    def look_up(self, host: str) -> None:
        """Refuse a host whose name stands for a private address. For programs that connect by themselves.

        Raises:
            FetchError: It does.
        """
        if self.knows(host):
            return
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return  # whoever connects says so
        if not all(self.admits(host, str(address[4][0])) for address in found):
            raise self.refusal(host)

    def refusal(self, host: str) -> FetchError:
        """What to say about a host that is not let through."""
        return FetchError(
            f"{one_line(host, 100)} is not on the public Internet, and was not named by you",
            hint=f"if it is meant, have your site add it to source.hosts: HPCBINDER_SOURCE_HOSTS={one_line(host, 100)}",
        )


def _inner(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 one leads to: mapped, 6to4, or through NAT64 (RFC 6052)."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def split(url: str) -> tuple[str, str]:
    """Scheme and host of a URL, in lower case; empty where it has none."""
    try:
        parts = urlsplit(url)
        return parts.scheme.lower(), (parts.hostname or "").lower()
    except ValueError:
        return "", ""
