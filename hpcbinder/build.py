"""The pipeline, one page: source -> checkout -> plan -> image -> formats -> catalog entry -> kernels."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from hpcbinder import __version__
from hpcbinder.bases import Bases
from hpcbinder.builders import ASSEMBLED, Built, build_image
from hpcbinder.catalog import Catalog, LogBook
from hpcbinder.conda import CondaResolver
from hpcbinder.config import Config
from hpcbinder.convert import convert
from hpcbinder.converting import add_formats, can_add
from hpcbinder.engine import pick_engine
from hpcbinder.errors import BuildError, HpcbinderError, UsageError
from hpcbinder.image import ARCHITECTURES, image_packages
from hpcbinder.lock import Resolver, read_locks
from hpcbinder.model import Checkout, Entry, Plan, RegisteredKernel
from hpcbinder.plan import Pack, date_of, load_packs, make_plan
from hpcbinder.progress import Clock, Reporter
from hpcbinder.publish import may_push, publish
from hpcbinder.register import (
    image_kernels,
    import_into_gateway,
    register_kernels,
    unpublish,
    unregister_kernels,
    unregister_modules,
)
from hpcbinder.registry import Reference
from hpcbinder.runtime import Compression, choose_compression, gpu_shortcoming
from hpcbinder.scheduler import Resources
from hpcbinder.source import fetch
from hpcbinder.text import one_line

Maker = Callable[[Plan, Checkout, Config, tuple[str, ...], Catalog, Reporter, Clock, Path], Entry]
"""`make`, or who does the same on another machine."""


@dataclass(frozen=True)
class Request:
    """What a person asked for.

    Attributes:
        source: URL, `gh:org/repo` or folder.
        without: Buildpacks that must not take part.
        chosen: Buildpacks whose files alone count; none for all.
        rebuild: Build even if the catalog has the image.
        register: Register kernels at the end.
        kernel_prefix: Where (`PREFIX/share/jupyter/kernels`); None is the person's own Jupyter folder.
        kernel_name: Name of the first kernel instead of the derived one.
        refresh: Ask the package index and registries anew for what was found before.
        lock: Find versions before the build; else the build finds them.
        locks: File with the locks of an image, to make it again with the same versions.
        push: Where to push the image in the end.
        maker: Makes the image elsewhere (`hpcbinder.elsewhere`); None to make it here.
    """

    source: str
    ref: str | None = None
    subdir: str | None = None
    without: tuple[str, ...] = ()
    chosen: tuple[str, ...] = ()
    rebuild: bool = False
    register: bool = True
    kernel_prefix: Path | None = None
    kernel_name: str | None = None
    refresh: bool = False
    lock: bool = True
    locks: Path | None = None
    push: Reference | None = None
    maker: Maker | None = None


def plan_source(
    request: Request, config: Config, workdir: Path, reporter: Reporter, clock: Clock
) -> tuple[Checkout, Plan]:
    """Fetch, find versions and plan, without running any code of the repository.

    Raises:
        UsageError, FetchError, DetectError: See their exit codes.
    """
    if request.locks and not request.lock:
        raise UsageError("versions cannot be those of a file and be left to the build", hint="drop one of the two")
    given = read_locks(request.locks) if request.locks else ()
    with clock("fetch"):
        checkout = fetch(
            request.source,
            ref=request.ref,
            subdir=request.subdir,
            workdir=workdir,
            reporter=reporter,
            site=config.site,
            source=config.source,
            history=config.build.as_of in ("auto", "commit"),
        )
    days = int(config.build.as_of_age.removesuffix("d"))
    as_of = date_of(config.build.as_of, checkout, now=time.time(), days=days)
    architecture = _architecture()
    with clock("plan"):
        bases = Bases(config, architecture, reporter, refresh=request.refresh)
        resolver = Resolver(config.store.path, config.site, refresh=request.refresh, reporter=reporter, given=given)
        conda = CondaResolver(
            config.store.path, config.conda, config.site, refresh=request.refresh, reporter=reporter, given=given
        )
        plan = make_plan(
            checkout,
            packs=_packs(config, reporter),
            suite=config.build.suite,
            architecture=architecture,
            without=request.without,
            chosen=request.chosen,
            suites=config.bases.suites,
            pythons=bases.pythons,
            resolver=resolver if request.lock else None,
            conda=conda if request.lock else None,
            translate_conda=config.conda.mode == "pypi",
            stand=bases.stand,
            outside=bases.outside,
            as_of=as_of,
            mpi=config.mpi.abi,
        )
    steps = f"Python {plan.python.version}, {len(plan.steps)} steps"
    what = f"{plan.own.path} of the repository" if plan.own else steps
    reporter.phase("plan", f"{plan.id}: {plan.base.name}, {what}")
    if plan.inferred:
        guessed = ", ".join(found.requirement for found in plan.inferred if not found.certain)
        told = f", by their names alone: {one_line(guessed, 300)}" if guessed else ""
        count = f"{len(plan.inferred)} package{'s' * (len(plan.inferred) != 1)}"
        reporter.phase(
            "plan", f"no file names {count} that the code imports: installed all the same{told} (hpcbinder init)"
        )
    return checkout, plan


def _packs(config: Config, reporter: Reporter) -> list[Pack]:
    origin = config.origins.get("buildpacks.path", "default")

    def skipped(folder: Path) -> None:
        reporter.phase("plan", f"{one_line(str(folder))} describes no buildpack (buildpack.toml): left out")

    return load_packs(config.buildpacks.path, named_by=None if origin == "default" else origin, skipped=skipped)


def build(request: Request, config: Config, catalog: Catalog, reporter: Reporter) -> Entry:
    """From a link to a registered kernel.

    The work for one image is done once, however many ask for it at the same time: the second waits and takes the entry.

    Returns:
        The catalog's entry; its timings, registered kernels and pushes are those of this call.

    Raises:
        HpcbinderError: Of the phase that failed.
    """
    if request.push:
        may_push(request.push, config, reporter)
    clock = Clock()
    reporter = book = LogBook(reporter, f"hpcbinder {__version__}: {request.source}")
    with catalog.temporary() as scratch:
        checkout, plan = plan_source(request, config, scratch, reporter, clock)
        busy = f"{plan.id}: another process builds it (hpcbinder logs {plan.id} --follow)"
        with catalog.lock(plan.id, on_wait=lambda: reporter.phase("build", busy)):
            entry = found = catalog.find(plan.id)
            lacking = _lacking(entry, config)
            if entry is not None and lacking:
                reporter.phase("build", f"{plan.id} is in the catalog already, but not as {', '.join(lacking)}")
            if entry is not None and lacking and not request.rebuild and can_add(entry, lacking):
                with _logged(plan.id, catalog, book), clock("convert"):
                    entry = add_formats(entry, lacking, catalog, scratch, reporter)
            elif entry is None or request.rebuild or lacking:
                # What registered kernels run stays there when other formats are asked for.
                formats = dict.fromkeys((*(entry.formats if entry else ()), *config.build.formats))
                if set(formats) == {"oci"}:
                    raise UsageError("no runtime runs the format oci", hint="ask for another one too (build.formats)")
                with _logged(plan.id, catalog, book):
                    maker = make if request.maker is None else request.maker
                    entry = maker(plan, checkout, config, tuple(formats), catalog, reporter, clock, scratch)
            else:
                reporter.phase("build", f"{plan.id} is in the catalog already (--rebuild makes it anew)")
    if entry is not found and "shifter" in entry.formats and config.shifter.gateway is not None:
        import_into_gateway(Path(entry.formats["shifter"]), f"{entry.id}:latest", config, reporter)
    kernels: tuple[RegisteredKernel, ...] = ()
    if request.register and not entry.kernels and plan.own is not None:
        reporter.phase("register", f"no kernel: {plan.own.path} installs none (pip install ipykernel in it makes one)")
    elif request.register:
        with clock("register"):
            kernels = register(entry, config, catalog, reporter, request.kernel_prefix, request.kernel_name)
    pushed: dict[str, str] = {}
    if request.push:
        with clock("push"):
            new = publish(entry, request.push, config, catalog, reporter)
        pushed[new.reference] = new.digest
    timings = {phase: clock.timings.get(phase, 0.0) for phase in (*PHASES, *(("push",) if pushed else ()))}
    return replace(entry, timings=timings, registered=kernels, pushed=pushed)


PHASES = ("fetch", "plan", "build", "convert", "register")


@contextmanager
def _logged(id_: str, catalog: Catalog, book: LogBook) -> Iterator[None]:
    """Keep the log of what the body does, and say in its error where it is."""
    try:
        with catalog.logged(id_, book):
            yield
    except HpcbinderError as error:
        if book.holds_output:
            error.hint = "; ".join(filter(None, (error.hint, f"the whole log: hpcbinder logs {id_}")))
        raise


def _ran(built: Built) -> dict[str, str]:
    """What of an assembled image had to be run, and by whom, as the catalog has it."""
    by = ", ".join(dict.fromkeys(filter(None, built.ran.values())))
    return {"ran": ", ".join(built.ran), **({"ran_by": by} if by else {})} if built.ran else {}


def _lacking(entry: Entry | None, config: Config) -> tuple[str, ...]:
    """The formats that somebody asked for, which an image is not there in; defaults are nobody's wish."""
    if entry is None or config.origins.get("build.formats", "default") == "default":
        return ()
    return tuple(name for name in config.build.formats if name not in entry.formats)


