"""The images that are converted: made once, by real tools, and kept as OCI layouts in a cache folder.

| image | what |
|---|---|
| `demo` | `examples/chirp`, built by `hpcbinder build` |
| `server` | its two lowest layers: Debian, Python and JupyterLab, some 400 MB |
| `science` | on top of those the packages of `science.txt`, in four layers: more than 1 GB and 40,000 files |
| `tiny` | 40 small files, made up, for a test of this program |
| `files-N`, `bytes-N` | one layer of N small files, of N MB, made up: for the growth of time and memory |
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks.convert.layouts import Contents, Layer, Layout, new_layer, uncompressed_layer
from benchmarks.convert.synthetic import big_files, small_files
from benchmarks.convert.tools import Tools, Unavailable
from tests.rig.githttp import commit_folder

ROOT = Path(__file__).parent.parent.parent
FILES = (12_500, 25_000, 50_000, 100_000, 200_000)
"""Files of the images `files-N`."""
MEGABYTES = (50, 100, 200, 400, 800, 1600)
"""10**6 bytes of the images `bytes-N`."""
_PARTS = 4


class Images:
    """Images by name, made when they are asked for.

    Args:
        cache: Folder that keeps them between runs.
        tools: What they are made with.
    """

    def __init__(self, cache: Path, tools: Tools) -> None:
        self.cache = cache
        self._tools = tools
        self._makers: dict[str, Callable[[Path], None]] = {
            "demo": self._demo,
            "server": self._server,
            "science": self._science,
            "tiny": lambda folder: self._from_layer(folder, small_files(folder, 40)),
            **{f"files-{count}": self._small(count) for count in FILES},
            **{f"bytes-{size}": self._big(size) for size in MEGABYTES},
        }

    @property
    def names(self) -> list[str]:
        """All there can be."""
        return list(self._makers)

    def get(self, name: str) -> Layout:
        """An image's layout.

        Raises:
            Unavailable: What it is made with is not here.
        """
        folder = self.cache / name
        if not folder.exists():
            print(f"making image {name}", flush=True)
            unfinished = self.cache / f"{name}.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            self._makers[name](unfinished)
            for left in unfinished.glob("*.layer"):
                left.unlink()
            contents = vars(Layout(unfinished).contents())
            (unfinished / "contents.json").write_text(json.dumps(contents))
            unfinished.replace(folder)
        return Layout(folder)

    def contents(self, name: str) -> Contents:
        """What is in an image that was made."""
        return Contents(**json.loads((self.cache / name / "contents.json").read_text()))

    def known(self, names: Iterable[str]) -> dict[str, dict[str, int]]:
        """Name -> what is in it, of images that were made, each once."""
        return {name: vars(self.contents(name)) for name in dict.fromkeys(names)}

    def uncompressed(self, name: str, folder: Path) -> Layout:
        """The same image with its layers as tars."""
        image, base = Layout(folder), self.get(name)
        folder.mkdir(parents=True)
        layers = [uncompressed_layer(layer, folder) for layer in base.layers]
        image.create(layers, base.config.get("config"))
        for layer in layers:
            layer.blob.unlink(missing_ok=True)
        return image

    def with_new_top(self, name: str, folder: Path, number: int) -> Layout:
        """The same image with one layer more, of ten small files that no other number has."""
        image = Layout(folder)
        folder.mkdir(parents=True)
        layer = small_files(folder, 10 + number, top=f"top-{number}")
        base = self.get(name)
        image.create([*base.layers, layer], base.config.get("config"))
        return image

    def _from_layer(self, folder: Path, layer: Layer) -> None:
        Layout(folder).create([layer])

    def _small(self, count: int) -> Callable[[Path], None]:
        return lambda folder: self._from_layer(folder, small_files(folder, count))

    def _big(self, megabytes: int) -> Callable[[Path], None]:
        return lambda folder: self._from_layer(folder, big_files(folder, megabytes))

    def _demo(self, folder: Path) -> None:
        """Build it as a person would, and take it out of the daemon; the build cache keeps its layers."""
        docker = self._tools.docker()
        work = folder / "work"
        shutil.copytree(ROOT / "examples/chirp", work / "chirp")
        commit_folder(work / "chirp", work / "chirp.git", message="as it is")
        build = [sys.executable, "-m", "hpcbinder", "--store", str(work / "store"), "build", f"file://{work}/chirp.git"]
        environment = {**os.environ, **docker.environment, "CI": "1"}
        said = _output([*build, "--engine", "docker", "--format", "squashfs", "--no-register", "--json"], environment)
        name = json.loads(said)["image"]["name"]
        docker.copy_out(name, Layout(folder))
        docker.remove(name)
        shutil.rmtree(work)

    def _server(self, folder: Path) -> None:
        demo = self.get("demo")
        Layout(folder).create(demo.layers[:2], demo.config.get("config"))

    def _science(self, folder: Path) -> None:
        server = self.get("server")
        packages = folder / "packages"
        uv = [
            sys.executable,
            "-m",
            "uv",
            "pip",
            "install",
            "--quiet",
            "--no-config",
            "--no-deps",
            "--only-binary=:all:",
        ]
        requirements = Path(__file__).with_name("science.txt")
        _output([*uv, "--python-version=3.11", "--target", str(packages), "-r", str(requirements)], dict(os.environ))
        layers = [_packed(folder, packages, names) for names in _parts(packages)]
        shutil.rmtree(packages)
        Layout(folder).create([*server.layers, *layers], server.config.get("config"))


def _output(command: list[str], environment: dict[str, str]) -> str:
    for name in ("PIP_FIND_LINKS", "PIP_CONFIG_FILE"):  # this machine's, not the project's
        environment.pop(name, None)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise Unavailable(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


def _parts(folder: Path) -> list[list[str]]:
    """A folder's entries in parts of about the same number of bytes."""
    sizes = {
        entry.name: sum(path.lstat().st_size for path in [entry, *entry.rglob("*")])
        for entry in sorted(folder.iterdir())
    }
    parts: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if filled + size / 2 > sum(sizes.values()) * len(parts) / _PARTS:
            parts.append([])
        parts[-1].append(name)
        filled += size
    return parts


def _packed(folder: Path, packages: Path, names: list[str]) -> Layer:
    """A layer of entries of a folder, to be found at /opt/science."""
    with new_layer(folder) as (tar, done):
        for name in names:
            for path in sorted([packages / name, *(packages / name).rglob("*")]):
                member = tar.gettarinfo(path, f"opt/science/{path.relative_to(packages)}")
                member.uid = member.gid = 0
                member.uname = member.gname = "root"
                if member.isreg():
                    with path.open("rb") as file:
                        tar.addfile(member, file)
                else:
                    tar.addfile(member)
    return done[0]
