"""Each part of the comparison."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import uv

from benchmarks.assemble.figures import SEEN, UNSEEN, Figure, Results
from benchmarks.assemble.packages import MORE, SCIENCE, requirements, resolve
from benchmarks.convert.meter import CommandError, Cost, measure
from benchmarks.environment import PACKAGES, Machine, Repository, left_clean, their_base
from hpcbinder.catalog import dump
from hpcbinder.config import load
from hpcbinder.engine.dockercli import DockerCli
from hpcbinder.model import Lock
from hpcbinder.squashfs import Image
from tests.rig import Rig, RigError

_DOCKERFILE = """\
FROM {base}
{trust}RUN python3 -m venv /opt/jupyter && /opt/jupyter/bin/pip install --no-cache-dir uv jupyterlab jupyterhub
RUN python3 -m venv /opt/env
COPY requirements.txt /srv/
RUN --mount=type=cache,target=/root/.cache/uv /opt/jupyter/bin/uv pip install --python /opt/env/bin/python \
--compile-bytecode --no-deps --require-hashes -r /srv/requirements.txt
COPY repository /srv/repo
"""
"""What a person would write: the server, which rarely changes, first; the packages by their lock; the files last."""


class Measures:
    """Takes the figures.

    Args:
        scratch: Folder with room for some gigabytes, which every user may enter.
        rig: The tests' rig, which has Apptainer and a daemon where the machine has not.
        rounds: How often each is measured.
    """

    def __init__(self, scratch: Path, rig: Rig, results: Results, rounds: int) -> None:
        self._scratch = scratch
        self._rig = rig
        self._results = results
        self._rounds = rounds
        self._environment = {**os.environ, "CI": "1"}
        for name in ("PIP_FIND_LINKS", "PIP_CONFIG_FILE"):
            self._environment.pop(name, None)

    def seen(self) -> None:
        """A repository that nobody has seen, all of whose packages were seen: from the link to the kernel."""
        folder = self._scratch / "seen"
        folder.mkdir()
        machine = Machine(folder, self._environment)
        machine.environment["HPCBINDER_BUILD_ENGINE"] = "none"
        lock = resolve((*PACKAGES.split(), "ipykernel", "pip"), self._scratch / "locks")
        lines = requirements(lock)
        first = _repository(folder, "first", lines)
        machine.ours(first.url)  # its packages, the base and the server are known from now on
        for number in range(self._rounds):
            new = _repository(folder, f"new-{number}", lines)
            command = [sys.executable, "-m", "hpcbinder", "--store", str(folder / "store"), "build", new.url]
            command += ["--prefix", str(folder / "jupyter"), "--format", "sif"]
            cost = measure(command, machine.environment)
            self._add(SEEN, "hpcbinder", lock, cost, _newest(folder / "store" / "images", ".sif"))
        self._engine(lock, lines)

    def _engine(self, lock: Lock, lines: str) -> None:
        """The same with Docker and Apptainer, whose caches have all that they keep."""
        folder = self._scratch / "theirs"
        folder.mkdir()
        try:
            with self._rig.borrowed("dockerd"):
                environment = {**self._environment, **self._rig.dockerd.environment, "DOCKER_BUILDKIT": "1"}
                with left_clean(environment):
                    self._docker(Machine(folder, environment), lock, lines)
        except (RigError, CommandError, SystemExit) as error:
            self._results.left_out.append(f"Docker and Apptainer: {str(error)[-500:]}")

    def _docker(self, machine: Machine, lock: Lock, lines: str) -> None:
        first = _repository(machine.folder, "base-of", "six==1.17.0\n")
        base = "localhost/theirs/base:assemble"
        their_base(machine, first.url, load().site, base, uuid.uuid4().hex)
        client = DockerCli.find(machine.environment["DOCKER_HOST"], machine.environment).program
        build = [client, "build", "--quiet", "--network=host"]
        # As the base has them (`their_base`); uv brings certificates of its own otherwise.
        trust = "" if load().site.ca_certificates is None else "ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt\n"
        folder = machine.folder / "context"
        for number in range(-1, self._rounds):
            shutil.rmtree(folder, ignore_errors=True)
            (folder / "repository").mkdir(parents=True)
            (folder / "repository" / "README.md").write_text(f"# {number}\n")
            # The packages that were downloaded are kept, and the layer of just these is not there yet.
            (folder / "requirements.txt").write_text(f"# {number}\n{lines}")
            (folder / "Dockerfile").write_text(_DOCKERFILE.format(base=base, trust=trust))
            image, sif = f"localhost/theirs/seen:{number + 1}", machine.folder / "theirs.sif"
            built = measure([*build, "--tag", image, str(folder)], machine.environment)
            if number < 0:
                continue  # that was to warm the caches
            self._add(SEEN, "docker", lock, built, None)
            command = ["apptainer", "build", "--force", str(sif), f"docker-daemon:{image}"]
            self._add(SEEN, "apptainer", lock, measure(command, machine.environment), sif)

    def unseen(self, counts: Sequence[int], compression: str) -> None:
        """So many packages that nobody has seen, to an environment; and again, now that they were seen.

        They are taken from all over a list of some hundred, so that large and small ones come alike.
        """
        whole = resolve((*SCIENCE, *MORE) if max(counts) > 300 else SCIENCE, self._scratch / "locks")
        for count in counts:
            step = len(whole.packages) / count
            packages = tuple(whole.packages[int(number * step)] for number in range(count))
            lock = replace(whole, packages=packages, layers=(tuple(package.name for package in packages),))
            for _ in range(self._rounds):
                # Both have seen nothing; the index, and what lies between it and us, has.
                self._uv(lock, keep=False)
                self._ours(lock, compression)
                self._uv(lock, keep=True)

    def _ours(self, lock: Lock, compression: str) -> None:
        with tempfile.TemporaryDirectory(dir=self._scratch) as name:
            folder = Path(name)
            (folder / "lock.json").write_bytes(dump({"locks": (lock,)}))
            said = folder / "said.json"
            command = [sys.executable, "-m", "benchmarks.assemble.squashing", str(folder / "lock.json")]
            command += [str(folder / "env"), name, compression]
            for part in (UNSEEN, SEEN):
                cost = measure(["sh", "-c", 'out=$1; shift; exec "$@" >"$out"', "sh", str(said), *command])
                told = json.loads(said.read_text())
                with Image.open(folder / "merged.squashfs") as image:
                    files = sum(1 for _, node in image.walk() if node.kind == "file")
                figure = self._figure(part, "merge" if part == SEEN else "hpcbinder", lock, cost, told["size"])
                self._take(replace(figure, files=files, merge=told["merge"], own=told["own"]))

    def _uv(self, lock: Lock, *, keep: bool) -> None:
        with tempfile.TemporaryDirectory(dir=self._scratch) as name:
            folder, site = Path(name), load().site
            environment = {
                "PATH": os.environ["PATH"],
                "HOME": name,
                "UV_CACHE_DIR": f"{name}/cache",
                "LC_ALL": "C.UTF-8",
            }
            environment |= {"PYC_INVALIDATION_MODE": "UNCHECKED_HASH", "UV_NO_CONFIG": "1"}
            if site.ca_certificates:
                environment["SSL_CERT_FILE"] = str(site.ca_certificates)
            (folder / "requirements.txt").write_text(requirements(lock))
            program = uv.find_uv_bin()
            start = [program, "venv", "--quiet", "--no-project", "--python", sys.executable, str(folder / "env")]
            subprocess.run(start, env=environment, check=True)
            options = ["--quiet", "--no-deps", "--only-binary=:all:", "--compile-bytecode"]
            index = ["--default-index", site.pip_index_url] if site.pip_index_url else []
            into = ["--python", str(folder / "env/bin/python"), "-r", str(folder / "requirements.txt")]
            cost = measure([program, "pip", "install", *options, *index, *into], environment)
            if keep:
                self._take(self._figure(UNSEEN, "uv", lock, cost, 0))

    def _add(self, part: str, tool: str, lock: Lock, cost: Cost, path: Path | None) -> None:
        self._take(self._figure(part, tool, lock, cost, path.stat().st_size if path is not None else 0))

    def _figure(self, part: str, tool: str, lock: Lock, cost: Cost, size: int) -> Figure:
        cpu = cost.cpu + (cost.daemon_cpu if tool in ("docker", "apptainer") else 0.0)
        return Figure(part, tool, len(lock.packages), 0, size, cost.wall, cpu, cost.peak, 0.0, 0, cost.load)

    def _take(self, figure: Figure) -> None:
        self._results.figures.append(figure)
        what = f"{figure.part:>7} {figure.tool:>10}, {figure.packages} packages"
        print(f"{what}: {figure.wall:.2f} s, CPU {figure.cpu:.1f} s, {figure.peak / 1e6:.0f} MB", flush=True)


def _repository(folder: Path, name: str, lines: str) -> Repository:
    made = Repository(folder, name)
    made.commit(lines.splitlines())
    return made


def _newest(folder: Path, suffix: str) -> Path:
    return max(folder.rglob(f"*{suffix}"), key=lambda path: path.stat().st_mtime)
