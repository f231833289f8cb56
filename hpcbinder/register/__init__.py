"""Having an image found by those who start things: Jupyter (one kernelspec for each kernel it holds), hubs, modules."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from hpcbinder import contract, runtime
from hpcbinder.config import Config
from hpcbinder.errors import RegisterError, RunError
from hpcbinder.model import Entry, RegisteredKernel
from hpcbinder.register.image_kernels import image_kernels
from hpcbinder.register.kernelspec import display_name, job_of, kernel_files
from hpcbinder.register.modules import (
    RegisteredModule,
    module_of,
    modules_folder,
    register_module,
    unregister_modules,
)
from hpcbinder.register.place import owner, place, remove
from hpcbinder.register.pointing import Pointing, pointing_kernels
from hpcbinder.register.published import (
    Published,
    checked,
    icon_url,
    is_published,
    publish,
    published_ids,
    published_of,
    repository_path,
    unpublish,
)
from hpcbinder.register.shifter_gateway import import_into_gateway
from hpcbinder.scheduler import OF_THE_JOB, Resources

__all__ = [
    "Pointing",
    "Published",
    "RegisteredModule",
    "checked",
    "icon_url",
    "image_kernels",
    "import_into_gateway",
    "is_published",
    "job_of",
    "kernels_folder",
    "module_of",
    "modules_folder",
    "pointing_kernels",
    "publish",
    "published_ids",
    "published_of",
    "register_kernels",
    "register_module",
    "repository_path",
    "unpublish",
    "unregister_kernels",
    "unregister_modules",
]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


def kernels_folder(config: Config, prefix: Path | None = None) -> Path:
    """Where kernelspecs go: below `prefix`, else the configured one, else in the person's own Jupyter folder."""
    prefix = prefix or config.kernels.prefix
    if prefix is not None:
        return prefix.absolute() / "share/jupyter/kernels"
    from jupyter_core.paths import jupyter_data_dir

    return Path(jupyter_data_dir()).absolute() / "kernels"


def register_kernels(
    entry: Entry,
    *,
    config: Config,
    prefix: Path | None = None,
    name: str | None = None,
    job: Resources | None = None,
) -> tuple[RegisteredKernel, ...]:
    """Give every kernel of an image a kernelspec. Doing it again changes nothing.

    Args:
        entry: The image.
        config: How images are run here, and where kernels go.
        prefix: Register below PREFIX/share/jupyter/kernels.
        name: Name of the kernelspec instead of `hpcbinder-ID` (with `-slurm`, if it is a job); one of ours of that name
            is replaced. Where the image has several kernels, `-KERNEL` is added.
        job: What the job asks for that each start is, on whichever node there is; None starts kernels where the front
            end is.

    Raises:
        RegisterError: The name cannot be one, it is taken by a kernelspec that is not ours, the image holds no kernel,
            no runtime here can run it, or the folder cannot be written.
    """
    base = f"hpcbinder-{entry.id}{'' if job is None else '-slurm'}" if name is None else name
    if not _NAME.fullmatch(base) or base.lower() != base and name is None:
        raise RegisterError(f"not a name for a kernel: {base!r}", hint="letters, digits, '.', '_' and '-'")
    if not entry.kernels:
        raise RegisterError(
            f"{entry.id} holds no Jupyter kernel ({', '.join(contract.KERNEL_DIRS)})",
            hint="add ipykernel, or another kernel, to the repository's requirements, or install it in its Dockerfile",
        )
    folder = kernels_folder(config, prefix)
    try:
        description = runtime.describe(entry, config.runtime, slurm=config.slurm)
    except RunError as error:
        raise RegisterError(error.message, where=error.where, hint=error.hint) from error
    if job is not None:
        description["environment"] = [*description["environment"], *OF_THE_JOB]
    if description["runtime"] in ("apptainer", "singularity"):
        _check(entry, description["program"], Path(description["image"]["location"]))
    registered = []
    for kernel in entry.kernels:
        full = base if len(entry.kernels) == 1 else f"{base}-{kernel.name}"
        path = folder / full
        place(path, kernel_files(entry, kernel, description, path, job))
        # Jupyter knows a kernelspec by its folder's name in lower case.
        registered.append(RegisteredKernel(full.lower(), str(path), kernel.language, display_name(entry, kernel, job)))
    return tuple(registered)


def unregister_kernels(
    entry: Entry, *, config: Config | None = None, prefix: Path | None = None
) -> tuple[RegisteredKernel, ...]:
    """Remove every kernelspec of an image: those its record names, and any other one in the folder kernels go to.

    Only a folder that says itself that it belongs to this image is touched.

    Returns:
        What was removed.

    Raises:
        RegisterError: A folder cannot be removed.
    """
    known = {Path(kernel.path): kernel for kernel in entry.registered}
    removed = []
    for folder in dict.fromkeys([*known, *_folders(kernels_folder(config or Config(), prefix))]):
        if not folder.is_symlink() and owner(folder) == entry.id:
            remove(folder)
            removed.append(known.get(folder) or RegisteredKernel(folder.name.lower(), str(folder), "", ""))
    return tuple(removed)


def _folders(kernels: Path) -> Iterator[Path]:
    try:
        yield from sorted(kernels.iterdir())
    except OSError:
        return


def _check(entry: Entry, program: str, image: Path) -> None:
    """Let Apptainer itself say whose image it is: a file that was swapped is found now, not by a kernel."""
    try:
        found = runtime.inspect(image, program).get(f"{contract.LABEL_PREFIX}id", entry.id)
    except RunError:
        # A login node may be unable to open any image (no user namespaces) where compute nodes can.
        return
    if found != entry.id:
        raise RegisterError(f"this is the image of {found}, not of {entry.id}", where=str(image))
