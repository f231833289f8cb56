"""Whether an assembled environment is the one that `uv pip install` leaves, and works.

Each environment is resolved once. Its wheels are squashed and merged at a prefix where uv then installs the same lock
with bytecode, and both trees are compared file by file (tests/installed_tree.py: RECORD and bytecode by what they
mean). Then an image is built of the same lock, without an engine, and looked at under Apptainer by an ordinary user:
`pip check`, `importlib.metadata`, an import of each package, JupyterLab's extensions and kernels. What cannot be
imported there is tried in uv's environment too, bound into the same image: what is missing in both is a library that a
package wants of the system.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.assemble.packages import ENVIRONMENTS, requirements, resolve
from hpcbinder.config import load
from hpcbinder.model import Lock
from hpcbinder.progress import Silent
from hpcbinder.squashfs import Options, merge
from hpcbinder.wheels import Target, WheelStore
from tests.installed_tree import PYTHON, Tree, differences, uv_install
from tests.rig import Rig, RigError, User

ROOT = Path(__file__).parents[2]

_SOUND = "No broken requirements found."
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_LONGEST = 3000.0
"""Seconds of a look at an image."""

_MODULES = """
import importlib.metadata, json, os, re, subprocess, sys
versions = {}
modules = {}
for dist in importlib.metadata.distributions():
    name = re.sub("[-_.]+", "-", dist.metadata["Name"]).lower()
    versions[name] = dist.version
    found = []
    for path in dist.files or ():
        parts = str(path).split("/")
        if len(parts) == 2 and parts[1] == "__init__.py" or len(parts) == 1 and re.search(r"\\.(py|so)$", parts[0]):
            found.append(parts[0].split(".")[0])
    named = [each for each in dict.fromkeys(found) if each.isidentifier() and not each.startswith("__editable")]
    likely = name.replace("-", "_")
    modules[name] = sorted(named, key=lambda each: (each.lower() != likely, each.startswith("_"), each))[:3]
"""

_LOOK = (
    _MODULES
    + """
failed = {}
# Each in a process of its own: what one sets up is not another's, and one that crashes takes nobody along.
from concurrent.futures import ThreadPoolExecutor
def one(name):
    for module in modules[name]:
        done = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, text=True, timeout=300)
        if done.returncode == 0:
            failed.pop(name, None)
            return
        failed[name] = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1][:300]
    return
wanted = sys.argv[1:] or sorted(modules)
with ThreadPoolExecutor(2) as pool:
    list(pool.map(one, [name for name in wanted if name in modules]))
print(json.dumps({"versions": versions, "failed": failed, "nothing": [n for n in modules if not modules[n]]}))
"""
)


@dataclass(frozen=True)
class Equal:
    """What was found of one environment.

    Attributes:
        name: It.
        asked: Packages that were asked for.
        packages: That they brought.
        files: That were compared.
        different: Those that are not alike, one line each.
        check: What `pip check` said; None where there was no Apptainer, and so for the rest.
        versions: How many packages `importlib.metadata` has in the version of the lock.
        imported: How many packages were imported; those without a module of their own count.
        failed: Package -> why it is not imported in the image, though it is in uv's environment.
        neither: Package -> why it is imported in neither.
        extensions: JupyterLab's extensions; 0 where they were not counted.
        bad: Those that it says are not right.
        kernels: That Jupyter lists.
        seconds: All of it took.
    """

    name: str
    asked: int
    packages: int
    files: int
    different: list[str]
    check: str | None = None
    versions: int = 0
    imported: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    neither: dict[str, str] = field(default_factory=dict)
    extensions: int = 0
    bad: list[str] = field(default_factory=list)
    kernels: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether it is the same, and works."""
        works = (self.check, self.versions, "python3" in self.kernels) == (_SOUND, self.packages, True)
        return (works or self.check is None) and not (self.different or self.failed or self.bad)


