"""Which channels are asked: those a site has, whatever a repository calls them.

A repository names channels; a name is a folder of the site's channel server, or what the site says in its place. A
repository cannot lead us to a server that the site does not know, as with indexes of Python packages.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from hpcbinder.config import CondaConfig
from hpcbinder.errors import DetectError
from hpcbinder.text import one_line

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
_PUBLIC = re.compile(r"https://(conda\.anaconda\.org|anaconda\.org|conda\.prefix\.dev|prefix\.dev)/+(.+)")
"""Servers whose channels may be called by their whole address."""
_DEFAULTS = re.compile(r"defaults|anaconda|main|free|r|pro|msys2|pkgs/.+|https://repo\.(anaconda|continuum)\..*")
"""The channels of Anaconda, Inc."""
_OF_DEFAULTS = ("https://repo.anaconda.com/pkgs/main", "https://repo.anaconda.com/pkgs/r")

LICENCE = (
    "Anaconda's terms ask larger organisations to pay for it, so that a site has to allow it: conda.defaults = true"
)


class Channels:
    """The channels of a site.

    Args:
        config: What the site says.
    """

    def __init__(self, config: CondaConfig) -> None:
        self._config = config

    def urls(self, named: Sequence[str]) -> tuple[list[str], list[str]]:
        """Where to look.

        Args:
            named: What a repository calls its channels, the most important first; none for the site's.

        Returns:
            Addresses without a slash at the end, and what is to be said of channels that are left out.

        Raises:
            DetectError: A channel that is not asked here.
        """
        found: dict[str, None] = {}
        left = []
        for name in named:
            if name == "nodefaults":
                continue
            if self._is_defaults(name) and not self._config.defaults:
                left.append(name)
                continue
            found.update(dict.fromkeys(self.url(name)))
        if left and not found:
            raise DetectError(
                f"takes packages from {one_line(left[0], 80)} of Anaconda, Inc. alone, which is not used here",
                hint=f"name conda-forge as a channel; {LICENCE}; or --conda pypi does without conda's packages",
            )
        if not found:
            found.update(dict.fromkeys(url for name in self._config.channels for url in self.url(name)))
        return list(found), [f"channel {one_line(name, 80)} is left out: {LICENCE}" for name in left]

    def url(self, name: str) -> list[str]:
        """Addresses of a channel.

        Raises:
            DetectError: It is on a server that is not asked here.
        """
        name = name.rstrip("/")
        if name in self._config.mirrors:
            return [self._config.mirrors[name].rstrip("/")]
        if self._is_defaults(name):
            if not self._config.defaults:
                raise DetectError(f"asks for channel {one_line(name, 80)}", hint=LICENCE)
            return [*_OF_DEFAULTS] if name == "defaults" else [name if "://" in name else f"{self._server}/{name}"]
        if match := _PUBLIC.fullmatch(name):
            name = match[2]
            if name in self._config.mirrors:
                return [self._config.mirrors[name].rstrip("/")]
        if _NAME.fullmatch(name) and ".." not in name:
            return [f"{self._server}/{name}"]
        if any(name == url or name.startswith(f"{url}/") for url in self._own):
            return [name]
        raise DetectError(
            f"takes packages from channel {one_line(_without_login(name), 200)}, which is not one of this site's",
            hint="conda.mirrors can name it, with where it is to be taken from",
        )

    def spec(self, text: str) -> str:
        """A match spec with the address of its channel (`conda-forge::numpy`) in place of its name.

        Raises:
            DetectError: That channel is not asked here.
        """
        channel, colons, rest = text.rpartition("::")
        return f"{self.url(channel)[0]}::{rest}" if colons else text

    def package(self, url: str) -> str:
        """Where a package of an explicit list is taken from.

        Raises:
            DetectError: Its channel is not asked here.
        """
        channel, subdir, file = _split(url)
        return f"{self.url(channel)[0]}/{subdir}/{file}"

    def of_package(self, url: str) -> str:
        """The address of the channel that a package is in."""
        return _split(url)[0]

    def _is_defaults(self, name: str) -> bool:
        return _DEFAULTS.fullmatch(name) is not None and name not in self._config.mirrors

    @property
    def _server(self) -> str:
        return self._config.server.rstrip("/")

    @property
    def _own(self) -> list[str]:
        return [self._server, *(url.rstrip("/") for url in self._config.mirrors.values())]


def _split(url: str) -> tuple[str, str, str]:
    """`CHANNEL/SUBDIR/FILE`."""
    channel, _, file = url.rpartition("/")
    channel, _, subdir = channel.rpartition("/")
    return channel, subdir, file


def _without_login(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
