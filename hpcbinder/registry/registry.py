"""All registries, as the configuration has them: mirrors first, logins where they are wanted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from hpcbinder.config import RegistryConfig, SiteConfig
from hpcbinder.errors import RegistryError, UsageError
from hpcbinder.image import OciImage
from hpcbinder.progress import Reporter, Silent
from hpcbinder.registry.client import Client
from hpcbinder.registry.credentials import Credentials, Login
from hpcbinder.registry.known import KnownLayers
from hpcbinder.registry.manifest import Manifest, Platform
from hpcbinder.registry.pull import RegistryImage, find_manifest, top_digest
from hpcbinder.registry.push import may_push, push
from hpcbinder.registry.reference import Reference, looks_like_a_host, parse_host, parse_reference
from hpcbinder.registry.transport import Patience, Transport

T = TypeVar("T")


class Registry:
    """Pulls from and pushes to registries. Nothing is asked before the first call.

    Args:
        site: Proxies and certificates.
        settings: Mirrors, and registries without encryption.
        credentials: Logins; None for those of the person.
        reporter: Hears how far a pull or push is.
        patience: How long registries may take.
    """

    def __init__(
        self,
        site: SiteConfig,
        settings: RegistryConfig,
        credentials: Credentials | None = None,
        *,
        reporter: Reporter | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._transport = Transport(site, patience)
        self._settings = settings
        self._credentials = credentials or Credentials()
        self._reporter = reporter or Silent()
        self._clients: dict[str, Client] = {}
        self._lock = threading.Lock()

    def is_mirrored(self, reference: Reference) -> bool:
        """Whether the configuration says where to look first for it."""
        return next(self._places(reference)) != reference

    def digest(self, reference: Reference) -> str:
        """The digest of what a reference names now: of the index where the image is there for several platforms.

        Raises:
            RegistryError: There is no such image, or no way to it.
        """
        return self._first(reference, lambda client, place: top_digest(client, place))

    def manifest(self, reference: Reference, platform: Platform) -> Manifest:
        """What an image is made of.

        Raises:
            RegistryError: There is no such image, not for this platform, or no way to it.
        """
        return self._first(reference, lambda client, place: find_manifest(client, place, platform)[1])

    def pull(self, reference: Reference, platform: Platform, scratch: Path) -> RegistryImage:
        """An image. Its manifest and configuration are here afterwards, its layers come when they are asked for.

        Args:
            scratch: Folder for the layers.

        Returns:
            The image; its `reference` says where it is from, a mirror maybe, and the digest of what was asked for.

        Raises:
            RegistryError: There is no such image, not for this platform, or no way to it.
        """

        def get(client: Client, place: Reference) -> RegistryImage:
            top, manifest = find_manifest(client, place, platform)
            return RegistryImage(client, place, top, manifest, platform, scratch=scratch, reporter=self._reporter)

        return self._first(reference, get)

    def push(self, image: OciImage, reference: Reference, *, scratch: Path, known: Path | None = None) -> str:
        """Push an image; what the registry has of it is not sent again.

        Args:
            image: Its layers are asked for as far as the registry lacks them.
            reference: Without a tag it can be had by the returned digest only.
            scratch: Folder for compressed layers.
            known: Folder in which is remembered what layers became, for the next push.

        Returns:
            The digest it has there.

        Raises:
            UsageError: The reference has a digest.
            RegistryError: The registry does not take it.
            OSError: `scratch` cannot be written to.
        """
        if reference.digest:
            raise UsageError(f"{reference} says what is to come out of a push", hint="write REGISTRY/NAME[:TAG]")
        return push(
            self._client(reference.host),
            reference,
            image,
            known=KnownLayers(known),
            scratch=scratch,
            reporter=self._reporter,
        )

    def may_push(self, reference: Reference) -> None:
        """See whether a push would be taken, by beginning one and giving it up.

        Raises:
            RegistryError: It would not, or there is no way to the registry.
        """
        may_push(self._client(reference.host), reference)

    def check(self, host: str, login: Login) -> None:
        """See whether a registry lets somebody in.

        Raises:
            RegistryError: It does not, or there is no way to it.
        """
        self._client(host).check(login)

    def _first(self, reference: Reference, ask: Callable[[Client, Reference], T]) -> T:
        """The answer of the mirror, or else of the registry itself."""
        mirrored: RegistryError | None = None
        for place in self._places(reference):
            try:
                return ask(self._client(place.host), place)
            except RegistryError as error:
                if place == reference and mirrored is None:
                    raise
                if place == reference:
                    both = f"{error}; its mirror: {mirrored}"
                    raise RegistryError(both) from error
                mirrored = error
        raise AssertionError("the last place is the reference's own")

    def _places(self, reference: Reference) -> Iterator[Reference]:
        mirrors = {key: text for name, text in self._settings.mirrors.items() for key in _prefixes(name)}
        prefix = reference.name
        while prefix and prefix not in mirrors:
            prefix = prefix.rpartition("/")[0]
        if prefix:
            host, _, path = (mirrors[prefix] + reference.name.removeprefix(prefix)).partition("/")
            if not path:
                raise UsageError(f"registry.mirrors: {prefix!r} is an image, {host!r} none", hint="write HOST/NAME")
            yield Reference(parse_host(host), path, reference.tag, reference.digest)
        yield reference

    def _client(self, host: str) -> Client:
        with self._lock:
            if host not in self._clients:
                self._clients[host] = Client(host, self._transport, self._credentials, self._settings.insecure)
            return self._clients[host]


def _prefixes(name: str) -> set[str]:
    """What names of `registry.mirrors` mean as beginnings of complete names: `docker.io/python` may be an organisation
    or the image `docker.io/library/python`, `python` is only the latter."""
    host, slash, path = name.partition("/")
    if looks_like_a_host(host):
        exact = f"{parse_host(host)}{slash}{path}"
        return {exact, parse_reference(name).name} if path else {exact}
    return {parse_reference(name).name}
