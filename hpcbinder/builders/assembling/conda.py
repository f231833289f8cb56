"""Conda environments as layers: their packages, squashed once for all; what link scripts change, where they are run."""

from __future__ import annotations

import os
import secrets
import shlex
from collections.abc import Sequence
from pathlib import Path

from hpcbinder.builders.assembling.interpreter import system_loader, whole
from hpcbinder.builders.assembling.layer import Layer
from hpcbinder.builders.assembling.workshops import Workshops
from hpcbinder.catalog import remove_tree
from hpcbinder.conda import CondaLayer, CondaStore, unpack
from hpcbinder.config import redact
from hpcbinder.convert import LayerCache
from hpcbinder.errors import BuildError, RunError
from hpcbinder.model import LockedPackage, Plan, Step, fingerprint
from hpcbinder.plan import MACHINES, SUITES, conda_packages, environment, run_script
from hpcbinder.progress import Reporter
from hpcbinder.squashfs import Options, write_layer
from hpcbinder.text import one_line
from hpcbinder.wheels import Interpreter, InterpreterSource, Target

_SCRIPT_FORM = "2"
"""Count it up when link scripts are run otherwise."""


class CondaEnvironments:
    """Makes the layers of steps of conda packages.

    Args:
        store: Squashed packages.
        channels: Addresses of the site's own channels: a Python of theirs may be started here, to compile.
        cache: Where layers are kept that link scripts made.
        workshops: What runs link scripts.
        options: How layers are squashed.
        scratch: Folder for unfinished files, on the file system of the store.

    Attributes:
        ran: Steps with link scripts that had to be run -> who ran them; "" where they were run before.
    """

    def __init__(
        self,
        store: CondaStore,
        *,
        channels: Sequence[str],
        cache: LayerCache,
        workshops: Workshops,
        options: Options,
        scratch: Path,
        reporter: Reporter,
    ) -> None:
        self.ran: dict[str, str] = {}
        self._store = store
        self._channels = tuple(f"{url.rstrip('/')}/" for url in channels)
        self._cache = cache
        self._workshops = workshops
        self._options = options
        self._scratch = scratch
        self._reporter = reporter

    def layers(self, step: Step, plan: Plan, base: Sequence[Path]) -> list[Layer]:
        """The packages of a step, the lowest first.

        Args:
            base: The layers that it stands on, squashed.

        Raises:
            BuildError: A package is refused, or one has a link script that cannot be run here.
            FetchError: A package cannot be had.
            ConvertError: A layer cannot be written.
        """
        assert step.assembly is not None
        packages = conda_packages(step.data[step.assembly.conda])
        target = target_of(plan, step.assembly.prefix, step.assembly.python)

        def python_of(package: LockedPackage, path: Path) -> Interpreter:
            return self._unpacked(package, path, base, target)

        found = self._store.layers(packages, target, python_of, scratch=self._scratch)
        layers = [Layer.of_package(each.path) for each in found]
        if any(each.scripts for each in found):
            layers.append(self._linked(step, plan, target, base, found))
        return layers

    def missing(self, step: Step, plan: Plan) -> tuple[int, int]:
        """How many of a step's packages have no layer yet, and how many there are."""
        assert step.assembly is not None
        packages = conda_packages(step.data[step.assembly.conda])
        return len(self._store.missing(packages, target_of(plan, step.assembly.prefix, step.assembly.python))), len(
            packages
        )

    def interpreter(self, plan: Plan, base: Sequence[Path], target: Target) -> InterpreterSource:
        """The Python that an environment of conda packages brings, to compile wheels for it."""

        def source() -> Interpreter:
            for step in plan.steps:
                if step.assembly is not None and step.assembly.conda:
                    for package in conda_packages(step.data[step.assembly.conda]):
                        if package.name == "python":
                            self._check(package)
                            return self._unpacked(package, self._store.fetched(package, self._scratch), base, target)
            raise BuildError(f"no conda package is Python {target.python}")

        return source

    def _check(self, python: LockedPackage) -> None:
        """A repository names channels, and anybody can have one on a public server: what it brings is only started in
        the image, not here. Bytecode is for all images of the store, too.

        Raises:
            BuildError: It is not of the site's own channels.
        """
        if not python.url.startswith(self._channels):
            raise BuildError(
                f"Python {one_line(python.version, 80)} comes from a channel that is not one of this site's "
                f"({one_line(redact(python.url), 200)}), and no Python of this machine compiles for it",
                hint="take python from one of conda.channels (channel::python=3.X), or install that Python here",
            )

    def _unpacked(self, python: LockedPackage, path: Path, base: Sequence[Path], target: Target) -> Interpreter:
        """A package's Python, started by the base's dynamic loader: this machine's C library may be another."""
        self._check(python)
        filename = python.url.rpartition("/")[2]
        folder = self._scratch / f"conda-python-{secrets.token_hex(4)}"
        loader = system_loader(
            whole(base, self._scratch), self._scratch / f"{folder.name}-base", more=folder / "home" / "lib"
        )
        return unpacked_python(path, filename, folder, target, loader)

    def _linked(
        self, step: Step, plan: Plan, target: Target, base: Sequence[Path], found: Sequence[CondaLayer]
    ) -> Layer:
        """What link scripts change, once all packages are there."""
        wanting = [(each.package, script) for each in found for script in each.scripts]
        names = ", ".join(dict.fromkeys(package.name for package, _ in wanting))
        calls = "".join(_call(package, path, target.prefix) for package, path in wanting)
        linking = Step(
            stage=step.stage,
            name=f"{step.name}-links",
            reason=f"link scripts of {names}",
            script=f"{calls}cd /\nsettle {shlex.quote(target.prefix)}\ntimeless /\n",
            runs_repository_code=True,
        )
        below = [Layer(path, f"sha256:{path.name.partition('-')[0]}") for path in base]
        below += [Layer.of_package(each.path) for each in found]
        made_of = [_SCRIPT_FORM, run_script(linking), [each.path.name for each in below], environment(plan)]
        identity = f"sha256:{fingerprint(made_of)}"
        by = ""

        def make(out: Path) -> None:
            nonlocal by
            room = self._scratch / f"link-{secrets.token_hex(4)}"
            try:
                tar, by = self._run(linking, plan, below, room)
                with tar.open("rb") as stream:
                    write_layer(stream, out, self._options)
                tar.unlink()
            except OSError as error:
                raise BuildError(f"{linking.reason} cannot be run: {error.strerror}", where=str(room)) from error
            finally:
                remove_tree(room)

        path = self._cache.ensure_made(identity, make, self._scratch, self._reporter, shared=False)
        self.ran[linking.name] = by
        return Layer(path, identity)

    def _run(self, linking: Step, plan: Plan, below: Sequence[Layer], room: Path) -> tuple[Path, str]:
        """A tar of what link scripts changed, and who ran them: without a network.

        Args:
            linking: The step that they are.
            below: The layers that they are run on.
            room: New folder for unfinished files.

        Raises:
            BuildError: Nothing here runs them, or one failed.
        """
        try:
            workshop = self._workshops.any(plan.base, f"{linking.reason} have to be run")
        except RunError as error:
            without = f"or do without what needs {linking.reason.removeprefix('link scripts of ')}"
            raise BuildError(
                f"conda packages: {linking.reason} have to be run; {error.message}",
                where=error.where,
                hint="; ".join(filter(None, (error.hint, without))),
            ) from None
        self._reporter.phase("build", f"{linking.reason}: {workshop.description}")
        (room / "step" / "files").mkdir(parents=True)
        (room / "step" / "run.sh").write_text(run_script(linking))
        tar = workshop.run(
            [layer.path for layer in below],
            room / "step",
            env=dict(environment(plan)),
            network=False,
            log=lambda line: self._reporter.log("build", line),
            scratch=room,
            title=linking.name,
        )
        return tar, workshop.description.partition(" ")[0]


