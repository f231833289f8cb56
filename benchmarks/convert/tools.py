"""The programs that are compared, found on this machine, and how each is asked for the same thing."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.convert.layouts import Layout
from hpcbinder.squashfs import Options
from tests.rig import Builder, Rig, RigError

ROOT = Path(__file__).parent.parent.parent


class Unavailable(Exception):
    """Something that is needed for a figure is not on this machine; the text says what."""


@dataclass(frozen=True)
class Docker:
    """A Docker daemon.

    Attributes:
        host: As in DOCKER_HOST.
    """

    host: str

    @property
    def environment(self) -> dict[str, str]:
        return {"DOCKER_HOST": self.host}

    def copy_out(self, name: str, layout: Layout) -> None:
        """Make an OCI layout of an image."""
        _quiet("skopeo", "copy", "--src-daemon-host", self.host, f"docker-daemon:{name}", f"oci:{layout.address}")

    def copy_in(self, layout: Layout, name: str) -> None:
        """Load an image."""
        _quiet("skopeo", "copy", "--dest-daemon-host", self.host, f"oci:{layout.address}", f"docker-daemon:{name}")

    def remove(self, name: str) -> None:
        """Take a name away."""
        _quiet("docker", "--host", self.host, "rmi", name)


@dataclass(frozen=True)
class Person:
    """An ordinary user with podman: whoever runs this, or, for root, the user of the tests' rig.

    Attributes:
        home: A folder of theirs.
        builder: The rig's user, None for oneself.
    """

    home: Path
    builder: Builder | None

    def command(self, *argv: str) -> list[str]:
        """The command line that runs a command as this user."""
        return list(argv) if self.builder is None else self.builder.command(argv)

    @property
    def environment(self) -> dict[str, str]:
        """To run it in, with the programs of this process's PATH to be found."""
        mine = dict(os.environ) if self.builder is None else self.builder.environment()
        return {**mine, "PATH": os.environ["PATH"]}

    def run(self, *argv: str) -> str:
        """Run a command as this user; its output."""
        return _quiet(*self.command(*argv), env=self.environment, cwd=self.home)

    def give(self, path: Path) -> None:
        """Make a file or folder theirs."""
        if self.builder is not None:
            self.builder.own(path)


class Tools:
    """What this machine has. What is missing is looked for when it is needed, and said then.

    Args:
        scratch: For the tools' own temporary files and caches.
        rig: The tests' rig, which has Apptainer, a daemon and an ordinary user where the machine has not.
        stack: Gives back, at the end, what was borrowed.
    """

    def __init__(self, scratch: Path, rig: Rig, stack: contextlib.ExitStack) -> None:
        self.scratch = scratch
        self._rig = rig
        self._stack = stack
        self._docker: Docker | None = None
        self._person: Person | None = None
        if not shutil.which("apptainer"):
            with contextlib.suppress(RigError):
                stack.enter_context(rig.borrowed("apptainer"))
                os.environ["PATH"] = f"{rig.apptainer.bin}:{os.environ['PATH']}"

    def need(self, *programs: str) -> None:
        """Be sure that programs are on PATH.

        Raises:
            Unavailable: One is not.
        """
        missing = [program for program in programs if not shutil.which(program)]
        if missing:
            raise Unavailable(f"not on PATH: {', '.join(missing)}")

    def docker(self) -> Docker:
        """The daemon of DOCKER_HOST, else the rig's.

        Raises:
            Unavailable: There is none.
        """
        self.need("docker", "skopeo")
        if self._docker is None:
            host = os.environ.get("DOCKER_HOST")
            if host is None:
                try:
                    self._stack.enter_context(self._rig.borrowed("dockerd"))
                except RigError as error:
                    raise Unavailable(f"no Docker daemon: {error}") from error
                host = self._rig.dockerd.host
            self._docker = Docker(host)
        return self._docker

    def person(self) -> Person:
        """An ordinary user with podman.

        Raises:
            Unavailable: There is none.
        """
        self.need("podman")
        if self._person is None and os.geteuid() != 0:
            self._person = Person(self.scratch, None)
        if self._person is None:
            try:
                builder = self._rig.builder
            except RigError as error:
                raise Unavailable(f"no ordinary user: {error}") from error
            self._stack.callback(self._rig.close)
            home = builder.home / "benchmark"
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir()
            builder.own(home)
            self._stack.callback(shutil.rmtree, home, ignore_errors=True)
            self._person = Person(home, builder)
        return self._person

    def versions(self) -> dict[str, str]:
        """Program -> the first line it says about its version."""
        asked = {
            **{name: ["--version"] for name in ("apptainer", "docker", "podman", "skopeo", "umoci")},
            "mksquashfs": ["-version"],
        }
        found = {}
        for name, arguments in asked.items():
            if shutil.which(name):
                done = subprocess.run([name, *arguments], capture_output=True, text=True)
                lines = (done.stdout + done.stderr).splitlines() or ["?"]
                found[name] = lines[0]
        return found


def hpcbinder(store: Path, source: str, target: Path, compression: str) -> list[str]:
    """Our command: a SIF of what `source` names."""
    command = [sys.executable, "-m", "hpcbinder", "--store", str(store), "convert", source, "--to", "sif"]
    return [*command, "--output", str(target), "--compression", compression, "--force"]


def apptainer(source: str, target: Path, mksquashfs: str | None = None) -> list[str]:
    """Apptainer's, with its defaults unless there are arguments for its mksquashfs."""
    more = [] if mksquashfs is None else ["--mksquashfs-args", mksquashfs]
    return ["apptainer", "build", "--force", *more, str(target), source]


def apptainer_folders(folder: Path) -> dict[str, str]:
    """Settings that let it keep and find nothing but in a folder, which is made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "tmp").mkdir(parents=True)
    return {"APPTAINER_CACHEDIR": str(folder / "cache"), "APPTAINER_TMPDIR": str(folder / "tmp")}


def mksquashfs(tree: Path, target: Path, options: Options) -> list[str]:
    """mksquashfs with the compressor, level and block size that we use."""
    target.unlink(missing_ok=True)
    how = ["-comp", options.compressor, "-Xcompression-level", str(options.effective_level)]
    how += ["-b", str(options.block_size), "-noappend", "-no-progress", "-quiet"]
    return ["mksquashfs", str(tree), str(target), *how]


def unpack(layout: Layout, bundle: Path) -> None:
    """umoci's `unpack`: the tree is `bundle`/rootfs."""
    rootless = [] if os.geteuid() == 0 else ["--rootless"]
    _quiet("umoci", "unpack", *rootless, "--image", layout.address, str(bundle))


def _quiet(*command: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    done = subprocess.run(command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise Unavailable(f"{_short(command)}: exit {done.returncode}: {done.stderr.strip()[-1000:]}")
    return done.stdout


def _short(command: Sequence[str]) -> str:
    return " ".join(command)[:300]
