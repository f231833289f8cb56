"""A command in an image as the tasks of a job.

What runs on a node is the launcher that registered kernels use: it reads how the image is run there, asks the node
itself for its runtime and its GPU, and needs nothing but a Python. It lies in a folder that all nodes must see.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcbinder import runtime
from hpcbinder.config import RuntimeConfig
from hpcbinder.contract import LABEL_PREFIX
from hpcbinder.model import Entry
from hpcbinder.scheduler.resources import Resources
from hpcbinder.scheduler.slurm import Slurm, mpi_kind

OF_THE_JOB = runtime.OF_THE_JOB
"""What the batch system tells a task, its MPI library among others."""


@dataclass(frozen=True)
class Task:
    """What starts the job from here, until it has ended.

    Attributes:
        argv: Program and arguments.
        env: Its environment.
        cancel: What takes the job away should `argv` be killed, which leaves it behind (slurm.conf(5), InactiveLimit).
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cancel: tuple[str, ...]


def task(
    entry: Entry,
    command: Sequence[str],
    resources: Resources,
    settings: RuntimeConfig,
    *,
    folder: Path,
    environ: Mapping[str, str],
    mpi: str = "auto",
    copy: runtime.Prepared | None = None,
) -> Task:
    """A command in an image as a job.

    Args:
        entry: The image; its file must be seen by the nodes.
        command: What each task runs.
        resources: What the job asks for.
        settings: How images are run.
        folder: Where the launcher is put; seen by the nodes too, and there until the job has ended.
        environ: The environment of whom it is for.
        mpi: What `srun --mpi` is told; auto decides by the image's MPI.
        copy: The person's copy of the repository, where each task starts instead of in the working directory.

    Raises:
        RunError: There is no Slurm, no runtime here can run the image, or nothing lets its MPI's ranks find each other.
        OSError: The folder cannot be written.
    """
    slurm = Slurm(environ)
    if mpi == "auto":
        abi = entry.config.labels.get(f"{LABEL_PREFIX}mpi", "")
        mpi = mpi_kind(abi, slurm.mpi_plugins() if abi and resources.tasks > 1 else (), resources.tasks)
    description = runtime.describe(entry, settings, argv=command, environ=environ)
    if copy is not None:
        description = copy.described(description)
    description["environment"] = [*description["environment"], *OF_THE_JOB]
    start, files = runtime.launcher_files(description, folder)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    name = f"hpcbinder-{entry.id}-{secrets.token_hex(4)}"
    return Task(slurm.argv(resources, start, mpi=mpi, name=name), dict(environ), slurm.cancel(name))