def make(
    plan: Plan,
    checkout: Checkout,
    config: Config,
    formats: tuple[str, ...],
    catalog: Catalog,
    reporter: Reporter,
    clock: Clock,
    scratch: Path,
    *,
    compression: Compression | None = None,
    workplace: Path | None = None,
) -> Entry:
    """From a plan to an entry of the catalog.

    Args:
        scratch: Folder for the unfinished image, in the catalog.
        compression: How layers are squashed; None to decide here.
        workplace: Folder for whatever else is unfinished, on any disk; `scratch` if None.

    Raises:
        HpcbinderError: Of the phase that failed.
    """
    with clock("build"):
        compression = compression or choose_compression(config.build.compression, config)
        built = build_image(
            plan,
            checkout,
            catalog=catalog,
            scratch=workplace or scratch,
            config=config,
            options=compression.options,
            reporter=reporter,
        )
        image = built.image
    with clock("convert"):
        folder = scratch / "image"
        folder.mkdir()
        converted = convert(
            image,
            layers_dir=catalog.layers_dir,
            folder=folder,
            name=plan.id,
            labels={**image.config.labels, "org.hpcbinder.id": plan.id},
            timestamp=plan.timestamp,
            formats=formats,
            options=compression.options,
            reporter=reporter,
            origin=built.name,
            layers=built.layers,
            tars=built.tars,
        )
        with converted.open() as files:
            kernels = image_kernels(files, image.config.env, foreign=plan.own is not None)
            packages = image_packages(files)
    entry = Entry(
        id=plan.id,
        source=plan.source,
        ref=plan.ref,
        commit=plan.commit,
        uncommitted=plan.uncommitted,
        subdir=plan.subdir,
        buildpacks=plan.packs,
        base=plan.base,
        image={"name": built.name, "digest": image.config.digest, "engine": built.builder, **_ran(built)},
        config=image.config,
        formats={name: str(path) for name, path in converted.formats.items()},
        kernels=kernels,
        packages=packages,
        decisions=plan.decisions,
        timings=clock.timings,
        size=converted.size,
        created=int(time.time()),
        timestamp=plan.timestamp,
        locks=plan.locks,
        asked=plan.asked,
        python=plan.python if plan.own is None else None,
        compression=compression.record(),
        as_of=plan.as_of.date if plan.as_of is not None else None,
    )
    return catalog.add(entry, folder)