def check(name: str, scratch: Path, rig: Rig) -> Equal:
    """Look at one environment.

    Args:
        scratch: Folder with room for some gigabytes, which every user may enter.
    """
    begin = time.monotonic()
    names = (*ENVIRONMENTS[name], "ipykernel", "pip")
    lock = resolve(names, scratch / "locks")
    print(f"{name}: {len(lock.packages)} packages", flush=True)
    folder = scratch / name
    folder.mkdir()
    prefix = folder / "env"
    merged = _assembled(lock, prefix, folder)
    theirs, _ = uv_install(lock, prefix, load().site, scratch / "uv-cache")
    different = differences(Tree.of_image(merged, str(prefix)), theirs)
    files = len(theirs.files)
    print(f"{name}: {files} files, {len(different)} differences, {time.monotonic() - begin:.0f} s", flush=True)
    del theirs
    found = Equal(name, len(names) - 2, len(lock.packages), files, different)
    try:
        found = _run(found, lock, prefix, folder, rig)
    except RigError as error:
        print(f"{name}: not run: {error}", flush=True)
    shutil.rmtree(folder)
    return Equal(**{**found.__dict__, "seconds": time.monotonic() - begin})


def _assembled(lock: Lock, prefix: Path, folder: Path) -> Path:
    target = Target(str(prefix), PYTHON, f"{prefix}/bin/python", "amd64", lock.platform)
    store = WheelStore(folder / "wheels", load().site, Options("gzip", 1), Silent())
    layers = store.layers(lock, target, scratch=folder)
    with (folder / "merged.squashfs").open("w+b") as file:
        merge(layers, file)
    for path in layers:
        path.unlink()
    return folder / "merged.squashfs"


def _run(found: Equal, lock: Lock, prefix: Path, folder: Path, rig: Rig) -> Equal:
    """The same lock as an image, under Apptainer."""
    repository = folder / "repository"
    repository.mkdir()
    (repository / "requirements.txt").write_text(requirements(lock))
    store = folder.parent / "store"
    environment = {**os.environ, "PATH": f"{rig.apptainer.bin}:{os.environ['PATH']}"}
    command = [sys.executable, "-m", "hpcbinder", "--store", str(store), "build", str(repository), "--engine", "none"]
    command += ["--no-register", "--format", "squashfs", "--json"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RigError(f"no image: {done.stderr[-2000:]}")
    image = json.loads(done.stdout)["formats"]["squashfs"]
    inside = [str(rig.apptainer.path), "-s", "exec", image]
    user = rig.user
    said = json.loads(_output(user, [*inside, "/opt/env/bin/python", "-c", _LOOK]))
    failed = dict(said["failed"])
    neither: dict[str, str] = {}
    if failed:
        # In the same system: what that lacks is nobody's difference.
        bound = [*inside[:3], "--bind", f"{prefix}:{prefix}:ro", image, str(prefix / "bin/python"), "-c", _LOOK]
        there = user.run([*bound, *failed], network=False, timeout=_LONGEST)
        neither = {name: why for name, why in failed.items() if name in json.loads(there.stdout)["failed"]}
    here = {package.name: package.version for package in lock.packages}
    listed = _output(user, [*inside, "/opt/jupyter/bin/jupyter", "labextension", "list", "--verbose"], errors=True)
    plain = _COLOUR.sub("", listed).splitlines()
    lines = [line.strip() for line in plain if re.search(r"\b(enabled|disabled)\b", line)]
    kernels = json.loads(_output(user, [*inside, "/opt/jupyter/bin/jupyter", "kernelspec", "list", "--json"]))
    return Equal(
        **{
            **found.__dict__,
            "check": _output(user, [*inside, "/opt/env/bin/python", "-m", "pip", "check"]).strip(),
            "versions": sum(said["versions"].get(name) == version for name, version in here.items()),
            "imported": len(here) - len(failed),
            "failed": {name: why for name, why in failed.items() if name not in neither},
            "neither": neither,
            "extensions": len(lines),
            "bad": [line for line in lines if "OK" not in line or "X" in line.split()],
            "kernels": sorted(kernels["kernelspecs"]),
        }
    )


def _output(user: User, command: Sequence[str], *, errors: bool = False) -> str:
    """What a command says, as the ordinary user; with what it says on stderr, where JupyterLab's list goes."""
    done = user.run(list(command), network=False, check=False, timeout=_LONGEST)
    return f"{done.stdout}{done.stderr if errors else ''}"
