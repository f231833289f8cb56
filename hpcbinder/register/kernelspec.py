"""What a registered kernel's folder holds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hpcbinder.model import Entry, Kernel
from hpcbinder.register import logo
from hpcbinder.runtime import launcher_files
from hpcbinder.scheduler import Resources
from hpcbinder.text import one_line


def display_name(entry: Entry, kernel: Kernel, job: Resources | None = None) -> str:
    """`ligo-binder (8c1f0a2): Python 3`: repository, commit, what the image calls the kernel, and whether in a job."""
    name = entry.id.rpartition("-")[0] or entry.id
    version = entry.commit[:7] if entry.commit else "folder" if entry.uncommitted else entry.ref[:24]
    if entry.commit and entry.uncommitted:
        version += " with changes"
    # ipykernel's own addition tells kernels of one environment apart; here the repository does.
    where = "" if job is None else f" on Slurm ({job.partition})" if job.partition else " on Slurm"
    return one_line(f"{name} ({version}): {kernel.display_name.removesuffix(' (ipykernel)')}", 200) + where


def kernel_files(
    entry: Entry, kernel: Kernel, description: Mapping[str, Any], folder: Path, job: Resources | None = None
) -> dict[str, bytes]:
    """Every file of a kernelspec: path below its folder -> content.

    Args:
        entry: The image.
        kernel: The kernel in it.
        description: How the image is run here (`hpcbinder.runtime.describe`).
        folder: Where the kernelspec will lie.
        job: What the job asks for that each start is, None to start it where the front end is.
    """
    start, files = launcher_files({**description, "argv": list(kernel.argv), "env": dict(kernel.env)}, folder)
    files["logo-svg.svg"] = logo.svg()
    for size in (32, 64):
        files[f"logo-{size}x{size}.png"] = logo.png(size)
    if job is not None:
        files["job.json"] = _json({"options": job.options(), "prologue": description["prologue"], "asked": asdict(job)})
    files["kernel.json"] = _json(_spec(entry, kernel, start, job))
    return files


def job_of(folder: Path) -> Resources | None:
    """What the job asks for that a kernelspec of ours is started in; None for one that is started at the front end.

    Raises:
        UsageError: Somebody wrote there what no job can ask for.
    """
    try:
        return Resources(**json.loads((folder / "job.json").read_text(encoding="utf-8"))["asked"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _spec(entry: Entry, kernel: Kernel, start: Sequence[str], job: Resources | None) -> dict[str, Any]:
    # The provisioner knows the rest (hpcbinder.jupyter), and knows it when the kernel is started.
    provisioner = {} if job is None else {"kernel_provisioner": {"provisioner_name": "hpcbinder-slurm"}}
    return {
        # An absolute path, not {resource_dir}: not every front end knows that word.
        "argv": [*start, *(["{connection_file}"] if job is None else [])],
        "display_name": display_name(entry, kernel, job),
        "language": kernel.language,
        "interrupt_mode": kernel.interrupt_mode,
        "metadata": {
            **kernel.metadata,
            **provisioner,
            "hpcbinder": {
                "id": entry.id,
                "kernel": kernel.name,
                "source": entry.source,
                "ref": entry.ref,
                "commit": entry.commit,
                "subdir": entry.subdir,
            },
        },
    }


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=True) + "\n").encode()
