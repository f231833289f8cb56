"""Debian packages as a layer: installed once for all images with the same packages on the same base.

apt of the base says which there would be today, they are fetched by their signed hashes, and the step that an engine
would run is run by the runtime without a network. Who cannot run it here finds the layer where somebody else made it.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcbinder.apt import Archive, Deb, Lists, NoSuchPackage, Programs, Resolver, Set, Sets, Target, fetch_debs, narrow
from hpcbinder.builders.asked import line_of
from hpcbinder.builders.assembling.workshops import Workshops
from hpcbinder.catalog import remove_tree
from hpcbinder.config import SiteConfig
from hpcbinder.contract import STEP_DIR
from hpcbinder.convert import LayerCache
from hpcbinder.debian import sources_list
from hpcbinder.errors import BuildError, ConvertError, FetchError, RunError
from hpcbinder.model import BaseRef, Checkout, Plan, Step, fingerprint
from hpcbinder.plan import run_script
from hpcbinder.progress import Reporter
from hpcbinder.runtime import Workshop
from hpcbinder.squashfs import Options, merge, write_layer

ARCHITECTURES = {"amd64": "amd64", "arm64": "arm64", "ppc64le": "ppc64el"}
"""OCI name -> Debian name."""

_WHAT = "Debian packages have to be installed"


@dataclass(frozen=True)
class _Means:
    """What sets are looked for and made with; see `SystemPackages`."""

    lists: Path
    lists_below: tuple[Path, ...]
    sets: Sets
    cache: LayerCache
    site: SiteConfig
    workshops: Workshops
    options: Options
    scratch: Path
    reporter: Reporter

    def newest(self, wanted: str) -> Set | None:
        """The newest set that was installed for a question and is there."""
        return next((each for each in self.sets.installed(wanted) if self.cache.has_made(each.identity)), None)


class SystemPackages:
    """Sets of Debian packages in a store.

    Args:
        folder: Where lists and records of sets are kept.
        below: Folders of the same kind that are only read: other stores'.
        cache: Where layers are kept.
        site: Mirrors, proxies, certificates.
        workshops: What installs them.
        options: How layers are squashed.
        scratch: Folder for unfinished files, on the file system of the store.
    """

    def __init__(
        self,
        folder: Path,
        below: Sequence[Path],
        *,
        cache: LayerCache,
        site: SiteConfig,
        workshops: Workshops,
        options: Options,
        scratch: Path,
        reporter: Reporter,
    ) -> None:
        self._means = _Means(
            folder / "lists",
            tuple(each / "lists" for each in below),
            Sets(folder, below),
            cache,
            site,
            workshops,
            options,
            scratch,
            reporter,
        )

    def obstacle(self, base: BaseRef) -> str | None:
        """Why packages cannot be installed here on a base, for a person; None if they can."""
        try:
            self._means.workshops.several_ids(base, _WHAT)
        except RunError as error:
            return error.message
        return None

    @property
    def empty(self) -> bool:
        """Whether nothing was installed before, on any base."""
        return self._means.sets.empty

    def known(self, step: Step, base: BaseRef, below: Sequence[str]) -> bool:
        """Whether what a step asks for was installed on its base before, in whatever versions.

        Args:
            below: Identities of the layers it stands on.
        """
        return self._means.newest(_wanted(step, base, below)) is not None

    def layer(self, step: Step, base: BaseRef, below: Sequence[tuple[Path, str]]) -> tuple[Path, str]:
        """What a step installs.

        Args:
            below: The layers it stands on, squashed, and their identities.

        Returns:
            Its layer, and the layer's identity.

        Raises:
            NoSuchPackage: Debian has no such package.
            BuildError: They cannot be installed, or not here.
            FetchError: The mirror cannot be asked, and they were never installed here.
            ConvertError: A layer cannot be written or is damaged.
        """
        assert step.assembly is not None
        room = self._means.scratch / f"apt-{secrets.token_hex(4)}"
        try:
            room.mkdir()
            return _Making(self._means, step, base, below, room).layer()
        except OSError as error:
            raise ConvertError(
                f"Debian packages cannot be kept: {error.strerror or error}", where=str(self._means.scratch)
            ) from error
        finally:
            remove_tree(room)


class _Making:
    """One set, while it is looked for or made.

    Args:
        room: Empty folder for unfinished files.
    """

    def __init__(
        self,
        means: _Means,
        step: Step,
        base: BaseRef,
        below: Sequence[tuple[Path, str]],
        room: Path,
    ) -> None:
        self._means = means
        self._step = step
        self._base = base
        self._below = below
        self._room = room
        self._wanted = _wanted(step, base, [identity for _, identity in below])
        self._archive = Archive(means.site, base.suite)

    def layer(self) -> tuple[Path, str]:
        means = self._means
        try:
            debs = self._resolved()
        except FetchError as error:
            return self._older(f"the mirror cannot be asked ({error.message})", error)
        identity = f"sha256:{fingerprint(['debian', self._wanted, debs])}"
        if not means.cache.has_made(identity):
            try:
                workshop = means.workshops.several_ids(self._base, _WHAT)
            except RunError as error:
                return self._older("they cannot be installed here", error)
            path = means.cache.ensure_made(
                identity, lambda out: self._make(debs, workshop, out), means.scratch, means.reporter
            )
        else:
            means.reporter.phase("build", f"{_counted(debs)}: installed on {self._base.name} before")
            path = means.cache.ensure_made(identity, _never, means.scratch, means.reporter)
        means.sets.keep_installed(self._wanted, identity, debs)
        return path, identity

    def _older(self, reason: str, error: FetchError | RunError) -> tuple[Path, str]:
        """What was installed before, where nothing newer can be had."""
        found = self._means.newest(self._wanted)
        if found is None:
            names = " ".join(_words(self._step)[:10])
            if isinstance(error, FetchError):
                raise FetchError(f"Debian packages ({names}): {error.message}", where=error.where, hint=error.hint)
            raise BuildError(
                f"Debian packages ({names}) cannot be installed here: {error.message}",
                hint=f"{error.hint + '; ' if error.hint else ''}a site's store (store.site) may have them",
            )
        self._means.reporter.phase("build", f"Debian packages: {reason}; the newest that were installed are taken")
        identity = found.identity
        path = self._means.cache.ensure_made(identity, _never, self._means.scratch, self._means.reporter)
        return path, identity

    def _resolved(self) -> list[Deb]:
        """What apt would install today."""
        means, base = self._means, self._base
        target = Target(base.suite, ARCHITECTURES[base.architecture])
        programs = Programs(self._whole(), self._room / "programs", target.suite)
        lists = Lists(self._archive, target.suite, target.architecture, programs, self._room)
        debs = means.sets.resolved(self._wanted, lists.digest)
        if debs is None:
            apt = self._room / "apt"
            apt.mkdir()
            debs = Resolver(programs, target, apt).resolve(_words(self._step), self._write(lists))
            means.sets.keep_resolved(self._wanted, lists.digest, debs)
        self._fresh = lists
        return debs

    def _write(self, lists: Lists) -> Path:
        folder = self._room / "lists"
        if not folder.exists():
            lists.write(folder, self._means.lists, self._means.lists_below)
        return folder

    def _whole(self) -> Path:
        """The layers below as one."""
        if len(self._below) == 1:
            return self._below[0][0]
        path = self._room / "base.squashfs"
        with path.open("w+b") as file:
            merge([layer for layer, _ in self._below], file)
        return path

    def _make(self, debs: Sequence[Deb], workshop: Workshop, out: Path) -> None:
        means = self._means
        size = sum(deb.size for deb in debs) / 1e6
        means.reporter.phase("build", f"{_counted(debs)}, {size:.1f} MB: fetching")
        ready, folder = self._room / "ready", self._room / "step"
        (ready / "archives" / "partial").mkdir(parents=True)
        (folder / "files").mkdir(parents=True)
        fetch_debs(debs, self._archive, ready / "archives")
        narrow(self._write(self._fresh), debs, ready / "lists")
        (ready / "sources.list").write_text(sources_list(self._base.suite))
        (folder / "run.sh").write_text(run_script(self._step))
        for name, text in self._step.data.items():
            (folder / "files" / name).write_text(text)
        means.reporter.phase("build", f"installing them on {self._base.name} with {workshop.description}")
        tar = workshop.run(
            [path for path, _ in self._below],
            folder,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            network=False,
            binds=[(ready, f"{STEP_DIR}/cache/apt", True)],
            log=lambda line: means.reporter.log("build", line),
            scratch=self._room,
            title=self._step.name,
        )
        with tar.open("rb") as stream:
            write_layer(stream, out, means.options)


def located(error: NoSuchPackage, plan: Plan, checkout: Checkout) -> NoSuchPackage:
    """The error with the line of the repository's file that asks for what is not there, if one does."""
    where = line_of(error.word, plan, checkout)
    return NoSuchPackage(error.message, error.word, where=where, hint=error.hint) if where else error


def _counted(debs: Sequence[Deb]) -> str:
    return f"{len(debs)} Debian package{'s' * (len(debs) != 1)}, with what they need"


def _wanted(step: Step, base: BaseRef, below: Sequence[str]) -> str:
    """Names what is asked for on a base, hex: not in which versions."""
    return fingerprint([list(below), base.suite, base.architecture, run_script(step), step.data])


def _words(step: Step) -> list[str]:
    assert step.assembly is not None
    return step.data[step.assembly.system].split()


def _never(out: Path) -> None:
    raise ConvertError("a layer went away while it was used", where=str(out))