def unpacked_python(path: Path, filename: str, folder: Path, target: Target, loader: Sequence[str] = ()) -> Interpreter:
    """The Python of a package, to compile with; its own library and no other package's.

    Args:
        path: The package.
        filename: Its name in the channel.
        folder: New folder for its files; the environment's is `home` in it.
        loader: What starts it (`system_loader`).

    Raises:
        BuildError: There is none in it, or a file cannot be written.
    """
    home = folder / "home"
    name = f"python{target.version[0]}.{target.version[1]}"
    try:
        folder.mkdir()
        for inside, packed in unpack(path, filename, folder / "files").files.items():
            if packed.content is None or not _wanted(inside, name):
                continue
            place = home / inside
            place.parent.mkdir(parents=True, exist_ok=True)
            os.link(packed.content, place)
            if packed.executable:
                place.chmod(0o755)
    except OSError as error:
        raise BuildError(f"{filename} cannot be unpacked: {error.strerror}", where=str(folder)) from None
    program = home / "bin" / name
    if not program.is_file():
        raise BuildError(f"{one_line(filename, 200)} has no {name}")
    return Interpreter((*loader, str(program), "-s", "-S", "-B"), {"PYTHONHOME": str(home)})


def _call(package: LockedPackage, script: str, prefix: str) -> str:
    """A line that runs a link script as conda does (docs.conda.io, "Link scripts")."""
    number = package.build.rpartition("_")[2]
    values = {
        "PREFIX": prefix,
        "ROOT_PREFIX": prefix,
        "CONDA_PREFIX": prefix,
        "PKG_NAME": package.name,
        "PKG_VERSION": package.version,
        "PKG_BUILDNUM": number if number.isdigit() else "0",
    }
    assigned = " ".join(f"{name}={shlex.quote(value)}" for name, value in values.items())
    return f"cd {shlex.quote(prefix)}; {assigned} /bin/bash {shlex.quote(f'{prefix}/{script}')}\n"


def _wanted(path: str, name: str) -> bool:
    """What compiling needs of a Python."""
    folder, _, file = path.rpartition("/")
    if folder in ("bin", "lib"):
        return path == f"bin/{name}" or file.startswith("libpython")
    return path.startswith(f"lib/{name}/") and not any(
        part in ("__pycache__", "test", "tests", "idlelib", "ensurepip", "site-packages") for part in path.split("/")
    )


def target_of(plan: Plan, prefix: str, python: str) -> Target:
    base = plan.base
    platform = f"{MACHINES[base.architecture]}-manylinux_{SUITES[base.suite].glibc.replace('.', '_')}"
    return Target(prefix, python, f"{prefix}/bin/python", base.architecture, platform)
