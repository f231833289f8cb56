"""An image small enough to make in seconds, without an engine: this machine's Python and shell, ipykernel, and the
places of the image contract that a runtime and a kernel need. Not reproducible and not complete; only for tests of how
images are run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from hpcbinder import contract
from hpcbinder.model import BaseRef, Entry, ImageConfig
from hpcbinder.register import image_kernels
from hpcbinder.squashfs import Image
from rig import Rig, packages
from rig.process import locked

PATH = f"{contract.ENV_PREFIX}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENV = {"PATH": PATH, "IMAGE_ID": "small", "GREETING": 'it\'s a "test" $HOME'}
TOOLS = (
    *("basename", "cat", "chmod", "cp", "dirname", "env", "find", "grep", "id", "ls", "mkdir", "mv", "nohup"),
    *("pwd", "rm", "setsid", "sh", "sleep", "touch", "true", "uname"),
)
PYTHON = Path("/usr/bin/python3").resolve().name.removeprefix("python")
STDLIB = Path(f"/usr/lib/python{PYTHON}")
"""Of the system's Python: the one that runs the tests may be another."""

_ENTRYPOINT = '#!/bin/sh\nENTERED=yes\nexport ENTERED\nexec "$@"\n'
_LAB = '#!/bin/sh\npwd\nfor word; do echo "$word"; done\n'
_GERMAN = {
    "argv": ["/bin/sh", "{resource_dir}/speak.sh"],
    "display_name": 'Deutsch "quoted"\n\x1b[31m',
    "language": "de",
}


@pytest.fixture(scope="session")
def small_image(rig: Rig) -> Entry:
    """The image's catalog entry, in formats `squashfs` (bare, which Apptainer takes too)."""
    packages.ensure(("python3", "squashfs-tools"))
    folder = rig.folder / "small-image"
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    squashfs = folder / f"python{PYTHON}.squashfs"
    recipe = folder / f"python{PYTHON}.recipe"
    with locked(folder / "lock"):
        if not squashfs.exists() or not recipe.exists() or recipe.read_bytes() != Path(__file__).read_bytes():
            make(folder / f"root-{os.getpid()}", squashfs)
            recipe.write_bytes(Path(__file__).read_bytes())
    return entry_of(squashfs)


def entry_of(squashfs: Path) -> Entry:
    with Image.open(squashfs) as image:
        kernels = image_kernels(image, ENV)
    config = ImageConfig("sha256:0", "amd64", "", ENV, (contract.ENTRYPOINT,), (), "/srv/repo", {}, (), ())
    return Entry(
        id="small-0123456789ab",
        source="https://example.org/small",
        ref="HEAD",
        commit="8c1f0a2" + "0" * 33,
        uncommitted=False,
        subdir="",
        buildpacks=(),
        base=BaseRef("debian:bookworm", "bookworm", "3.11", "amd64", "1"),
        image={"name": "hpcbinder/small:0123456789ab", "digest": "sha256:0"},
        config=config,
        formats={"squashfs": str(squashfs)},
        kernels=kernels,
        packages={},
        decisions=(),
        timings={},
        size=squashfs.stat().st_size,
        created=0,
    )


