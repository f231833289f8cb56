"""What the job asks for that a kernel is started in, kept beside its kernelspec for whoever registers it anew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcbinder.errors import UsageError
from hpcbinder.model import BaseRef, Entry, ImageConfig, Kernel
from hpcbinder.register import job_of
from hpcbinder.register.kernelspec import kernel_files
from hpcbinder.scheduler import Resources

KERNEL = Kernel("python3", "Python 3 (ipykernel)", "python", ("python", "-f", "{connection_file}"))


def write(folder: Path, job: Resources | None) -> None:
    config = ImageConfig("sha256:0", "amd64", "", {}, (), (), "/srv/repo", {}, (), ())
    entry = Entry(
        id="small-0123456789ab",
        source="https://example.org/small",
        ref="HEAD",
        commit="8c1f0a2" + "0" * 33,
        uncommitted=False,
        subdir="",
        buildpacks=(),
        base=BaseRef("debian:bookworm", "bookworm", "3.11", "amd64", "1"),
        image={},
        config=config,
        formats={},
        kernels=(KERNEL,),
        packages={},
        decisions=(),
        timings={},
        size=0,
        created=0,
    )
    for name, content in kernel_files(entry, KERNEL, {"prologue": []}, folder, job).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def test_it_comes_back_whole(tmp_path: Path) -> None:
    asked = Resources(partition="gpu", gpus="a100:2", time="4:00:00")
    write(tmp_path, asked)
    assert job_of(tmp_path) == asked
    spec = json.loads((tmp_path / "kernel.json").read_text())
    assert spec["metadata"]["kernel_provisioner"] == {"provisioner_name": "hpcbinder-slurm"}
    assert "{connection_file}" not in spec["argv"]
    assert spec["display_name"].endswith(" on Slurm (gpu)")


def test_a_kernel_of_this_machine_has_none(tmp_path: Path) -> None:
    write(tmp_path, None)
    assert job_of(tmp_path) is None
    spec = json.loads((tmp_path / "kernel.json").read_text())
    assert "kernel_provisioner" not in spec["metadata"]
    assert spec["argv"][-1] == "{connection_file}"


def test_what_somebody_wrote_there_is_checked(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text('{"asked": {"partition": "debug --uid=0"}}')
    with pytest.raises(UsageError):
        job_of(tmp_path)
