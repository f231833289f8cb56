"""A registered kernel whose starts are jobs of a real Slurm, and whose image gets a package more: the kernel that runs
needs a restart, and is still in its job."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from package_index import PackageIndex

from hpcbinder.catalog import Catalog
from hpcbinder.model import Entry
from rig import Apptainer, Slurm, User

SCENARIO = str(Path(__file__).parent.parent / "register/kernel_life.py")


def test_a_kernel_in_a_job_gets_a_package(
    user: User, slurm: Slurm, apptainer: Apptainer, small_image: Entry, package_index: PackageIndex
) -> None:
    package_index.wheel("added", files={"added.py": "HERE = 'added'\n"})
    user.knows(slurm.hosts)
    store, prefix, folder = (user.home / name for name in ("store", "prefix", "notebooks"))
    catalog = Catalog(store)
    with catalog.temporary() as scratch:
        place = scratch / "image"
        place.mkdir()
        shutil.copy(small_image.formats["squashfs"], place / "image.squashfs")
        catalog.add(dataclasses.replace(small_image, formats={"squashfs": "image.squashfs"}), place)
    folder.mkdir()
    user.own(store, folder)
    environ = {
        **slurm.environment,
        "PATH": f"{apptainer.bin}:/usr/bin:/bin",
        "JUPYTER_PATH": str(prefix / "share/jupyter"),
        "HPCBINDER_SITE_PIP_INDEX_URL": package_index.url,
        "CI": "1",
    }
    hpcbinder = [sys.executable, "-B", "-m", "hpcbinder", "--store", str(store)]
    asked = ["--on", "slurm", "--partition", "debug", "--time", "10", "--cpus-per-task", "1"]
    user.run(
        [*hpcbinder, "register", "small", "--kernel", *asked, "--prefix", str(prefix), "--name", "life"], env=environ
    )
    kernel = prefix / "share/jupyter/kernels/life-python3"
    before: dict[str, Any] = json.loads((kernel / "job.json").read_text())

    extend = json.dumps([*hpcbinder, "extend", small_image.id, "added", "--json"])
    done = user.run([sys.executable, SCENARIO, "extended", kernel.name, str(folder)], env={**environ, "EXTEND": extend})
    seen = json.loads(done.stdout)
    assert seen["before"] == ["no", *seen["after"][1:]]
    assert seen["after"][0] == "added"
    node, job, _ = seen["after"][1:]
    assert node in ("n1", "n2") and job.isdigit()
    assert seen["left"] == []
    new = catalog.get(seen["told"]["id"])
    assert {registered.path for registered in new.registered} == {str(kernel), str(kernel.with_name("life-german"))}
    assert catalog.get(small_image.id).registered == ()
    assert json.loads((kernel / "job.json").read_text()) == before
    assert new.id in (kernel / "launch.json").read_text()