def make(
    root: Path,
    squashfs: Path,
    packages: Sequence[str] = ("ipykernel",),
    repository: Mapping[str, bytes] | None = None,
    tools: Sequence[str] = TOOLS,
) -> None:
    """Write the image to `squashfs`; `root` is scratch, `repository` holds more files of the repository's."""
    try:
        _system(root, tools)
        _environment(root, packages)
        _contract(root)
        for path, content in (repository or {}).items():
            file = root / contract.REPO_DIR.lstrip("/") / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        _libraries(root)
        partial = squashfs.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        options = ["-all-root", "-no-xattrs", "-noappend", "-quiet", "-no-progress", "-Xcompression-level", "1"]
        subprocess.run(["mksquashfs", root, partial, *options], check=True, stdout=subprocess.DEVNULL)
        partial.replace(squashfs)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _system(root: Path, tools: Sequence[str]) -> None:
    for name in (
        "dev",
        "proc",
        "sys",
        "tmp",
        "home",
        "root",
        "run",
        "etc",
        "var/tmp",
        "usr/bin",
        "usr/lib",
        "usr/lib64",
    ):
        (root / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    for name in ("hosts", "resolv.conf", "passwd", "group", "nsswitch.conf"):
        (root / "etc" / name).write_text("")
    for number in range(4):
        (root / "mnt" / str(number)).mkdir(parents=True)
    for tool in tools:
        shutil.copy(Path(shutil.which(tool, path="/usr/bin:/bin") or tool).resolve(), root / "usr/bin" / tool)
    shutil.copy(Path(f"/usr/bin/python{PYTHON}"), root / f"usr/bin/python{PYTHON}")
    (root / "usr/bin/python3").symlink_to(f"python{PYTHON}")
    unused = shutil.ignore_patterns(
        "test", "idlelib", "tkinter", "lib2to3", "ensurepip", "__pycache__", "config-*", "dist-*"
    )
    shutil.copytree(STDLIB, root / STDLIB.relative_to("/"), symlinks=False, ignore=unused)


def _environment(root: Path, packages: Sequence[str]) -> None:
    environment = root / contract.ENV_PREFIX.lstrip("/")
    uv = [str(Path(sys.executable).with_name("uv")), "--no-config", "--quiet"]
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("UV_FIND", "PIP_FIND"))}
    subprocess.run([*uv, "venv", "--python", f"/usr/bin/python{PYTHON}", environment], check=True, env=clean)
    install = ["pip", "install", "--compile-bytecode", "--python", environment / "bin/python"]
    subprocess.run([*uv, *install, *packages], check=True, env=clean)
    (environment / "bin/python").unlink()
    (environment / "bin/python").symlink_to(f"/usr/bin/python{PYTHON}")


def _contract(root: Path) -> None:
    def write(path: str, text: str, mode: int = 0o644) -> None:
        file = root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def quoted(value: str) -> str:
        return '"' + re.sub(r'([\\"$`])', r"\\\1", value) + '"'

    write(contract.ENTRYPOINT, _ENTRYPOINT, 0o755)
    write(f"{contract.SERVER_PREFIX}/bin/jupyter-lab", _LAB, 0o755)
    write(f"{contract.REPO_DIR}/notebook.ipynb", "{}\n")
    write(f"{contract.REPO_DIR}/a line\nend", "x\n")
    exports = [f"export {k}={quoted(v) if k == 'PATH' else f'${{{k}:-{quoted(v)}}}'}" for k, v in ENV.items()]
    write("/.singularity.d/env/10-docker2singularity.sh", "\n".join(["#!/bin/sh", *exports, ""]), 0o755)
    write("/.singularity.d/env/90-environment.sh", "#!/bin/sh\n", 0o755)
    write("/.singularity.d/env/99-base.sh", "#!/bin/sh\n", 0o755)
    write("/.singularity.d/labels.json", json.dumps({f"{contract.LABEL_PREFIX}id": "small-0123456789ab"}))
    write("/ch/environment", "".join(f"{k}={v}\n" for k, v in ENV.items()))
    kernels = "/usr/local/share/jupyter/kernels"
    write(f"{kernels}/german/kernel.json", json.dumps(_GERMAN))
    write(f"{kernels}/python3/kernel.json", json.dumps({"argv": ["shadowed"], "display_name": "no"}))


def _libraries(root: Path) -> None:
    """The shared libraries of everything copied, at the paths this machine has them."""
    binaries = [
        p for p in root.rglob("*") if p.is_file() and not p.is_symlink() and (p.suffix == ".so" or "/bin/" in str(p))
    ]
    listed = subprocess.run(["ldd", *binaries], capture_output=True, text=True).stdout
    for library in sorted(set(re.findall(r"^\t(?:\S+ => )?(/\S+) \(", listed, re.MULTILINE))):
        # Libraries inside the environment's own packages resolve to paths below the scratch root.
        if not library.startswith(str(root)):
            target = root / "usr" / library.removeprefix("/usr").lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(Path(library).resolve(), target)
