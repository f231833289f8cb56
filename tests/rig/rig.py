"""The rig as a whole: one state folder and the parts that live in it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from .apptainer import Apptainer
from .builder import Builder
from .charliecloud import Charliecloud
from .dockerd import Dockerd
from .htcondor import HTCondor
from .hub import Hub
from .process import RigError, mounts_below
from .registry import Registry
from .slurm import Slurm
from .sshd import Sshd
from .user import User

Part = Dockerd | Apptainer | Charliecloud | Registry | Slurm | HTCondor | Sshd | Hub


def default_folder() -> Path:
    """``HPCBINDER_RIG``, or a folder of the machine's cache: it outlives a checkout, so downloads happen once."""
    return Path(os.environ.get("HPCBINDER_RIG") or "/var/cache/hpcbinder-rig")


class Rig:
    """The engines and runtimes of one state folder.

    Args:
        folder: Where everything lies that the rig keeps; made when a part is started.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = (folder or default_folder()).absolute()
        self.dockerd = Dockerd(self.folder)
        self.apptainer = Apptainer(self.folder)
        self.charliecloud = Charliecloud()
        self.registry = Registry(self.folder)
        self.slurm = Slurm(self.folder)
        self.htcondor = HTCondor(self.folder)
        self.sshd = Sshd(self.folder)
        self.hub = Hub(self.folder, self.slurm, self.apptainer)
        self._user: User | None = None
        self._builder: Builder | None = None

    @property
    def parts(self) -> dict[str, Part]:
        """Every part by its name."""
        parts: tuple[Part, ...] = (
            *(self.dockerd, self.apptainer, self.charliecloud, self.registry, self.slurm, self.htcondor, self.sshd),
            self.hub,
        )
        return {part.name: part for part in parts}

    @property
    def user(self) -> User:
        """An ordinary user.

        Raises:
            RigError: not root.
        """
        if self._user is None:
            self._make_folder()
            self._user = User(self.folder)
        return self._user

    @property
    def builder(self) -> Builder:
        """An ordinary user who has podman and buildah.

        Raises:
            RigError: not root, or no user namespaces here.
        """
        if self._builder is None:
            self._make_folder()
            self._builder = Builder(self.folder)
        return self._builder

    def close(self) -> None:
        """Let the ordinary users go, with their processes and files."""
        if self._user is not None:
            self._user.close()
            self._user = None
        if self._builder is not None:
            self._builder.close()
            self._builder = None

    def up(self, names: Sequence[str] = ()) -> None:
        """Bring parts up, all of them when none is named, to stay up until `down`.

        Raises:
            RigError: what cannot be had here, and why.
        """
        self._make_folder()
        for name in names or self.parts:
            self.parts[name].start()
            self._passing(name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def borrowed(self, name: str) -> Iterator[None]:
        """Have a part for a while: what nobody brought up to stay is stopped when its last borrower is done.

        Raises:
            RigError: as `up`.
        """
        part = self.parts[name]
        if os.geteuid() != 0 and part.up:
            yield  # brought up by root for this person, who cannot stop it
            return
        self._make_folder()
        with (self.folder / "borrowers").open("a") as borrowers:
            fcntl.flock(borrowers, fcntl.LOCK_SH)
            if not part.up:
                self._passing(name).touch()
            part.start()
            try:
                yield
            finally:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(borrowers, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    for other in self.parts:
                        if self._passing(other).exists():
                            self.parts[other].stop()
                            self._passing(other).unlink()

    def _passing(self, name: str) -> Path:
        """The file whose being there says that a part was started by a borrower."""
        return self.folder / f"{name}.passing"

    def down(self, names: Sequence[str] = (), *, purge: bool = False) -> None:
        """Stop what the rig started, and nothing else.

        Args:
            names: Parts; all of them when none is named.
            purge: Remove the state folder with its caches too.
        """
        # What stands on another part goes before it.
        for name in reversed(names or list(self.parts)):
            self.parts[name].stop()
        if purge and not names and self.folder.is_dir():
            if mounts_below(self.folder):
                raise RigError(f"something is still mounted below {self.folder}")
            shutil.rmtree(self.folder)

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        except PermissionError:
            pass
        if not os.access(self.folder, os.W_OK):
            raise RigError(f"the rig keeps its state in {self.folder} and needs root (run the same command with sudo)")
