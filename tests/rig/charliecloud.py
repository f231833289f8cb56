"""Charliecloud and the FUSE programs, from the machine's own Debian release."""

from __future__ import annotations

import shutil
from pathlib import Path

from . import fuse, packages

PACKAGES = ("charliecloud", "fuse3", "squashfuse")


class Charliecloud:
    """``ch-run`` as Debian packages it."""

    name = "charliecloud"

    @property
    def path(self) -> Path:
        """The ``ch-run`` to run."""
        return Path("/usr/bin/ch-run")

    @property
    def where(self) -> str:
        """The program, for a person."""
        return str(self.path)

    @property
    def up(self) -> bool:
        """Whether it is installed."""
        return (
            shutil.which("dpkg-query") is not None and packages.installed(PACKAGES) == set(PACKAGES) and fuse.usable()
        )

    def start(self) -> None:
        """Install it where it is missing, and let ordinary users open ``/dev/fuse``.

        Raises:
            RigError: not root where something is missing, or the packages cannot be had.
        """
        packages.ensure(PACKAGES)
        fuse.ensure()

    def stop(self) -> None:
        """Nothing runs between uses."""
