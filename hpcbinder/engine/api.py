"""What an engine is: something that builds from a Dockerfile and hands out layers. It knows nothing of Python."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from hpcbinder.model import ImageConfig


class EngineImage(Protocol):
    """An image an engine holds; an `hpcbinder.image.OciImage`."""

    @property
    def name(self) -> str:
        """The tag it was asked for by."""

    @property
    def digest(self) -> str:
        """`sha256:…`, the engine's id of it."""

    @property
    def config(self) -> ImageConfig:
        """What the image is."""

    def layers(self, wanted: Collection[str]) -> Iterator[tuple[str, BinaryIO]]:
        """The wanted layers as (DiffID, uncompressed tar), in any order, each to be read before the next is asked for.
        Nothing is exported when none is wanted.

        Raises:
            BuildError: The engine cannot hand them out.
        """


@dataclass(frozen=True)
class Foreign:
    """A Dockerfile in a context that is not one of ours.

    Attributes:
        path: Where it is in the context.
        arguments: Build arguments.
    """

    path: str
    arguments: Mapping[str, str]


class Engine(Protocol):
    """Builds images and keeps them. Every method raises BuildError when the engine does not do as it should."""

    @property
    def name(self) -> str:
        """`docker`, …"""

    def check_offline(self) -> None:
        """Make sure that it can build without a network.

        Raises:
            BuildError: It cannot here.
        """

    def image(self, ref: str, *, scratch: Path | None = None) -> EngineImage | None:
        """The image with this tag or id, None if the engine has none.

        Args:
            scratch: Folder for what is exported of it; the system's temporary folder when None.
        """

    def load(self, archive: Path, tag: str) -> None:
        """Make the engine hold a docker-archive's image under this tag; nothing happens if it does already."""

    def build(
        self,
        write_context: Callable[[BinaryIO], None],
        *,
        tag: str,
        target: str | None = None,
        secrets: Mapping[str, bytes] | None = None,
        log: Callable[[str], None] | None = None,
        scratch: Path | None = None,
        titles: Mapping[str, str] | None = None,
        foreign: Foreign | None = None,
        network: bool = True,
    ) -> EngineImage:
        """Build the Dockerfile of a context.

        Args:
            write_context: Writes the context as a tar, with `Dockerfile` at its top; called once, in another thread.
                What it raises is raised here.
            tag: `name:tag` the image gets.
            target: Stage to stop at.
            secrets: id -> content of the build's secret mounts; never on disk, in an argument or in the log.
            log: Gets the build's output line by line, safe to print.
            scratch: As for `image`.
            titles: Folder in the context that a RUN line mounts -> what to call that step in the log and in errors.
            foreign: What to build instead of the context's own `Dockerfile`.
            network: Whether steps have the engine's network, or none but `lo`. Without one nothing is taken from a
                cache: who asks for that knows better than an engine what the result depends on.

        Raises:
            BuildError: A step failed (its title, the end of its output), or the engine did.
        """

    def tags(self) -> list[tuple[str, int, float]]:
        """Every tag it has, as (`name:tag`, bytes with all its layers, Unix time (s) it was made or last tagged)."""

    def remove(self, ref: str) -> None:
        """Take a tag (and what only it holds) away; nothing happens if there is none."""
