"""What images can stand on here: the bases, and the interpreters on them."""

from __future__ import annotations

import re
import shutil
import ssl
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from hpcbinder.bases.base import ensure_base
from hpcbinder.bases.interpreter import (
    ensure_interpreter,
    interpreter_digest,
    interpreter_step,
    interpreter_tag,
    python_folder,
)
from hpcbinder.bases.kept import BaseImage, find_kept, is_kept
from hpcbinder.bases.older import older_step
from hpcbinder.bases.outside import ensure_outside
from hpcbinder.bases.pinned import Pinned, Pins
from hpcbinder.bases.published import PublishedBase
from hpcbinder.bases.pulled import prepare_step
from hpcbinder.bases.recipe import base_key, base_tag, is_whole
from hpcbinder.catalog import vouched
from hpcbinder.config import Config, SiteConfig, mirrors
from hpcbinder.errors import BuildError, DetectError, FetchError, RegistryError, UsageError
from hpcbinder.interpreters import Found, Interpreter, find_interpreters, obstacle
from hpcbinder.model import BaseRef, OutsideImage, Python, Stage, Step
from hpcbinder.plan import BASE_VARIANT, SERVER_PYTHONS, SUITES, Foundation, debian_python, older_pythons
from hpcbinder.progress import Reporter
from hpcbinder.registry import Patience, Reference, Registry, parse_reference
from hpcbinder.source import Reach
from hpcbinder.text import one_line

OFFICIAL = {
    "bookworm": ("3.14", "3.13", "3.12", "3.11", "3.10", "3.9", "3.8", "3.7"),
    "trixie": ("3.14", "3.13", "3.12", "3.11", "3.10", "3.9"),
}
"""Suite -> versions of which Docker Hub has a `python:X.Y-slim-SUITE` (official-images, library/python)."""

OFFICIAL_OLD = {"bullseye": ("3.6",), "buster": ("3.5", "2.7")}
"""Those that ended before that, on the newest suite they were made for: offered where the notebook server has something
to stand on there."""

_PATIENCE = Patience(connect=10.0, silence=20.0, answer=30.0, attempts=2)
"""With a registry that only says what a name means: who waits for a plan wants to know soon that there is no way."""

_NAME = re.compile(r"(?:(?:docker\.io/)?library/|docker\.io/)?python:(2\.7|3\.[0-9]{1,2})-slim(?:-([a-z]+))?\Z")


