"""The measurements, one method each. What is missing on this machine is written down and left out."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.convert.figures import GZIP, ZSTD, Figure, Results, Start
from benchmarks.convert.images import FILES, MEGABYTES, Images
from benchmarks.convert.meter import CommandError, measure
from benchmarks.convert.tools import (
    Tools,
    Unavailable,
    apptainer,
    apptainer_folders,
    hpcbinder,
    mksquashfs,
    unpack,
)
from hpcbinder.squashfs import Options

LEVELS = {name: Options(name).effective_level for name in (GZIP, ZSTD)}
"""Ours by default, and what mksquashfs is asked for."""
STARTED = "demo"
"""The image whose Python is started."""
TOPS = 5
_NAME = "localhost/hpcbinder-benchmark/{}:latest"
_PYTHON = ("/opt/env/bin/python", "-c", "import numpy")
_WARM, _COLD = 15, 5


class Measures:
    """Takes figures and puts them into `results`.

    Args:
        tools: What is compared.
        images: What is converted.
        scratch: Folder for what comes out; what `starts` needs stays in it meanwhile.
        results: Filled.
        rounds: How often everything is measured.
    """

    def __init__(self, tools: Tools, images: Images, scratch: Path, results: Results, rounds: int) -> None:
        self._tools = tools
        self._images = images
        self._scratch = scratch
        self._results = results
        self._rounds = rounds
        self._store = scratch / "store"

    @contextlib.contextmanager
    def _leaving_out(self, what: str) -> Iterator[None]:
        try:
            yield
        except (Unavailable, CommandError) as error:
            print(f"left out: {what}: {error}", flush=True)
            self._results.left_out.append(f"{what}: {str(error).strip().splitlines()[-1]}")

    def nothing_cached(self, names: Sequence[str]) -> None:
        """Images from their OCI layouts: ours, Apptainer's, and mksquashfs of the tree that umoci unpacked."""
        for name in names:
            with self._leaving_out(f"{name} from its layout"):
                layout = self._images.get(name)
                plain = self._images.uncompressed(name, self._scratch / "uncompressed")
                for folder in (layout.folder, plain.folder):
                    self._read(folder)
                for _ in range(self._rounds):
                    for compression in (GZIP, ZSTD):
                        self._ours(name, "oci", f"oci:{layout.address}", compression)
                        self._ours(name, "tar", f"oci:{plain.address}", compression)
                        self._mksquashfs(name, compression)
                    with self._leaving_out(f"{name} by Apptainer"):
                        self._apptainer(name, "oci", f"oci:{layout.folder}")
                shutil.rmtree(plain.folder)

    def from_docker(self, name: str) -> None:
        """An image from Docker's storage."""
        with self._leaving_out(f"{name} from Docker"):
            docker = self._tools.docker()
            layout, image = self._images.get(name), _NAME.format(name)
            docker.copy_in(layout, image)
            try:
                for _ in range(self._rounds):
                    self._ours(name, "docker", f"docker-daemon:{image}", GZIP, docker.environment)
                    self._apptainer(name, "docker", f"docker-daemon:{image}", docker.environment)
            finally:
                docker.remove(image)

    def from_podman(self, name: str) -> None:
        """An image from the storage of an ordinary user's podman; Apptainer gets what `podman save` writes."""
        with self._leaving_out(f"{name} from podman"):
            person = self._tools.person()
            self._tools.need("skopeo")
            image, archive = _NAME.format(name), person.home / "image.tar"
            layout = self._images.get(name)
            source = f"oci:{layout.address}"
            subprocess.run(["skopeo", "copy", "-q", source, f"docker-archive:{archive}:{image}"], check=True)
            person.give(archive)
            person.run("podman", "load", "--quiet", "--input", str(archive))
            archive.unlink()
            environment = person.environment
            store, sif = person.home / "store", person.home / "made.sif"
            try:
                for _ in range(self._rounds):
                    person.run("rm", "-rf", str(store), str(sif))
                    command = person.command(*hpcbinder(store, f"containers-storage:{image}", sif, GZIP))
                    self._take("hpcbinder", name, "podman", GZIP, "nothing", command, sif, environment)
                    person.run("rm", "-rf", str(store), str(sif))
                    self._tools.need("apptainer")
                    settings = apptainer_folders(person.home / "apptainer")
                    person.give(person.home / "apptainer")
                    words = apptainer(f"docker-archive:{archive}", sif)
                    both = f'podman save --quiet --output "$0" {image} && exec "$@"'
                    command = person.command("sh", "-c", both, str(archive), *words)
                    environment = {**environment, **settings}
                    self._take("apptainer", name, "podman", GZIP, "nothing", command, sif, environment)
                    person.run("rm", "-rf", str(archive), str(sif))
            finally:
                person.run("podman", "rmi", "--force", image)

    def new_top(self, names: Sequence[str]) -> None:
        """Images of which all layers but a small top one were converted before."""
        for name in names:
            with self._leaving_out(f"{name} with a new top layer"):
                folder = self._scratch / "tops"
                base = self._images.get(name)
                tops = [self._images.with_new_top(name, folder / str(number), number) for number in range(TOPS)]
                shutil.rmtree(self._store, ignore_errors=True)
                sif = self._scratch / "made.sif"
                measure(hpcbinder(self._store, f"oci:{base.address}", sif, GZIP))
                for top in tops:
                    sif.unlink()
                    command = hpcbinder(self._store, f"oci:{top.address}", sif, GZIP)
                    self._take("hpcbinder", name, "oci", GZIP, "all but the top", command, sif)
            shutil.rmtree(folder, ignore_errors=True)

    def growth(self, most_files: int, most_megabytes: int) -> None:
        """Ours, with ever more files, and with ever more bytes in as many files."""
        for _ in range(self._rounds):
            names = [f"files-{count}" for count in FILES if count <= most_files]
            names += [f"bytes-{size}" for size in MEGABYTES if size <= most_megabytes]
            for name in names:
                with self._leaving_out(name):
                    layout = self._images.get(name)
                    self._read(layout.folder)
                    self._ours(name, "oci", f"oci:{layout.address}", GZIP)

    def starts(self) -> None:
        """Python with numpy from SIFs of an image, as an ordinary user, in turns."""
        name = STARTED
        with self._leaving_out(f"start of Python from {name}"):
            self._tools.need("apptainer")
            person = self._tools.person()
            layout = self._images.get(name)
            sifs: dict[tuple[str, str], Path] = {}
            for compression in (GZIP, ZSTD):
                for tool in ("hpcbinder", "apptainer"):
                    sif = person.home / f"{tool}-{compression}.sif"
                    kept = self._kept(tool, name, compression)
                    if not kept.exists():
                        self._sif(tool, f"oci:{layout.folder}", compression, kept)
                    shutil.move(kept, sif)
                    person.give(sif)
                    sifs[tool, compression] = sif
            environment = {**person.environment, **apptainer_folders(person.home / "apptainer")}
            person.give(person.home / "apptainer")
            warm: dict[tuple[str, str], list[float]] = {key: [] for key in sifs}
            cold: dict[tuple[str, str], list[float]] = {key: [] for key in sifs}
            for number in range(_WARM + _COLD + 1):
                for key, sif in sifs.items():
                    dropped = number > _WARM
                    if dropped:
                        _drop(sif)
                    command = person.command("apptainer", "exec", str(sif), *_PYTHON)
                    wall = measure(command, environment, person.home).wall
                    if number:  # the first one of each warms up
                        (cold if dropped else warm)[key].append(wall)
            for (tool, compression), sif in sifs.items():
                size, key = sif.stat().st_size, (tool, compression)
                start = Start(tool, compression, size, warm[key], cold[key])
                least = f"{min(start.walls):.3f} s warm, {min(start.cold):.3f} s cold"
                print(f"start from {tool}'s {compression}: at least {least}", flush=True)
                self._results.starts.append(start)
                sif.unlink()

    def _kept(self, tool: str, name: str, compression: str) -> Path:
        """Where a SIF is kept whose start will be measured."""
        return self._scratch / f"{name}-{tool}-{compression}.sif"

    def _sif(self, tool: str, source: str, compression: str, sif: Path) -> None:
        """A SIF that is not measured; Apptainer's gzip one with its defaults."""
        if tool == "hpcbinder":
            shutil.rmtree(self._store, ignore_errors=True)
            measure(hpcbinder(self._store, source, sif, compression))
        else:
            how = None if compression == GZIP else f"-comp {compression} -Xcompression-level {LEVELS[compression]}"
            folders = apptainer_folders(self._scratch / "apptainer")
            measure(apptainer(source, sif, how), {**os.environ, **folders})

    def _ours(
        self, name: str, source: str, address: str, compression: str, more: Mapping[str, str] | None = None
    ) -> None:
        shutil.rmtree(self._store, ignore_errors=True)
        sif = self._scratch / "made.sif"
        sif.unlink(missing_ok=True)
        command = hpcbinder(self._store, address, sif, compression)
        self._take("hpcbinder", name, source, compression, "nothing", command, sif, {**os.environ, **(more or {})})
        if name == STARTED and source == "oci":
            sif.replace(self._kept("hpcbinder", name, compression))

    def _apptainer(self, name: str, source: str, address: str, more: Mapping[str, str] | None = None) -> None:
        self._tools.need("apptainer")
        sif = self._scratch / "made.sif"
        sif.unlink(missing_ok=True)
        environment = {**os.environ, **(more or {}), **apptainer_folders(self._scratch / "apptainer")}
        self._take("apptainer", name, source, GZIP, "nothing", apptainer(address, sif), sif, environment)
        if name == STARTED and source == "oci":
            sif.replace(self._kept("apptainer", name, GZIP))
        shutil.rmtree(self._scratch / "apptainer")

    def _mksquashfs(self, name: str, compression: str) -> None:
        with self._leaving_out(f"{name} by mksquashfs"):
            self._tools.need("mksquashfs", "umoci")
            bundle = self._images.cache / f"{name}.tree"
            if not (bundle / "rootfs").is_dir():
                unfinished = self._images.cache / f"{name}.tree.unfinished"
                shutil.rmtree(unfinished, ignore_errors=True)
                unpack(self._images.get(name), unfinished)
                unfinished.replace(bundle)
            target = self._scratch / "made.squashfs"
            command = mksquashfs(bundle / "rootfs", target, Options(compression))
            self._read(bundle / "rootfs")
            self._take("mksquashfs", name, "tree", compression, "nothing", command, target)

    def _take(
        self,
        tool: str,
        name: str,
        source: str,
        compression: str,
        cached: str,
        command: Sequence[str],
        target: Path,
        env: Mapping[str, str] | None = None,
    ) -> None:
        cost = measure(command, env)
        with target.open("rb") as file:
            os.fsync(file.fileno())  # what one left to be written is not written on the next one's time
        size = target.stat().st_size
        figure = Figure(
            tool, name, source, compression, cached, cost.wall, cost.cpu, cost.daemon_cpu, cost.peak, size, cost.load
        )
        self._results.figures.append(figure)
        print(
            f"{time.strftime('%H:%M:%S')} {name:>12} {source:>6} {compression} {cached}: {tool} {cost.wall:.2f} s, "
            f"cpu {cost.cpu:.2f} s + {cost.daemon_cpu:.2f} s, {cost.peak / 1e6:.0f} MB, file {size / 1e6:.1f} MB",
            flush=True,
        )

    def _read(self, folder: Path) -> None:
        """Have everything below a folder in the page cache."""
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                with path.open("rb") as file:
                    while file.read(1 << 20):
                        pass


def _drop(path: Path) -> None:
    """Have the kernel forget a file's pages (posix_fadvise(2))."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
