"""An image with packages added, as a new image: `hpcbinder extend`.

The finished image is the lowest layer, and squashed packages are merged on top: nothing is unpacked, run or changed.
What is there stays as it is, because its versions are what the new packages' versions are found for.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from hpcbinder.builders import ASSEMBLED
from hpcbinder.catalog import Catalog
from hpcbinder.config import Config
from hpcbinder.contract import ENV_PREFIX, LABEL_PREFIX, MANIFEST, PACKAGES_DIR
from hpcbinder.convert import LayerCache, convert
from hpcbinder.errors import BuildError, ConvertError, DetectError, UsageError
from hpcbinder.image import DockerArchive, dump_config, image_packages
from hpcbinder.lock import Resolver
from hpcbinder.model import Entry, ImageConfig, Lock, LockedPackage, Wanted, fingerprint, to_json
from hpcbinder.progress import Clock, Reporter
from hpcbinder.register import image_kernels
from hpcbinder.squashfs import Image, Options
from hpcbinder.text import one_line
from hpcbinder.transport import Squashed, is_squashed, squashed_entry

if TYPE_CHECKING:
    from hpcbinder.builders.assembling import Layer
    from hpcbinder.wheels import Interpreter

ORIGIN = "hpcbinder extend"
"""What a lock of added packages says of where it is from."""

_LIMIT = 64 << 20
_KERNEL = f"{ENV_PREFIX}/share/jupyter/kernels/python3/kernel.json"


@dataclass(frozen=True)
class Addition:
    """What a person asked for.

    Attributes:
        requirements: PEP 508 lines.
        upgrade: What is there may become another version where that is asked for or needed.
        refresh: Ask the package index anew for what was found before.
    """

    requirements: tuple[str, ...]
    upgrade: bool = False
    refresh: bool = False


def extend(parent: Entry, wish: Addition, config: Config, catalog: Catalog, reporter: Reporter) -> Entry:
    """The image with packages added; the one there is, if it was made before or if nothing is to be added.

    Raises:
        UsageError: A line is no requirement.
        DetectError: No versions fit what is in the image.
        FetchError: The index, or a package, cannot be had.
        BuildError: The image has no environment that can be added to.
        ConvertError: A file is damaged or cannot be written.
    """
    from hpcbinder.builders.assembling import environment_of

    if not is_squashed(parent):
        raise BuildError(f"{parent.id} has no squashfs to be added to", hint="build it with --format squashfs")
    names = [_name(line) for line in wish.requirements]
    clock = Clock()
    with catalog.temporary() as scratch:
        with clock("plan"):
            squashed = squashed_entry(parent)
            with Image.open(squashed.path, offset=squashed.offset) as image:
                here = environment_of(image)
            known = {name: package.version for name, package in here.packages.items()}
            elsewhere = {name for name, package in here.packages.items() if package.elsewhere}
            lock = _resolved(parent, wish, names, here.python, known, elsewhere, config, reporter)
            added = tuple(p for p in lock.packages if not _same(p.version, known.get(p.name)))
        if not added:
            there = ", ".join(f"{name} {known[name]}" for name in names if name in known)
            reporter.phase("plan", f"nothing to add: {parent.id} has {there}")
            return parent
        identity = [parent.id, [[p.name, p.version, p.hashes, p.url] for p in added]]
        id_ = f"{parent.id.rpartition('-')[0]}-{fingerprint(identity)[:12]}"
        busy = f"{id_}: another process makes it"
        with catalog.lock(id_, on_wait=lambda: reporter.phase("build", busy)):
            if (found := catalog.find(id_)) is not None:
                reporter.phase("build", f"{id_} is in the catalog already")
                return found
            lock = replace(lock, origin=ORIGIN, packages=added, layers=(tuple(p.name for p in added),), inputs="")
            making = _Making(
                parent, id_, lock, wish, here.python, known, names, squashed, config, catalog, scratch, reporter
            )
            return making.make(clock)


def _resolved(
    parent: Entry,
    wish: Addition,
    names: Sequence[str],
    python: str,
    known: Mapping[str, str],
    elsewhere: set[str],
    config: Config,
    reporter: Reporter,
) -> Lock:
    """The versions of what is asked for and all it needs, whether it is there or not."""
    suite = parent.base.suite
    pins = [f"{name}=={version}" for name, version in sorted(known.items()) if name not in elsewhere]
    requirements, constraints = list(wish.requirements), tuple(pins)
    given: tuple[Lock, ...] = ()
    if wish.upgrade:
        # All that is there takes part, so that it fits what becomes another version; and keeps its own where it can.
        requirements += [name for name in sorted(known) if name not in elsewhere and name not in names]
        constraints, given = (), (_kept(parent, python, known, {*names, *elsewhere}),)
    resolver = Resolver(config.store.path, config.site, refresh=wish.refresh, reporter=reporter, given=given)
    wanted = Wanted(
        ecosystem="pypi",
        requirements=tuple(requirements),
        constraints=constraints,
        elsewhere=tuple(sorted(elsewhere)),
        prereleases=False,
        python=python,
        architecture=parent.base.architecture,
        suite=suite,
        source=f"extend:{parent.id}",
    )
    try:
        lock = resolver(wanted)
    except DetectError as error:
        if not wish.upgrade and any(pin in error.message for pin in pins):
            error.hint = f"{error.hint}; --upgrade lets what is in the image become another version"
        raise
    if lock.unresolved:
        raise DetectError(
            f"{', '.join(lock.unresolved)} cannot be had as wheels",
            hint="put what has to be built into the repository's requirements and build that",
        )
    return lock


def _kept(parent: Entry, python: str, known: Mapping[str, str], without: set[str]) -> Lock:
    """The versions that are there, as what was found before."""
    from hpcbinder.plan import MACHINES, SUITES

    platform = f"{MACHINES[parent.base.architecture]}-manylinux_{SUITES[parent.base.suite].glibc.replace('.', '_')}"
    packages = tuple(LockedPackage(name, known[name], ()) for name in sorted(known) if name not in without)
    return Lock("pypi", "", ".".join(python.split(".")[:2]), platform, packages, ())


@dataclass(frozen=True)
class _Extended:
    """The new image; implements `OciImage` as far as one can that is squashed already.

    Attributes:
        parent: Id of the image below.
    """

    config: ImageConfig
    parent: str

    def layers(self, wanted: Collection[str]) -> Iterator[tuple[str, BinaryIO]]:
        """See `OciImage.layers`: there are none."""
        raise ConvertError("an extended image has no layers but squashed ones", where=self.parent)


class _Making:
    """One new image, once it is known what is added."""

    def __init__(
        self,
        parent: Entry,
        id_: str,
        lock: Lock,
        wish: Addition,
        python: str,
        known: Mapping[str, str],
        names: Sequence[str],
        squashed: Squashed,
        config: Config,
        catalog: Catalog,
        scratch: Path,
        reporter: Reporter,
    ) -> None:
        self._parent = parent
        self._id = id_
        self._lock = lock
        self._upgrade = wish.upgrade
        self._python = python
        self._known = known
        self._names = names
        self._squashed = squashed
        self._config = config
        self._catalog = catalog
        self._scratch = scratch
        self._reporter = reporter
        self._added = tuple(f"{package.name} {package.version}" for package in lock.packages)

    def make(self, clock: Clock) -> Entry:
        from hpcbinder.builders.assembling import Layer

        parent = self._parent
        self._reporter.phase("build", f"image {self._id}: {parent.id} and {', '.join(self._added)}")
        with clock("build"):
            lowest = self._lowest()
            options = self._options(lowest)
            wheels = self._wheels(options)
            above = (*self._small("gone", self._gone(lowest), options), *map(Layer.of_package, wheels))
            above += self._small("said", self._said(lowest, wheels), options)
            image = _Extended(self._image_config(above), parent.id)
            layers = (lowest, *(layer.path for layer in above))
        formats = tuple(form for form in parent.formats if form != "oci")
        with clock("convert"):
            folder = self._scratch / "image"
            folder.mkdir()
            converted = convert(
                image,
                layers_dir=self._catalog.layers_dir,
                folder=folder,
                name=self._id,
                labels={**image.config.labels, f"{LABEL_PREFIX}id": self._id},
                timestamp=parent.timestamp,
                formats=formats,
                options=options,
                reporter=self._reporter,
                origin=f"{ORIGIN} {parent.id}",
                layers=layers,
            )
            with converted.open() as files:
                kernels = image_kernels(files, image.config.env)
                packages = image_packages(files)
        asked = {name: tuple(sorted({*parent.asked.get("python", ()), *self._names})) for name in ("python",)}
        entry = replace(
            parent,
            id=self._id,
            image={"name": self._tag, "digest": image.config.digest, "engine": ASSEMBLED},
            config=image.config,
            formats={name: str(path) for name, path in converted.formats.items()},
            kernels=kernels,
            packages=packages,
            timings=clock.timings,
            size=converted.size,
            created=int(time.time()),
            locks=(*parent.locks, self._lock),
            registered=(),
            pushed={},
            asked={**parent.asked, **asked},
            parent=parent.id,
            added=self._added,
        )
        return self._catalog.add(entry, folder)

    @property
    def _tag(self) -> str:
        name, _, version = self._id.rpartition("-")
        return f"localhost/hpcbinder/{name}:{version}"

    def _options(self, lowest: Path) -> Options:
        """How the image's layers were squashed, as far as layers on top must be squashed alike."""
        with Image.open(lowest) as image:
            info = image.info()
        name = self._parent.compression.get("name", "")
        chosen = Options.parse(name if name.partition(":")[0] == info.compressor else info.compressor)
        return replace(chosen, block_size=info.block_size)

    def _lowest(self) -> Path:
        """A file that begins with the image's squashfs: its own, or a copy of what a SIF holds."""
        source = self._squashed
        if source.offset == 0:
            return source.path
        path = self._scratch / "parent.squashfs"
        try:
            with source.path.open("rb") as file, path.open("wb") as out:
                done, size = 0, source.path.stat().st_size - source.offset
                while done < size:
                    count = os.copy_file_range(file.fileno(), out.fileno(), size - done, source.offset + done, done)
                    if count == 0:
                        raise ConvertError("is cut off", where=str(source.path))
                    done += count
        except OSError as error:
            raise ConvertError(f"cannot be copied: {error.strerror}", where=str(source.path)) from error
        return path

    def _wheels(self, options: Options) -> tuple[Path, ...]:
        from hpcbinder.builders.assembling import wheel_store
        from hpcbinder.wheels import Target

        store = wheel_store(self._catalog, self._config, options, self._reporter)
        architecture = self._parent.base.architecture
        target = Target(ENV_PREFIX, self._python, f"{ENV_PREFIX}/bin/python", architecture, self._lock.platform)
        return tuple(
            store.layers(
                self._lock,
                target,
                lambda: self._interpreter(options),
                scratch=self._scratch,
            )
        )

    def _interpreter(self, options: Options) -> Interpreter:
        """The Python of what the image stands on. Never the image's own: whoever built that may have put anything in
        its place, and it is started here."""
        from hpcbinder.bases import Bases
        from hpcbinder.builders.assembling import base_interpreter

        parent = self._parent.base
        base = Bases(self._config, parent.architecture, self._reporter).image(parent, self._catalog.bases_dir)
        cache = LayerCache(self._catalog.layers_dir, options, below=self._catalog.layers_below)
        paths = cache.ensure(DockerArchive(base.archive), self._scratch, self._reporter)
        return base_interpreter(paths[-1], self._python, self._scratch / "python")

    def _gone(self, lowest: Path) -> dict[str, Any]:
        """What packages leave behind that become another version."""
        from hpcbinder.builders.assembling import Gone, environment_of, files_of

        with Image.open(lowest) as image:
            here = environment_of(image).packages
            old = [here[package.name] for package in self._lock.packages if package.name in here]
            return {path: Gone() for path in files_of(image, old)} if old else {}

    def _said(self, lowest: Path, wheels: Sequence[Path]) -> dict[str, Any]:
        """The image's manifest and list of packages, with what is added; and the kernelspec where it came anew."""
        from hpcbinder.builders.assembling import File

        found: dict[str, Any] = {}
        versions = {**self._known, **{package.name: package.version for package in self._lock.packages}}
        listed = [{"name": name, "version": versions[name]} for name in sorted(versions)]
        found[f"{PACKAGES_DIR}/python.json"] = File((json.dumps(listed, separators=(",", ":")) + "\n").encode())
        with Image.open(lowest) as image:
            node = image.lookup(MANIFEST)
            manifest = json.loads(image.read(MANIFEST, _LIMIT)) if node is not None and node.kind == "file" else {}
        if not isinstance(manifest, dict):
            manifest = {}
        again = [
            *ORIGIN.split(),
            *(["--upgrade"] if self._upgrade else []),
            self._parent.id,
            *(f"{p.name}=={p.version}" for p in self._lock.packages),
        ]
        manifest |= {
            "id": self._id,
            "parent": self._parent.id,
            "added": list(self._added),
            "locks": to_json((*self._parent.locks, self._lock)),
            "rebuild": f"{manifest.get('rebuild', '')} && {shlex.join(again)}".removeprefix(" && "),
        }
        found[MANIFEST] = File((json.dumps(manifest, indent=2, sort_keys=True) + "\n").encode())
        if (text := _kernel(wheels)) is not None:
            found[_KERNEL] = File(text)
        return found

    def _small(self, name: str, entries: Mapping[str, Any], options: Options) -> tuple[Layer, ...]:
        """A layer of a few files, kept as all that the image is made of is: it may be pushed one day."""
        import io

        from hpcbinder.builders.assembling import Layer, layer_tar
        from hpcbinder.squashfs import write_layer

        if not entries:
            return ()
        path = self._scratch / f"{name}.layer"
        diff_id = write_layer(io.BytesIO(layer_tar(entries)), path, options)
        return (Layer(LayerCache(self._catalog.layers_dir, options).keep(path, diff_id), diff_id),)

    def _image_config(self, above: Sequence[Layer]) -> ImageConfig:
        parent = self._parent.config
        config = replace(
            parent,
            labels={**parent.labels, f"{LABEL_PREFIX}parent": self._parent.id},
            diff_ids=(*parent.diff_ids, *(layer.identity for layer in above)),
        )
        return replace(config, digest=f"sha256:{hashlib.sha256(dump_config(config)).hexdigest()}")