class Bases:
    """The bases and interpreters that a configuration gives.

    Args:
        config: Mirrors, registries, folders of interpreters, stores.
        architecture: OCI name.
        refresh: Ask registries anew what a name means.
    """

    def __init__(self, config: Config, architecture: str, reporter: Reporter, *, refresh: bool = False) -> None:
        self._config = config
        self._architecture = architecture
        self._reporter = reporter
        self._pins = Pins(self._mine("pins"), self._shared("pins"), refresh=refresh)

    @property
    def pythons(self) -> tuple[Python, ...]:
        """Interpreters besides those of Debian's suites, the most wanted first; those last that stand there only so
        that it can be said why they cannot be had (see `stand`). No network is asked."""
        usable: list[Python] = []
        others: list[Python] = []
        for interpreter in self._found.interpreters:
            suite = next((name for name in self._suites if self._obstacle(interpreter, name) is None), None)
            (others if suite is None else usable).append(_python(interpreter, suite or self._suites[0]))
        return (*usable, *self._images(), *older_pythons(self._config.build.suite, self._config.bases.older), *others)

    def stand(self, python: Python, architecture: str) -> Foundation:
        """What an image with an interpreter stands on (`make_plan`); asks a registry what a name means the first time
        that it is used.

        Raises:
            DetectError: The interpreter cannot be had, and why.
            RegistryError: An image cannot be had.
        """
        if python.origin == "folder":
            python = self._from_folder(python)
        if python.origin == "image":
            python, base = self._from_image(python)
            whole = False
        else:
            base, whole = self._debian(python.suite)
        server = self._server(base.suite)
        steps = [] if whole else [prepare_step(base)]
        if server.origin == "folder":
            steps.append(interpreter_step(server, Stage.SERVER))
        if python.origin == "folder" and python != server:
            steps.append(interpreter_step(python, Stage.INTERPRETER))
        if python.origin == "packages":
            steps.append(older_step(python))
        return Foundation(base, python, server, tuple(steps))

    def image(self, ref: BaseRef, folder: Path) -> BaseImage:
        """The archive of a plan's base, made if it is not there yet.

        Args:
            folder: Where bases are kept.

        Raises:
            BuildError: It cannot be made here, with what to do about it.
        """
        return ensure_base(
            ref,
            folder=folder,
            site=self._config.site,
            reporter=self._reporter,
            shared=self._shared(folder.name),
            settings=self._config.registry,
        )

    def kept_image(self, ref: BaseRef, folder: Path) -> BaseImage | None:
        """The archive of a plan's base if it is there.

        Args:
            folder: Where bases are kept.

        Raises:
            BuildError: There is no recipe for it.
        """
        return find_kept(base_key(ref), base_tag(ref), (*self._shared(folder.name), folder))

    def published(self, suite: str, folder: Path) -> PublishedBase:
        """The base that mmdebstrap makes of a suite, for a registry: who has neither root nor subordinate ids takes it
        from there. Made if it is not there yet.

        Args:
            folder: Where bases are kept.

        Raises:
            BuildError: It cannot be made here, or there is no recipe for it.
        """
        if suite not in SUITES:
            raise BuildError(f"no base for Debian {one_line(suite, 80)}", hint=f"there is one for {', '.join(SUITES)}")
        ref = self._of_packages(suite)
        return PublishedBase(self.image(ref, folder), base_key(ref))

    def kept(self, suite: str) -> Path | None:
        """Where the base that mmdebstrap makes of a suite is already: a folder of the store, or of a site's."""
        places = (*self._shared("bases"), self._config.store.path / "bases")
        key = base_key(self._of_packages(suite))
        return next((place for place in places if is_kept(key, [place])), None)

    def lacks_nothing(self, suite: str) -> bool | None:
        """Whether the base that a registry has of a suite is one of ours; None if nobody asked it here so far."""
        found = self._pins.known(self._reference(f"debian:{suite}-slim"), self._architecture)
        return None if found is None else is_whole(found.recipe, self._of_packages(suite))

    def site(self, ref: BaseRef) -> SiteConfig:
        """The site as the steps on a base need it: an image of a registry brings no certificates with which apt could
        reach a mirror by https, so that it gets this machine's."""
        site = self._config.site
        encrypted = any(address.startswith("https:") for address, _ in mirrors(site).sources(ref.suite))
        bundle = ssl.get_default_verify_paths().cafile
        if not (ref.image and encrypted and bundle) or site.ca_certificates is not None:
            return site
        return replace(site, ca_certificates=Path(bundle))

    def image_of(self, step: Step, suite: str, folder: Path) -> BaseImage:
        """The archive of the image that a step of ours reads (`Step.image`), written if it is not there yet.

        Args:
            suite: Debian suite of the plan's base.
            folder: Where such archives are kept.

        Raises:
            BuildError: What it is made of is not there any more, or cannot be read.
        """
        version = step.data.get("version", "")
        for interpreter in self._found.interpreters:
            if interpreter.version == version and self._obstacle(interpreter, suite) is None:
                python = self._identified(interpreter, suite)
                if interpreter_tag(python) == step.image:
                    return ensure_interpreter(
                        python,
                        interpreter,
                        folder=folder,
                        shared=self._shared(folder.name),
                        reporter=self._reporter,
                    )
        raise BuildError(
            f"Python {version} is not there any more, or another one than when the plan was made", hint="run again"
        )

    def outside(self, name: str, architecture: str) -> str:
        """What the name of an image in a repository's own Dockerfile means here, pinned (`make_plan`).

        Raises:
            DetectError: It is no name, or one of a registry in a private network that nobody here named.
            RegistryError: There is no such image, or no way to it.
        """
        try:
            wanted = parse_reference(name)
            registry = Registry(self._config.site, self._config.registry)
            if self._reference(name) == wanted and not registry.is_mirrored(wanted):
                host = wanted.host.rpartition(":")[0] or wanted.host
                reach = Reach((), self._config.source.hosts)
                reach.check(f"https://{wanted.host}/")
                reach.look_up(host.strip("[]"))
            return self._pinned(name).image
        except (UsageError, FetchError) as error:
            raise DetectError(error.message, where=error.where, hint=error.hint) from error

    def outside_image(self, image: OutsideImage, folder: Path) -> BaseImage:
        """The archive of such an image, pulled if it is not there yet.

        Args:
            folder: Where such archives are kept.

        Raises:
            BuildError: It cannot be had.
        """
        registry = Registry(self._config.site, self._config.registry, reporter=self._reporter)
        return ensure_outside(
            image,
            self._architecture,
            folder=folder,
            shared=self._shared(folder.name),
            registry=registry,
            reporter=self._reporter,
        )

    def _debian(self, suite: str) -> tuple[BaseRef, bool]:
        """The base with nothing but Debian, from where the configuration says, and whether it lacks nothing."""
        ref = self._of_packages(suite)
        source = self._config.bases.source
        if source == "bootstrap" or (source == "auto" and self._bootstraps(suite)):
            return ref, True
        name = f"debian:{suite}-slim"
        try:
            pinned = self._pinned(name)
        except RegistryError as error:
            if source == "registry":
                raise
            # The build, if there is one, says what to do.
            self._reporter.log("plan", f"no mmdebstrap here, and no {name} either: {error}")
            return ref, True
        if source == "auto":
            self._reporter.phase("plan", f"no mmdebstrap here: Debian {suite} comes from {pinned.image}")
        return replace(ref, image=pinned.image), is_whole(pinned.recipe, ref)

    def _of_packages(self, suite: str) -> BaseRef:
        return BaseRef(f"debian:{suite}", suite, SUITES[suite].python, self._architecture, BASE_VARIANT)

    def _bootstraps(self, suite: str) -> bool:
        return self.kept(suite) is not None or shutil.which("mmdebstrap") is not None

    def _from_folder(self, python: Python) -> Python:
        interpreter = next(i for i in self._found.interpreters if _python(i, python.suite) == python)
        reason = self._obstacle(interpreter, python.suite)
        if reason is not None:
            raise DetectError(f"Python {python.version} of {python.source} cannot be had in an image: {reason}")
        try:
            return self._identified(interpreter, python.suite)
        except BuildError as error:
            raise DetectError(
                f"Python {python.version} cannot be had: {error.message}", where=error.where, hint=error.hint
            ) from error

    def _identified(self, interpreter: Interpreter, suite: str) -> Python:
        digest = interpreter_digest(interpreter, suite, cache=self._mine("interpreters"))
        return replace(_python(interpreter, suite), digest=digest)

    def _from_image(self, python: Python) -> tuple[Python, BaseRef]:
        try:
            pinned = self._pinned(python.source)
        except RegistryError as error:
            hint = (
                "name a mirror of it in bases.images, or a folder with this Python in bases.pythons; a site that "
                'cannot reach Docker Hub says python_images = "named" in [bases]'
            )
            raise RegistryError(
                f"Python {python.version} would come from the image {python.source}: {error.message}",
                where=error.where,
                hint=f"{error.hint}; {hint}" if error.hint else hint,
            ) from error
        if not pinned.python.startswith(f"{python.version}."):
            raise DetectError(
                f"{pinned.image} has Python {pinned.python or '(it does not say which)'}, not {python.version}",
                hint="bases.images says what python:X.Y-slim is",
            )
        found = replace(python, full=pinned.python, digest=pinned.digest)
        suite = SUITES[python.suite]
        ref = BaseRef(python.source, suite.name, suite.python, self._architecture, BASE_VARIANT, pinned.image)
        return found, ref

    def _pinned(self, name: str) -> Pinned:
        reference = self._reference(name)
        registry = Registry(self._config.site, self._config.registry, reporter=self._reporter, patience=_PATIENCE)
        with tempfile.TemporaryDirectory(prefix="hpcbinder-pin-") as scratch:
            return self._pins.pin(reference, self._architecture, registry, Path(scratch))

    def _reference(self, name: str) -> Reference:
        """What is pulled for an image: as `bases.images` says, whichever way it writes the name."""
        wanted = parse_reference(name)
        for ours, theirs in self._config.bases.images.items():
            if parse_reference(ours) == wanted:
                return parse_reference(theirs)
        return wanted

    def _server(self, suite: str) -> Python:
        """What the notebook server runs on: the suite's own Python unless it is too old."""
        own = debian_python(suite)
        if own.version in SERVER_PYTHONS:
            return own
        if interpreter := self._serves(suite):
            return self._identified(interpreter, suite)
        needs = f"{SERVER_PYTHONS[0]} to {SERVER_PYTHONS[-1]}"
        raise DetectError(
            f"no notebook server runs on Debian {suite}: it has Python {own.version}, the server needs {needs}",
            hint=f"name a folder with one that runs on glibc {SUITES[suite].glibc} (uv's do) in bases.pythons",
        )

    def _serves(self, suite: str) -> Interpreter | None:
        """What the notebook server can run on where a suite's own Python is too old."""
        return next(
            (
                interpreter
                for interpreter in self._found.interpreters
                if interpreter.version in SERVER_PYTHONS and self._obstacle(interpreter, suite) is None
            ),
            None,
        )

    def _images(self) -> Iterator[Python]:
        """Interpreters that images of registries have: those that the configuration names, then the official ones."""
        for name in self._config.bases.images:
            if match := _NAME.match(name):
                suite = match[2] or self._config.build.suite
                if suite in SUITES:
                    yield _of_image(match[1], suite, name)
        if self._config.bases.python_images == "official":
            suite = self._config.build.suite
            for version in OFFICIAL.get(suite, ()):
                yield _of_image(version, suite, f"python:{version}-slim-{suite}")
            for suite, versions in OFFICIAL_OLD.items():
                if self._serves(suite):
                    for version in versions:
                        yield _of_image(version, suite, f"python:{version}-slim-{suite}")

    def _obstacle(self, interpreter: Interpreter, suite: str) -> str | None:
        if interpreter.architecture != self._architecture:
            return f"it is for {interpreter.architecture}"
        return obstacle(interpreter, suite)

    @property
    def _suites(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self._config.build.suite, *self._config.bases.suites)))

    @cached_property
    def _found(self) -> Found:
        found = find_interpreters(self._config.bases.pythons, cache=self._mine("interpreters"))
        for path, problem in found.problems.items():
            self._reporter.log("plan", f"{path}: {problem}")
        return found

    def _shared(self, name: str) -> Sequence[Path]:
        return [store / name for store in self._config.store.site if vouched(store / name, store)]

    def _mine(self, name: str) -> Path | None:
        """A folder of the store, if there is one: to look at a plan makes none."""
        store = self._config.store.path
        return store / name if store.is_dir() else None


def _python(interpreter: Interpreter, suite: str) -> Python:
    return Python(
        version=interpreter.version,
        full=interpreter.full,
        suite=suite,
        origin="folder",
        executable=f"{python_folder(interpreter.version)}/bin/python{interpreter.version}",
        source=str(interpreter.prefix),
    )


def _of_image(version: str, suite: str, name: str) -> Python:
    return Python(
        version=version,
        # Which release it is only the registry knows: it is asked when this one is chosen. Images move with releases,
        # so that what wants a release of this version at all can have it.
        full=f"{version}.99",
        suite=suite,
        origin="image",
        executable=f"/usr/local/bin/python{version}",
        source=name,
    )
