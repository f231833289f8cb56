"""Debian's archive: its addresses, and how apt is told of it."""

from __future__ import annotations

MIRROR = "http://deb.debian.org/debian"
SECURITY_MIRROR = "http://deb.debian.org/debian-security"
"""Debian's own addresses. What comes from them is signed, and a caching proxy can keep it."""

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
"""Where the package debian-archive-keyring has the keys, outside and inside an image."""


def sources_list(suite: str, mirror: str | None = None, security_mirror: str | None = None) -> str:
    """sources.list(5) of a release, its updates and its security fixes; Debian's own addresses where none is given."""
    main = (mirror or MIRROR).rstrip("/")
    security = (security_mirror or SECURITY_MIRROR).rstrip("/")
    return "".join(
        f"deb [signed-by={KEYRING}] {address} {name} main\n"
        for address, name in ((main, suite), (main, f"{suite}-updates"), (security, f"{suite}-security"))
    )
