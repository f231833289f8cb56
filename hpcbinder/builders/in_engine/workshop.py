"""An engine as a workshop: where nothing else here runs what Debian's packages, sources and link scripts want.

Each runs on the layers that it needs and no others, without a network and without anything of the repository that it
does not read: so what it leaves can be kept and taken again, whoever ran it.
"""

from __future__ import annotations

import functools
import io
import secrets
import stat
import tarfile
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from hpcbinder.bases import BaseImage, Bases
from hpcbinder.builders.assembling import Layer, Workshops, only_below, without
from hpcbinder.builders.in_engine.layers import NAME, LayersInEngine
from hpcbinder.catalog import Catalog
from hpcbinder.config import Config
from hpcbinder.contract import EPOCH, STEP_DIR
from hpcbinder.engine import Engine, ensure_tools_image, pick_engine
from hpcbinder.errors import BuildError
from hpcbinder.image import DockerArchive
from hpcbinder.model import BaseRef
from hpcbinder.plan import aside
from hpcbinder.progress import Reporter


def workshops_here(
    config: Config,
    catalog: Catalog,
    scratch: Path,
    reporter: Reporter,
    *,
    pick: Callable[[], Engine] | None = None,
) -> Workshops:
    """What runs here what packages want to have run, as the configuration says: an engine is asked where it may be.

    Args:
        pick: Gives the engine; None for the configured one.
        scratch: Folder for temporary files, large enough for an image.
    """
    if config.build.engine == "none":
        return Workshops(config, reporter)
    engine = pick or functools.partial(pick_engine, config.build.engine, config, reporter)

    def shop(base: BaseRef) -> EngineWorkshop:
        found = engine()
        found.check_offline()
        image = Bases(config, base.architecture, reporter).image(base, catalog.bases_dir)
        return EngineWorkshop(found, image, known=catalog.blobs_dir, scratch=scratch, reporter=reporter)

    return Workshops(config, reporter, shop)


class EngineWorkshop:
    """Runs steps on squashed layers in an engine; implements `runtime.Workshop`.

    Args:
        base: What all layers stand on.
        known: Folder that keeps DiffIDs (see `StackedImage`).
        scratch: Folder for temporary files, large enough for an image.
    """

    is_engine = True
    fakeroot = True

    def __init__(self, engine: Engine, base: BaseImage, *, known: Path, scratch: Path, reporter: Reporter) -> None:
        self._engine = engine
        self._base = base
        self._layers = LayersInEngine(engine, known, scratch, reporter)

    @property
    def description(self) -> str:
        """The engine's name."""
        return self._engine.name

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
        """See `Workshop.run`."""
        tools = ensure_tools_image(self._engine, scratch)
        whole = self._changed(layers, step_folder, env, network, binds, tools, log, scratch, title or step_folder.name)
        # Folders that things were mounted to may stay as empty ones.
        return _replaced(whole, lambda out: without(whole, STEP_DIR, out))

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
        """See `Workshop.run_aside`."""
        given = [bind for bind in binds if not bind[2]]
        tar = self._changed(layers, step_folder, env, False, given, "", log, scratch, title)
        try:
            for source, target, writable in binds:
                if writable:
                    only_below(tar, target, source)
        finally:
            tar.unlink(missing_ok=True)

    def _changed(
        self,
        layers: Sequence[Path],
        step_folder: Path,
        env: Mapping[str, str],
        network: bool,
        binds: Sequence[tuple[Path, str, bool]],
        tools: str,
        log: Callable[[str], None],
        scratch: Path,
        title: str,
    ) -> Path:
        """A tar of all that a step changed."""
        config = replace(self._base.config, env=dict(env))
        identities = self._base.config.diff_ids
        below = [Layer(path, identity) for path, identity in zip(layers, identities, strict=False)]
        below += map(Layer.of_package, layers[len(identities) :])
        image = self._layers.have(config, DockerArchive(self._base.archive), below)
        folders = {"step": step_folder}
        mounts = {}
        for number, (source, target, _) in enumerate(binds):
            # A folder of the step's own is put into it: a mount inside of a mount would need it to be there.
            inside = target.removeprefix(f"{STEP_DIR}/")
            if not inside.startswith("step/"):
                inside = f"bind-{number}"
                mounts[inside] = target
            folders[inside] = source
        text = aside(image.name, mounts, tools)
        tag = f"{NAME}:{secrets.token_hex(16)}"
        try:
            made = self._engine.build(
                lambda out: write_folders(text, folders, out),
                tag=tag,
                log=log,
                scratch=scratch,
                titles={"step": title},
                network=network,
            )
            return self._layers.added(made, image, scratch)
        finally:
            with suppress(BuildError):  # it is old one day (`hpcbinder.gc`)
                self._engine.remove(tag)


def write_folders(dockerfile: str, folders: Mapping[str, Path], out: BinaryIO) -> None:
    """Write a context: a Dockerfile, and folders under names of their own, also inside of one another.

    Raises:
        OSError: One cannot be read.
    """
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        text = dockerfile.encode()
        entry = tarfile.TarInfo("Dockerfile")
        entry.size, entry.mtime = len(text), EPOCH
        tar.addfile(entry, io.BytesIO(text))
        for name, folder in folders.items():
            # An empty folder may stand for another one.
            _add(tar, name, folder, folders.keys() - {name})


def _add(tar: tarfile.TarFile, name: str, folder: Path, taken: Collection[str]) -> None:
    """Add a folder with all that is in it as nobody's and of no time; no pipe or device is of any use to a step."""
    left = [(name, folder)]
    while left:
        name, path = left.pop()
        if name in taken:
            continue
        entry = tarfile.TarInfo(name)
        status = path.lstat()
        entry.mtime = EPOCH
        entry.mode = 0o755 if stat.S_ISDIR(status.st_mode) or status.st_mode & 0o111 else 0o644
        if stat.S_ISDIR(status.st_mode):
            entry.type = tarfile.DIRTYPE
            tar.addfile(entry)
            left += [(f"{name}/{below.name}", below) for below in sorted(path.iterdir(), reverse=True)]
        elif stat.S_ISLNK(status.st_mode):
            entry.type, entry.linkname = tarfile.SYMTYPE, str(path.readlink())
            tar.addfile(entry)
        elif stat.S_ISREG(status.st_mode):
            entry.size = status.st_size
            with path.open("rb") as file:
                tar.addfile(entry, file)


def _replaced(tar: Path, write: Callable[[BinaryIO], None]) -> Path:
    new = tar.with_suffix(".new.tar")
    try:
        with new.open("wb") as out:
            write(out)
        new.replace(tar)
    except OSError as error:
        raise BuildError(f"what a step made cannot be kept: {error.strerror}", where=str(new)) from error
    finally:
        new.unlink(missing_ok=True)
    return tar
