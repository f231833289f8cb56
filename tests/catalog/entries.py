"""Entries for the tests of the catalog."""

from __future__ import annotations

from pathlib import Path

from hpcbinder.catalog import Catalog
from hpcbinder.model import BaseRef, Decision, Entry, ImageConfig, Kernel, PackRef, RegisteredKernel

KERNEL = RegisteredKernel(name="k", path="/home/ann/kernels/k", language="python", display_name="K")


def entry(id_: str = "chirp-0123456789ab", created: int = 1_700_000_000, digest: str = "sha256:" + "1" * 64) -> Entry:
    return Entry(
        id=id_,
        source="https://example.org/chirp",
        ref="main",
        commit="c" * 40,
        uncommitted=False,
        subdir="",
        buildpacks=(PackRef("python", "1", "built-in"),),
        base=BaseRef("debian:bookworm", "bookworm", "3.11", "amd64", "1"),
        image={"name": f"hpcbinder/{id_}", "digest": digest},
        config=ImageConfig(digest, "amd64", "", {"PATH": "/bin"}, ("/e",), (), "/srv/repo", {"a": "b"}, (), ("x",)),
        formats={"sif": "image.sif", "squashfs": "image.squashfs"},
        kernels=(Kernel("python3", "Python 3", "python", ("python", "-m", "x"), metadata={"debugger": True}),),
        packages={"python": ({"name": "numpy", "version": "2.0"},)},
        decisions=(Decision("requirements.txt", True, "python", "it is there"),),
        timings={"build": 1.5},
        size=3,
        created=created,
    )


def fill(folder: Path, text: str = "abc") -> Path:
    """A finished image's folder."""
    folder.mkdir(exist_ok=True)
    for name in ("image.sif", "image.squashfs"):
        (folder / name).write_text(text)
    return folder


def put(catalog: Catalog, value: Entry, text: str = "abc") -> Entry:
    """Add an entry the way the pipeline does."""
    with catalog.temporary() as scratch:
        return catalog.add(value, fill(scratch / "image", text))


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())
