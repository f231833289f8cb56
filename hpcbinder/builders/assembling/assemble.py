"""From a plan to squashed layers. Of steps that are data nothing is run, so that no engine, root or daemon is needed.

The base is squashed as any image's layers are; an environment is an empty one and the squashed wheels of its lock;
what steps put there or change, and the repository's content, are small layers of their own. The layers that make the
notebook server are merged to one, once for each base: every image has it. A step that has to be run is handed what was
assembled before it, and what it changed is one more layer.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from hpcbinder.apt import NoSuchPackage
from hpcbinder.bases import BaseImage, Bases
from hpcbinder.builders.assembling.changes import changes
from hpcbinder.builders.assembling.conda import CondaEnvironments
from hpcbinder.builders.assembling.interpreter import base_interpreter, whole
from hpcbinder.builders.assembling.layer import Layer
from hpcbinder.builders.assembling.oci import stacked
from hpcbinder.builders.assembling.sources import LISTED, SourcePackages
from hpcbinder.builders.assembling.steps import Ready, StepRunner, only_apart, step_identity
from hpcbinder.builders.assembling.system import SystemPackages, located
from hpcbinder.builders.assembling.tree import Entry, File, layer_tar
from hpcbinder.builders.assembling.venv import venv, venv_maker
from hpcbinder.builders.obstacle import has_to_run, obstacle, preparing
from hpcbinder.catalog import mark_used
from hpcbinder.contract import ENTRYPOINT, ENV_PREFIX, REPO_DIR
from hpcbinder.convert import LayerCache
from hpcbinder.errors import BuildError, ConvertError, FetchError, HpcbinderError, RunError
from hpcbinder.image import DockerArchive, OciImage, dump_config
from hpcbinder.model import Assembly, Checkout, ImageConfig, Lock, Plan, Stage, Step, fingerprint
from hpcbinder.plan import (
    CMD,
    MACHINES,
    SUITES,
    apart_point,
    environment,
    late_environment,
    locked_wheels,
    server_point,
    write_content,
)
from hpcbinder.progress import Reporter
from hpcbinder.squashfs import Options, merge, write_layer
from hpcbinder.wheels import FORM, InterpreterSource, Target, WheelStore


@dataclass(frozen=True)
class Prepared:
    """A part of images that was squashed ahead.

    Attributes:
        what: It, for a person.
        new: Layers that were made now.
        total: Layers that it has.
        refused: Package -> why it cannot be had.
        left: Why it cannot be squashed ahead at all; "" if it can.
        shared: It is every image's on the same base.
    """

    what: str
    new: int
    total: int
    refused: Mapping[str, HpcbinderError] = field(default_factory=dict)
    left: str = ""
    shared: bool = False


@dataclass(frozen=True)
class AssembledImage:
    """An image of squashed layers.

    Attributes:
        config: What it is. Its DiffIDs tell its layers apart, without being those of tars.
        name: Name that an engine would have given it.
        squashed: The layers, the lowest first.
        tars: The same image as engines and registries have it. It is made when it is looked at.
        ran: Steps that had to be run -> who ran them; "" for one whose layer was there already.
    """

    config: ImageConfig
    name: str
    squashed: tuple[Path, ...]
    tars: OciImage
    ran: Mapping[str, str] = field(default_factory=dict)

    def layers(self, wanted: Collection[str]) -> Iterator[tuple[str, BinaryIO]]:
        """See `OciImage.layers`: those that `tars` names."""
        yield from self.tars.layers(wanted)


class Assembler:
    """Makes images of layers.

    Args:
        bases: What images stand on.
        bases_dir: Where bases are kept.
        layers_dir: Where squashed layers are kept.
        layers_below: Folders of other stores where they may be, too.
        wheels: Squashed wheels, made with the same options.
        system: Sets of Debian packages, likewise.
        sources: Builds wheels of what has none.
        conda: Environments of squashed conda packages, likewise.
        options: How layers are squashed.
        scratch: Folder for unfinished files, on the file system of `layers_dir`.
        known: Folder that keeps DiffIDs of layers (see `StackedImage`); None for none.
    """

    def __init__(
        self,
        bases: Bases,
        *,
        bases_dir: Path,
        layers_dir: Path,
        wheels: WheelStore,
        system: SystemPackages,
        sources: SourcePackages,
        conda: CondaEnvironments,
        options: Options,
        scratch: Path,
        reporter: Reporter,
        layers_below: Sequence[Path] = (),
        known: Path | None = None,
    ) -> None:
        self._bases = bases
        self._bases_dir = bases_dir
        self._cache = LayerCache(layers_dir, options, below=layers_below)
        self._wheels = wheels
        self._system = system
        self._sources = sources
        self._conda = conda
        self._options = options
        self._scratch = scratch
        self._known = known
        self._reporter = reporter

    def assemble(self, plan: Plan, checkout: Checkout, runner: StepRunner | None = None) -> AssembledImage:
        """Make the image of a plan.

        Args:
            runner: Runs the steps of this plan that are no data; None if there are none.

        Raises:
            BuildError: A step cannot be run, the base cannot be had, or a file changed since the plan was made.
            FetchError: A wheel cannot be had.
            ConvertError: A layer cannot be written or is damaged.
        """
        if (reason := obstacle(plan, running=runner is not None)) is not None:
            raise BuildError(f"cannot be assembled: {reason}")
        base = self._bases.image(plan.base, self._bases_dir)
        tars = DockerArchive(base.archive)
        paths = self._cache.ensure(tars, self._scratch, self._reporter)
        layers = [Layer(path, diff_id) for path, diff_id in zip(paths, base.config.diff_ids, strict=True)]
        point, first = server_point(plan), preparing(plan)
        ran: dict[str, str] = {}
        for number, step in enumerate(plan.steps[:first]):
            assert runner is not None  # else it would have been an obstacle
            identity = step_identity(plan, checkout, number, base.config, layers)
            layer, ran[step.name] = self._ran(step, Ready(number, base.config, tars, tuple(layers), identity), runner)
            layers.append(layer)
        paths = [layer.path for layer in layers]
        layers.append(self._server(plan, plan.steps[first:point], paths))
        finish = sum(step.stage is not Stage.FINISH for step in plan.steps)
        seen = replace(base.config, env={**base.config.env, **dict(environment(plan))})
        below: dict[int, int] = {}
        system = layers[: len(paths)]
        try:
            for number, step in enumerate(plan.steps[point:], start=point):
                if number == finish:
                    layers.append(self._content(plan, checkout))
                below[number] = len(layers)
                if step.assembly is not None and step.assembly.sources is not None:
                    layers += self._built(number, plan, checkout, paths, system, layers)
                elif runner is None or has_to_run(plan, step) is None:
                    layers += self._layers(f"step-{number}", step, plan, paths)
                else:
                    before = layers[: below[apart_point(plan, number)]] if step.apart else layers
                    identity = step_identity(plan, checkout, number, seen, before)
                    ready = Ready(number, seen, tars, tuple(before), identity)
                    layer, ran[step.name] = self._ran(step, ready, runner)
                    layers.append(layer)
                if step.stage is Stage.SYSTEM:
                    system += layers[below[number] :]
        except NoSuchPackage as error:
            raise located(error, plan, checkout) from None
        if finish == len(plan.steps):
            layers.append(self._content(plan, checkout))
        config = _config(plan, base, [layer.identity for layer in layers])
        return AssembledImage(
            config,
            f"localhost/hpcbinder/{plan.name}:{plan.id.rsplit('-', 1)[1]}",
            tuple(layer.path for layer in layers),
            stacked(config, tars, layers[len(base.config.diff_ids) :], self._known),
            {**self._conda.ran, **ran},
        )

    def prepare(self, plan: Plan) -> Iterator[Prepared]:
        """Have squashed what a plan's image shares with others, as far as it can be had: base, server, packages.

        Yields:
            Each part once it is there, or is known not to come.

        Raises:
            BuildError: The base cannot be had.
            ConvertError: A layer cannot be written or is damaged.
        """
        base = self._bases.image(plan.base, self._bases_dir)
        mark_used(base.archive.parent)
        new = len(self._cache.missing(base.config.diff_ids))
        paths = self._cache.ensure(DockerArchive(base.archive), self._scratch, self._reporter)
        yield Prepared(f"base {plan.base.name}", new, len(paths), shared=True)
        point = server_point(plan)
        if all(step.assembly is not None for step in plan.steps[:point]):
            before, what = self._cache.squashed, f"notebook server on {plan.base.name}"
            try:
                self._server(plan, plan.steps[:point], paths)
                yield Prepared(what, self._cache.squashed - before, 1, shared=True)
            except (BuildError, FetchError) as error:
                yield Prepared(what, 0, 1, {"": error}, shared=True)
        for number, step in enumerate(plan.steps[point:], start=point):
            if (reason := has_to_run(plan, step)) is not None:
                yield Prepared(step.name, 0, 0, left=f"{reason}, in each image")
            elif step.assembly is not None and step.assembly.sources is not None:
                yield Prepared(step.name, 0, 0, left=f"{step.reason}: that is built by each user")
            elif (prepared := self._prepared(number, step, plan, paths)).total:
                yield prepared

    def _prepared(self, number: int, step: Step, plan: Plan, base: Sequence[Path]) -> Prepared:
        """A step's packages, each for itself where they can be had one by one."""
        assembly = step.assembly
        assert assembly is not None
        if assembly.wheels and not assembly.conda:
            lock, target = locked_of(step, assembly, plan)
            missing = len(self._wheels.missing(lock, target))
            interpreter = self._interpreter(plan, base, target)
            refused = self._wheels.squash(lock, target, interpreter, scratch=self._scratch)
            return Prepared(step.name, missing - len(refused), len(lock.packages), refused)
        total = missing = 0
        if assembly.conda:
            missing, total = self._conda.missing(step, plan)
        elif assembly.system:
            below = [path.name.partition("-")[0] for path in base]
            missing, total = int(not self._system.known(step, plan.base, below)), 1
        try:
            self._layers(f"step-{number}", step, plan, base)
        except (BuildError, FetchError, RunError) as error:
            return Prepared(step.name, 0, total, {"": error})
        return Prepared(step.name, missing, total)

    def _server(self, plan: Plan, steps: Sequence[Step], base: Sequence[Path]) -> Layer:
        """The one layer of the notebook server."""
        identity = server_identity(plan, steps)

        def make(out: Path) -> None:
            what = f"server environment (JupyterLab) on {plan.base.name}, shared by all images on it"
            self._reporter.phase("build", what)
            parts: list[Layer] = []
            for number, step in enumerate(steps):
                parts += self._layers(f"server-{number}", step, plan, base, root=True)
            with out.open("w+b") as file:
                merge([part.path for part in parts], file)

        return Layer(self._cache.ensure_made(identity, make, self._scratch, self._reporter), identity)

    def _built(
        self,
        number: int,
        plan: Plan,
        checkout: Checkout,
        base: Sequence[Path],
        system: Sequence[Layer],
        below: Sequence[Layer],
    ) -> list[Layer]:
        """The layers of a step that builds packages: their wheels, and what is changed on top.

        Args:
            system: The layers that builds stand on.
            below: All layers so far.
        """
        step = plan.steps[number]
        assert step.assembly is not None
        prefix, python = step.assembly.prefix, step.assembly.python
        target = Target(prefix, python, f"{prefix}/bin/python", plan.base.architecture, _platform(plan))
        interpreter = self._interpreter(plan, base, target)
        installed = self._sources.install(
            number, plan, checkout, target=target, system=system, below=below, interpreter=interpreter
        )
        entries = changes(step.assembly, installed.layers) | {LISTED: File(installed.listed.encode())}
        packages = [Layer.of_package(path) for path in installed.layers]
        return [*packages, self._small(f"step-{number}-changes", entries, root=False)]

    def _packages(self, step: Step, assembly: Assembly, plan: Plan, base: Sequence[Path]) -> list[Path]:
        """The squashed wheels of a step."""
        if not assembly.wheels:
            return []
        lock, target = locked_of(step, assembly, plan)
        return self._wheels.layers(lock, target, self._interpreter(plan, base, target), scratch=self._scratch)

    def _interpreter(self, plan: Plan, base: Sequence[Path], target: Target) -> InterpreterSource:
        if plan.python.origin == "conda" and target.prefix == ENV_PREFIX:
            return self._conda.interpreter(plan, base, target)
        return lambda: base_interpreter(
            whole(base, self._scratch), target.python, self._scratch / f"python-{target.python}"
        )

    def _layers(self, name: str, step: Step, plan: Plan, base: Sequence[Path], *, root: bool = False) -> list[Layer]:
        """A step's layers: the empty environment, packages, and what is put or changed on top."""
        assert step.assembly is not None
        if step.assembly.system:
            below = [(path, path.name.partition("-")[0]) for path in base]
            return [Layer(*self._system.layer(step, plan.base, below))]
        wheels = self._packages(step, step.assembly, plan, base)
        found: list[Layer] = []
        if step.assembly.interpreter:
            empty = venv(step.assembly.prefix, step.assembly.interpreter, step.assembly.python)
            found.append(self._small(f"{name}-venv", empty, root=root))
        packages = [Layer.of_package(path) for path in wheels]
        if step.assembly.conda:
            packages = [*self._conda.layers(step, plan, base), *packages]
        found += packages
        if entries := changes(step.assembly, [layer.path for layer in packages]):
            found.append(self._small(f"{name}-changes", entries, root=root))
        return found

    def _ran(self, step: Step, ready: Ready, runner: StepRunner) -> tuple[Layer, str]:
        """What a step changed, and who ran it now, if anybody did."""
        by = ""

        def make(out: Path) -> None:
            nonlocal by
            tar = runner.run(ready)
            try:
                if step.apart:
                    part = tar.with_suffix(".apart.tar")
                    with part.open("wb") as file:
                        only_apart(tar, step.apart, file)
                    part.replace(tar)
                with tar.open("rb") as stream:
                    write_layer(stream, out, self._options)
            finally:
                tar.unlink(missing_ok=True)
            by = runner.name

        path = self._cache.ensure_made(ready.identity, make, self._scratch, self._reporter, shared=False)
        if not by:
            self._reporter.phase("build", f"step {step.name}: run before on the same layers, with the same files")
        return Layer(path, ready.identity), by

    def _small(self, name: str, entries: dict[str, Entry], *, root: bool) -> Layer:
        path = self._scratch / f"{name}.layer"
        diff_id = write_layer(io.BytesIO(layer_tar(entries, root=root)), path, self._options)
        # The server's are parts of its one layer.
        return Layer(path if root else self._cache.keep(path, diff_id), diff_id)

    def _content(self, plan: Plan, checkout: Checkout) -> Layer:
        path = self._scratch / "content.layer"
        diff_id = _squash(lambda out: write_content(plan, checkout, out), path, self._options)
        return Layer(self._cache.keep(path, diff_id), diff_id)


