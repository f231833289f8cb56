"""What Slurm's commands are told, and how ranks find each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcbinder.errors import RunError
from hpcbinder.scheduler import Resources, Slurm, mpi_kind

OLD = "echo 'srun: MPI types are...' >&2\necho 'srun: none' >&2\necho 'srun: pmi2' >&2\n"
NEW = "echo 'MPI plugin types are...'\nprintf '\\tpmix\\n\\tnone\\n'\necho 'specific pmix plugin versions: pmix_v4'\n"


def slurm(folder: Path, script: str, default: str = "none") -> Slurm:
    config = f"echo 'Configuration data'\necho 'MpiDefault              = {default}'\n"
    for name, text in {"srun": script, "scancel": "", "scontrol": config}.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}")
        (folder / name).chmod(0o755)
    return Slurm({"PATH": f"{folder}:/usr/bin:/bin"})


@pytest.mark.parametrize(("script", "names"), [(OLD, ("none", "pmi2")), (NEW, ("none", "pmix"))])
def test_lists_of_two_ages(tmp_path: Path, script: str, names: tuple[str, ...]) -> None:
    assert slurm(tmp_path, script).mpi_plugins() == names


def test_the_site_s_default_comes_first(tmp_path: Path) -> None:
    assert slurm(tmp_path, NEW, "pmix").mpi_plugins() == ("pmix", "none")


def test_a_slurm_that_cannot_say(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no controller"):
        slurm(tmp_path, "echo 'srun: error: no controller' >&2; exit 1\n").mpi_plugins()


def test_no_slurm(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="srun is not on PATH"):
        Slurm({"PATH": str(tmp_path)})


@pytest.mark.parametrize(
    ("abi", "plugins", "tasks", "kind"),
    [
        ("", ("none", "pmi2"), 4, "none"),
        ("mpich", ("none", "pmi2", "pmix"), 1, "none"),
        ("mpich", ("none", "pmi2", "pmix"), 4, "pmi2"),
        ("mpich", ("cray_shasta", "none", "pmi2"), 4, "cray_shasta"),
        ("mpich", ("none", "cray_shasta", "pmi2"), 4, "pmi2"),
        ("openmpi", ("pmi2", "pmix"), 4, "pmix"),
        ("openmpi", ("none", "pmi2", "pmix"), 4, "pmix"),
    ],
)
def test_the_image_s_mpi_decides(abi: str, plugins: tuple[str, ...], tasks: int, kind: str) -> None:
    assert mpi_kind(abi, plugins, tasks) == kind


def test_ranks_that_could_not_find_each_other_are_not_started() -> None:
    with pytest.raises(RunError, match="rank 0 of 1"):
        mpi_kind("openmpi", ("none", "pmi2"), 4)


def test_options_come_before_the_command_and_end_there(tmp_path: Path) -> None:
    argv = slurm(tmp_path, "").argv(Resources(tasks=2), ["python", "--version"], mpi="pmi2", name="hpcbinder-x")
    assert argv[1:] == (
        "--job-name=hpcbinder-x",
        "--mpi=pmi2",
        "--kill-on-bad-exit=1",
        "--label",
        "--ntasks=2",
        "--",
        "python",
        "--version",
    )
