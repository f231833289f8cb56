"""What an image needs of a GPU, and what is said where the machine does not have it.

Drivers are files of their text: no GPU is in the machines that test."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from small_image import small_image  # noqa: F401

from hpcbinder.config import RuntimeConfig
from hpcbinder.model import Entry, Lock, LockedPackage
from hpcbinder.runtime import cuda_of_driver, describe, gpu_needs, gpu_shortcoming, nvidia_driver, too_old
from hpcbinder.runtime.launch.gpu import shortcoming
from hpcbinder.runtime.launch.starting import prepare


def labelled(entry: Entry, gpu: str, packages: dict[str, str], *, locked: bool = False) -> Entry:
    config = replace(entry.config, labels={"org.hpcbinder.gpu": gpu})
    if locked:
        found = tuple(LockedPackage(name, version, ()) for name, version in packages.items())
        return replace(entry, config=config, locks=(Lock("conda", "resolved", "3.11", "x", found, ()),))
    known = tuple({"name": name, "version": version} for name, version in packages.items())
    return replace(entry, config=config, packages={"python": known})


@pytest.mark.parametrize(
    ("packages", "cuda"),
    [
        ({"torch": "2.4.1", "nvidia-cuda-runtime-cu12": "12.1.105"}, "12.1"),
        ({"nvidia-cuda-runtime": "13.0.48"}, "13.0"),
        ({"cupy-cuda11x": "13.2.0"}, "11"),
        ({"jax-cuda12-plugin": "0.4.30", "nvidia-cuda-runtime-cu12": "12.6.77"}, "12.6"),
        ({"torch": "2.4.1"}, ""),
    ],
)
def test_the_cuda_of_an_image_is_that_of_its_packages(small_image: Entry, packages: dict[str, str], cuda: str) -> None:  # noqa: F811
    wanted = {"gpu": "nvidia", **({"cuda": cuda} if cuda else {})}
    assert gpu_needs(labelled(small_image, "nvidia", packages)) == wanted
    assert gpu_needs(labelled(small_image, "nvidia", packages, locked=True)) == wanted


def test_an_image_without_the_label_needs_none(small_image: Entry) -> None:  # noqa: F811
    assert gpu_needs(labelled(small_image, "", {"nvidia-cuda-runtime-cu12": "12.1.105"})) == {}
    assert gpu_needs(labelled(small_image, "x\ny", {})) == {}
    assert gpu_shortcoming(small_image, RuntimeConfig(gpu="none")) == ""


@pytest.mark.parametrize(
    ("text", "driver"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n"
            "GCC version:  gcc version 12.2.0\n",
            "535.104.05",
        ),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.14  Release Build  (dvs-builder)\n",
            "550.54.14",
        ),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  580.95.05  Release Build\n", "580.95.05"),
        ("something else 1.2.3\n", ""),
        ("", ""),
    ],
)
def test_the_drivers_version(tmp_path: Path, text: str, driver: str) -> None:
    (tmp_path / "version").write_text(text)
    assert nvidia_driver(tmp_path / "version") == driver
    assert nvidia_driver(tmp_path / "nothing") == ""


@pytest.mark.parametrize(
    ("driver", "cuda", "least"),
    [
        ("535.104.05", "12.6", ""),
        ("535.104.05", "13.0", "580.65.06"),
        ("470.256.02", "12", "525.60.13"),
        ("470.256.02", "11.8", ""),
        ("580.65.06", "13.0", ""),
        ("", "12.1", ""),
        ("535.104.05", "", ""),
        ("535.104.05", "99.1", ""),
    ],
)
def test_which_driver_runs_which_cuda(driver: str, cuda: str, least: str) -> None:
    assert too_old(driver, cuda) == least


def test_the_newest_cuda_a_driver_runs() -> None:
    assert [cuda_of_driver(driver) for driver in ("580.95.05", "525.60.13", "470.1", "390.48")] == [
        "13",
        "12",
        "11",
        "",
    ]


def test_what_is_lacking_is_said() -> None:
    needs = {"gpu": "nvidia", "cuda": "12.4"}
    assert shortcoming(needs, "nvidia", "535.104.05") == ""
    assert shortcoming({}, "none") == ""
    assert "made for CUDA 12.4, and it gets no NVIDIA GPU here" in shortcoming(needs, "none")
    assert "made for AMD GPUs, and it gets no AMD GPU here" in shortcoming({"gpu": "rocm"}, "nvidia")
    said = shortcoming(needs, "nvidia", "470.256.02")
    assert said.endswith("needs the NVIDIA driver 525.60.13 or later: here is 470.256.02")


def test_a_kernel_says_so_when_it_starts_without(small_image: Entry, tmp_path: Path) -> None:  # noqa: F811
    """Neither refused nor silent; where there is a GPU, the runtime is told."""
    entry = labelled(small_image, "nvidia", {"nvidia-cuda-runtime-cu12": "12.4.127"})
    program = tmp_path / "apptainer"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    environ = {"PATH": str(tmp_path), "HOME": str(tmp_path), "USER": "somebody"}
    settings = RuntimeConfig(name="apptainer", gpu="none")
    description = json.loads(json.dumps(describe(entry, settings, argv=["true"], environ=environ)))
    assert description["needs"] == {"gpu": "nvidia", "cuda": "12.4"}
    command = prepare(description, environ=environ, cwd=str(tmp_path))
    assert [note for note in command.notes if "gets no NVIDIA GPU here" in note]
    command = prepare({**description, "gpu": "nvidia"}, environ=environ, cwd=str(tmp_path))
    assert "--nv" in command.argv and command.notes == ()
    assert "needs" not in describe(small_image, settings, argv=["true"], environ=environ)