def server_identity(plan: Plan, steps: Sequence[Step]) -> str:
    """What names the layer of the notebook server: `sha256:…` of all that it is made of.

    Args:
        steps: The plan's that make it.
    """
    made_of = [[step.assembly, step.data] for step in steps]
    return f"sha256:{fingerprint([venv_maker(), FORM, _platform(plan), made_of])}"


def _config(plan: Plan, base: BaseImage, identities: Sequence[str]) -> ImageConfig:
    """What an engine would say of the image, besides when it made it and of which tars."""
    env = {**base.config.env, **dict(environment(plan))}
    env |= late_environment(plan)
    config = replace(
        base.config,
        created="",
        env=env,
        entrypoint=(ENTRYPOINT,),
        cmd=CMD,
        workdir=REPO_DIR,
        labels={**base.config.labels, **plan.labels},
        diff_ids=tuple(identities),
    )
    return replace(config, digest=f"sha256:{hashlib.sha256(dump_config(config)).hexdigest()}")


def locked_of(step: Step, assembly: Assembly, plan: Plan) -> tuple[Lock, Target]:
    """The wheels of a step, and what they are installed for."""
    architecture, version = plan.base.architecture, assembly.python
    packages = locked_wheels(step.data[assembly.wheels], version, architecture)
    lock = Lock("pypi", step.name, ".".join(version.split(".")[:2]), _platform(plan), packages, ())
    return lock, Target(assembly.prefix, version, f"{assembly.prefix}/bin/python", architecture, lock.platform)


def _platform(plan: Plan) -> str:
    """What wheels must run on, as locks name it."""
    base = plan.base
    return f"{MACHINES[base.architecture]}-manylinux_{SUITES[base.suite].glibc.replace('.', '_')}"


def _squash(write: Callable[[BinaryIO], None], path: Path, options: Options) -> str:
    """Squash a tar while it is written; returns its DiffID."""
    reading, writing = os.pipe()
    failed: list[BaseException] = []

    def run() -> None:
        try:
            with os.fdopen(writing, "wb") as out:
                write(out)
        except BrokenPipeError:
            pass  # the reader says why it stopped
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="content")
    with os.fdopen(reading, "rb") as stream:
        thread.start()
        try:
            diff_id = write_layer(stream, path, options)
        except ConvertError:
            stream.close()
            thread.join()
            if failed:
                raise failed[0] from None
            raise
    thread.join()
    if failed:
        raise failed[0]
    return diff_id
