"""From a plan whose steps are all data to squashed layers: nothing is run, so that no engine, root or daemon is needed.

The base is squashed as any image's layers are; an environment is an empty one and the squashed wheels of its lock;
what steps put there or change, and the repository's content, are small layers of their own. The layers that make the
notebook server are merged to one, once for each base: every image has it.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from hpcbinder.bases import BaseImage, Bases
from hpcbinder.builders.assembling.changes import changes
from hpcbinder.builders.assembling.interpreter import base_interpreter
from hpcbinder.builders.assembling.tree import Entry, layer_tar
from hpcbinder.builders.assembling.venv import venv, venv_maker
from hpcbinder.builders.obstacle import obstacle
from hpcbinder.contract import ENTRYPOINT, REPO_DIR, START_VARIABLE
from hpcbinder.convert import LayerCache
from hpcbinder.errors import BuildError, ConvertError
from hpcbinder.image import DockerArchive, dump_config
from hpcbinder.model import Assembly, Checkout, ImageConfig, Lock, Plan, Step, fingerprint
from hpcbinder.plan import CMD, MACHINES, SUITES, environment, locked_wheels, server_point, write_content
from hpcbinder.progress import Reporter
from hpcbinder.squashfs import Options, merge, write_layer
from hpcbinder.wheels import FORM, Interpreter, Target, WheelStore


@dataclass(frozen=True)
class Layer:
    """A squashed layer.

    Attributes:
        identity: `sha256:…` of its tar, or of what it was made of where there never was one.
    """

    path: Path
    identity: str


@dataclass(frozen=True)
class AssembledImage:
    """An image that exists as squashed layers only; implements `OciImage` as far as these can.

    Attributes:
        name: Name that an engine would have given it.
        squashed: The layers, the lowest first.
    """

    config: ImageConfig
    name: str
    squashed: tuple[Path, ...]

    def layers(self, wanted: Collection[str]) -> Iterator[tuple[str, BinaryIO]]:
        """See `OciImage.layers`: there are none."""
        raise ConvertError("an assembled image has no layers but its squashed ones", where=self.name)


class Assembler:
    """Makes images of layers.

    Args:
        bases: What images stand on.
        bases_dir: Where bases are kept.
        layers_dir: Where squashed layers are kept.
        wheels: Squashed wheels, made with the same options.
        options: How layers are squashed.
        scratch: Folder for unfinished files, on the file system of `layers_dir`; the image's own layers stay there.
    """

    def __init__(
        self,
        bases: Bases,
        *,
        bases_dir: Path,
        layers_dir: Path,
        wheels: WheelStore,
        options: Options,
        scratch: Path,
        reporter: Reporter,
    ) -> None:
        self._bases = bases
        self._bases_dir = bases_dir
        self._cache = LayerCache(layers_dir, options)
        self._wheels = wheels
        self._options = options
        self._scratch = scratch
        self._reporter = reporter

    def assemble(self, plan: Plan, checkout: Checkout) -> AssembledImage:
        """Make the image of a plan.

        Raises:
            BuildError: A step has to be run, the base cannot be had, or a file changed since the plan was made.
            FetchError: A wheel cannot be had.
            ConvertError: A layer cannot be written or is damaged.
        """
        if (reason := obstacle(plan)) is not None:
            raise BuildError(f"cannot be assembled: {reason}")
        base = self._bases.image(plan.base, self._bases_dir)
        paths = self._cache.ensure(DockerArchive(base.archive), self._scratch, self._reporter)
        layers = [Layer(path, diff_id) for path, diff_id in zip(paths, base.config.diff_ids, strict=True)]
        point = server_point(plan)
        layers.append(self._server(plan, plan.steps[:point], paths))
        for number, step in enumerate(plan.steps[point:], start=point):
            layers += self._layers(f"step-{number}", step, plan, paths)
        layers.append(self._content(plan, checkout))
        return AssembledImage(
            _config(plan, base, [layer.identity for layer in layers]),
            f"localhost/hpcbinder/{plan.name}:{plan.id.rsplit('-', 1)[1]}",
            tuple(layer.path for layer in layers),
        )

    def _server(self, plan: Plan, steps: Sequence[Step], base: Sequence[Path]) -> Layer:
        """The one layer of the notebook server."""
        made_of = [[step.assembly, step.data] for step in steps]
        identity = f"sha256:{fingerprint([venv_maker(), FORM, _platform(plan), made_of])}"

        def make(out: Path) -> None:
            what = f"server environment (JupyterLab) on {plan.base.name}, shared by all images on it"
            self._reporter.phase("build", what)
            parts: list[Layer] = []
            for number, step in enumerate(steps):
                parts += self._layers(f"server-{number}", step, plan, base, root=True)
            with out.open("w+b") as file:
                merge([part.path for part in parts], file)

        return Layer(self._cache.ensure_made(identity, make, self._scratch, self._reporter), identity)

    def _packages(self, step: Step, assembly: Assembly, plan: Plan, base: Sequence[Path]) -> list[Path]:
        """The squashed wheels of a step."""
        if not assembly.wheels:
            return []
        architecture, version = plan.base.architecture, assembly.python
        packages = locked_wheels(step.data[assembly.wheels], version, architecture)
        lock = Lock("pypi", step.name, ".".join(version.split(".")[:2]), _platform(plan), packages, ())
        target = Target(assembly.prefix, version, f"{assembly.prefix}/bin/python", architecture, lock.platform)

        def interpreter() -> Interpreter:
            return base_interpreter(base[-1], version, self._scratch / f"python-{version}")

        return self._wheels.layers(lock, target, interpreter=interpreter, scratch=self._scratch)

    def _layers(self, name: str, step: Step, plan: Plan, base: Sequence[Path], *, root: bool = False) -> list[Layer]:
        """A step's layers: the empty environment, packages, and what is put or changed on top."""
        assert step.assembly is not None
        wheels = self._packages(step, step.assembly, plan, base)
        found: list[Layer] = []
        if step.assembly.interpreter:
            empty = venv(step.assembly.prefix, step.assembly.interpreter, step.assembly.python)
            found.append(self._small(f"{name}-venv", empty, root=root))
        found += [Layer(path, f"sha256:{hashlib.sha256(path.name.encode()).hexdigest()}") for path in wheels]
        if entries := changes(step.assembly, wheels):
            found.append(self._small(f"{name}-changes", entries, root=root))
        return found

    def _small(self, name: str, entries: dict[str, Entry], *, root: bool) -> Layer:
        path = self._scratch / f"{name}.layer"
        return Layer(path, write_layer(io.BytesIO(layer_tar(entries, root=root)), path, self._options))

    def _content(self, plan: Plan, checkout: Checkout) -> Layer:
        path = self._scratch / "content.layer"
        diff_id = _squash(lambda out: write_content(plan, checkout, out), path, self._options)
        return Layer(path, diff_id)


def _config(plan: Plan, base: BaseImage, identities: Sequence[str]) -> ImageConfig:
    """What an engine would say of the image, besides when it made it and of which tars."""
    env = {**base.config.env, **dict(environment(plan))}
    env |= {name: value for name, value in plan.env.items() if name == START_VARIABLE}
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