def _kernel(wheels: Sequence[Path]) -> bytes | None:
    """ipykernel's kernelspec, if it is among what is added, with the program that the image contract wants in it."""
    for path in wheels:
        with Image.open(path) as image:
            if image.lookup(_KERNEL) is not None:
                spec = json.loads(image.read(_KERNEL, 1 << 20))
                spec["argv"] = [f"{ENV_PREFIX}/bin/python", *spec["argv"][1:]]
                return json.dumps(spec, indent=1).encode()
    return None


def _name(line: str) -> str:
    """The normalised name that a requirement is of.

    Raises:
        UsageError: It is none that the package index can be asked for.
    """
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    try:
        wanted = Requirement(line)
    except (InvalidRequirement, RecursionError):
        wanted = None
    if wanted is None or wanted.url is not None:
        raise UsageError(
            f"{one_line(line, 200)!r} is no requirement of the package index", hint="write NAME or NAME==VERSION"
        )
    return canonicalize_name(wanted.name)


def _same(version: str, other: str | None) -> bool:
    from packaging.version import InvalidVersion, Version

    try:
        return other is not None and Version(version) == Version(other)
    except InvalidVersion:
        return version == other


def requirements_of(path: Path) -> tuple[str, ...]:
    """The requirements in a file: a line each, without options.

    Raises:
        UsageError: It cannot be read, or has something else in it.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_LIMIT + 1)
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=one_line(str(path), 200)) from None
    if len(raw) > _LIMIT:
        raise UsageError(f"is longer than {_LIMIT >> 20} MiB", where=one_line(str(path), 200))
    found = []
    for number, line in enumerate(raw.decode("utf-8", "replace").replace("\\\n", " ").splitlines(), start=1):
        text = line.partition(" #")[0].strip() if not line.lstrip().startswith("#") else ""
        if text.startswith("-"):
            raise UsageError("options have no place here", where=f"{one_line(str(path), 200)}:{number}")
        if text:
            found.append(text)
    return tuple(found)
