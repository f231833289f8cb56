"""What runs a build step on squashed layers that are no image yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol


class Workshop(Protocol):
    """Apptainer, or an engine."""

    @property
    def description(self) -> str:
        """It, for a person: `apptainer 1.4.5, root-mapped namespace`."""

    @property
    def is_engine(self) -> bool:
        """Whether it is one (hpcbinder.engine)."""

    @property
    def fakeroot(self) -> bool:
        """Whether a step can give files to several users, as dpkg does."""

    def run(
        self,
        layers: Sequence[Path],
        step_folder: Path,
        *,
        env: Mapping[str, str],
        network: bool,
        binds: Sequence[tuple[Path, str, bool]] = (),
        log: Callable[[str], None],
        scratch: Path,
        title: str = "",
    ) -> Path:
        """Run a step's `run.sh` on layers.

        Args:
            layers: Squashed layers, the lowest first, the base's at the beginning; all others in files named by what
                they are made of.
            step_folder: What the step finds at `/run/hpcbinder/step`, read-only.
            env: Its variables, not secret. PATH belongs to them.
            network: Whether it has a network.
            binds: (source, target, writable): more that it finds, below `/run/hpcbinder`. What it writes there is lost,
                or nobody's concern.
            log: Gets each line the step prints, safe to print.
            scratch: Folder for temporary files, large enough for what the step makes; the tar stays there.
            title: The step's name, for logs and errors; the name of `step_folder` if there is none.

        Returns:
            A tar of what the step changed: a layer as the OCI image spec has it, without what was mounted.

        Raises:
            BuildError: The step failed, or what runs it.
            ConvertError: A layer cannot be read, or the scratch folder not be written.
        """

    def run_aside(
        self,
        layers: Sequence[Path],
        step_folder: Path,
        *,
        env: Mapping[str, str],
        binds: Sequence[tuple[Path, str, bool]],
        log: Callable[[str], None],
        scratch: Path,
        title: str,
    ) -> None:
        """Run what leaves all that is wanted of it as files in a writable one of `binds`; what it changes elsewhere is
        forgotten. It has no network, no tools and nothing of the site's. See `run` for the arguments and errors."""