def register(
    entry: Entry,
    config: Config,
    catalog: Catalog,
    reporter: Reporter,
    prefix: Path | None,
    name: str | None,
    job: Resources | None = None,
) -> tuple[RegisteredKernel, ...]:
    """Register the entry's kernels, to be started here or as jobs, and keep in the catalog where they are.

    Returns:
        Those registered now; the image may have others.

    Raises:
        RegisterError: No kernel in the image, or the folder cannot be written.
        RunError: No runtime here can run it.
    """
    with catalog.working():
        kernels = register_kernels(entry, config=config, prefix=prefix or config.kernels.prefix, name=name, job=job)
        for kernel in kernels:
            reporter.phase("register", f"{kernel.name}: {kernel.display_name}")
        if kernels and job is None and (lacking := gpu_shortcoming(entry, config.runtime)):
            reporter.phase("register", lacking)
        kept = [k for k in entry.registered if k.path not in {new.path for new in kernels}]
        catalog.update(replace(entry, registered=(*kept, *kernels)))
    return kernels


def remove(entry: Entry, config: Config, catalog: Catalog, reporter: Reporter) -> None:
    """Take an image away: its kernels, modules and place in hubs, its folder in the catalog, its tag in the engine (if
    that can be reached).

    Raises:
        RegisterError, CatalogError: A kernel or the folder cannot be removed.
    """
    unregister_kernels(entry, config=config)
    unpublish(catalog, entry.id)
    unregister_modules(catalog, entry.id)
    catalog.remove(entry.id)
    if entry.image.get("engine") == ASSEMBLED:
        return
    try:
        # Entries of the first version do not say which it was.
        pick_engine(entry.image.get("engine", config.build.engine), config).remove(entry.image["name"])
    except BuildError as error:
        reporter.phase("remove", f"{entry.image['name']} may still be in the engine: {error.message}")


def _architecture() -> str:
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        raise BuildError(f"no base for this machine's architecture ({machine})", hint="build on x86_64 or aarch64")
    return ARCHITECTURES[machine]
