"""Debian's archive: its addresses, and how apt is told of it."""

from __future__ import annotations

import re
from dataclasses import dataclass

MIRROR = "http://deb.debian.org/debian"
SECURITY_MIRROR = "http://deb.debian.org/debian-security"
ARCHIVE_MIRROR = "http://archive.debian.org/debian"
"""Debian's own addresses. What comes from them is signed, and a caching proxy can keep it."""

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
"""Where the package debian-archive-keyring has the keys, outside and inside an image."""

REMOVED_KEYS = "/usr/share/keyrings/debian-archive-removed-keys.gpg"
"""Where that package has the keys of releases it no longer counts among the present ones."""

END_OF_LIFE = frozenset(("buster", "bullseye"))
"""Releases without security fixes (https://wiki.debian.org/LTS)."""

ARCHIVED = frozenset(("buster",))
"""Of these, the ones that the usual mirrors do not have any more."""


@dataclass(frozen=True)
class Mirrors:
    """Where Debian's packages come from; None is Debian's own address.

    Attributes:
        main: Of the releases that are there on the usual mirrors.
        security: Of their security fixes.
        archive: Of releases at the end of their life: archive.debian.org, a mirror of it, or a day of
            snapshot.debian.org (`…/archive/debian/20240630T000000Z`).
    """

    main: str | None = None
    security: str | None = None
    archive: str | None = None

    def any_for(self, suite: str) -> bool:
        """Whether something else than Debian's own addresses counts for a release."""
        if suite in END_OF_LIFE and self.archive:
            return True
        return suite not in ARCHIVED and bool(self.main or self.security)

    def sources(self, suite: str) -> tuple[tuple[str, str], ...]:
        """(address, name of a suite there): the release, its updates and its security fixes."""
        if suite in ARCHIVED or (suite in END_OF_LIFE and self.archive):
            main = (self.archive or ARCHIVE_MIRROR).rstrip("/")
            security = _security_beside(main)
        else:
            main = (self.main or MIRROR).rstrip("/")
            security = (self.security or SECURITY_MIRROR).rstrip("/")
        # The name was another one before bullseye.
        fixes = f"{suite}/updates" if suite == "buster" else f"{suite}-security"
        return ((main, suite), (main, f"{suite}-updates"), (security, fixes))


def sources_list(suite: str, mirrors: Mirrors | None = None) -> str:
    """sources.list(5) of a release, its updates and its security fixes."""
    options = " ".join(f"{name.lower()}={value.replace(' ', ',')}" for name, value in _options(suite))
    return "".join(
        f"deb [{options}] {address} {name} main\n" for address, name in (mirrors or Mirrors()).sources(suite)
    )


def sources_deb822(suite: str) -> str:
    """The same from Debian's own addresses in the form of today's Debian (sources.list(5), deb822 style)."""
    suites: dict[str, list[str]] = {}
    for address, name in Mirrors().sources(suite):
        suites.setdefault(address, []).append(name)
    options = "".join(f"{name}: {value}\n" for name, value in _options(suite))
    return "\n".join(
        f"Types: deb\nURIs: {address}\nSuites: {' '.join(names)}\nComponents: main\n{options}"
        for address, names in suites.items()
    )


def _options(suite: str) -> list[tuple[str, str]]:
    keys = [("Signed-By", f"{KEYRING} {REMOVED_KEYS}" if suite in ARCHIVED else KEYRING)]
    # Nobody signs the lists of such a release anew when their time is over.
    return [*keys, ("Check-Valid-Until", "no")] if suite in END_OF_LIFE else keys


def _security_beside(main: str) -> str:
    """Where an archive has the security fixes: in `debian-security` wherever it has the releases in `debian`."""
    found, count = re.subn(r"/debian(?=/[0-9TZ]+\Z|\Z)", "/debian-security", main)
    return found if count else f"{main}-security"
