"""Names of images in registries: `debian:bookworm`, `ghcr.io/org/name:tag`, `host:5000/name@sha256:…`.

The grammar is that of the distribution project (distribution/reference, `reference.go` and `normalize.go`): what has no
registry in front means Docker's, and there a name of one word means `library/NAME`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from hpcbinder.errors import UsageError
from hpcbinder.text import one_line

DOCKER_HUB = "docker.io"
_HUB_NAMES = frozenset({DOCKER_HUB, "index.docker.io", "registry-1.docker.io"})

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:]+\])(?::[0-9]{{1,5}})?")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_NAME_LIMIT = 255
"""Characters of registry and repository together."""


@dataclass(frozen=True)
class Reference:
    """An image, or all images of a repository, in a registry.

    Attributes:
        host: `docker.io`, `ghcr.io`, `localhost:5000`, in lower case.
        repository: `library/debian`, `org/name`.
        tag: None where none was given.
        digest: `sha256:…` of a manifest, None where none was given. It counts more than a tag.
    """

    host: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    @property
    def name(self) -> str:
        """`docker.io/library/debian`: without tag and digest."""
        return f"{self.host}/{self.repository}"

    @property
    def identifier(self) -> str:
        """What the registry is asked for: the digest, the tag, or `latest`."""
        return self.digest or self.tag or "latest"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}" + (f"@{self.digest}" if self.digest else "")

    def pinned(self, digest: str) -> Reference:
        """The same with this digest instead of any other."""
        return replace(self, digest=digest)

    def tagged(self, tag: str) -> Reference:
        """The same with this tag.

        Raises:
            UsageError: It cannot be a tag.
        """
        if not _TAG.fullmatch(tag):
            raise UsageError(f"{one_line(repr(tag), 80)} cannot be a tag")
        return replace(self, tag=tag)


def parse_reference(text: str) -> Reference:
    """Read the name of an image as people write it, and complete it.

    Raises:
        UsageError: It is none; the message says what is wrong with it.
    """
    shown = repr(one_line(text, 120))
    if "://" in text:
        raise UsageError(f"{shown} is a URL, not an image", hint="write REGISTRY/NAME[:TAG], without ://")
    rest, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise UsageError(f"{shown}: what follows @ is not sha256: and 64 hex digits")
    tag: str | None = None
    head, colon, tail = rest.rpartition(":")
    if colon and "/" not in tail:  # else it is a port's
        rest, tag = head, tail
        if not _TAG.fullmatch(tag):
            raise UsageError(f"{shown}: {one_line(repr(tag), 80)} cannot be a tag")
    first, slash, path = rest.partition("/")
    if slash and looks_like_a_host(first):
        host = parse_host(first)
    else:
        host, path = DOCKER_HUB, rest
    if host == DOCKER_HUB and path and "/" not in path:
        path = f"library/{path}"
    if not _PATH.fullmatch(path):
        hint = "names are in lower case" if path != path.lower() else "write REGISTRY/NAME[:TAG]"
        raise UsageError(f"{shown} names no image", hint=hint)
    if len(host) + 1 + len(path) > _NAME_LIMIT:
        raise UsageError(f"{shown}: a name has at most {_NAME_LIMIT} characters")
    return Reference(host, path, tag, digest or None)


def parse_host(text: str) -> str:
    """A registry's host, with its port if it has one, as it stands in a `Reference`.

    Raises:
        UsageError: It is none.
    """
    if not _HOST.fullmatch(text) or int(text.rpartition("]")[2].partition(":")[2] or 1) not in range(1, 65536):
        raise UsageError(f"{one_line(repr(text), 120)} is no registry", hint="write HOST or HOST:PORT, as in ghcr.io")
    host = text.lower()
    return DOCKER_HUB if host in _HUB_NAMES else host


def looks_like_a_host(component: str) -> bool:
    """Whether the first word of a name is a registry (distribution/reference, splitDockerDomain)."""
    return any(char in component for char in ".:") or component.lower() == "localhost" or component != component.lower()
