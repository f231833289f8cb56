"""Kernels of images that are not ours: where a Jupyter in them would look, and Pythons that have ipykernel."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from hpcbinder.register import image_kernels
from hpcbinder.squashfs import Image, Options, merge, write_layer


def image_of(folder: Path, files: dict[str, str]) -> Image:
    """A squashfs with these files; `-> x` is a symbolic link to x."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for path, content in files.items():
            info = tarfile.TarInfo(path)
            if content.startswith("-> "):
                info.type, info.linkname = tarfile.SYMTYPE, content[3:]
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content.encode()))
    tar.seek(0)
    write_layer(tar, folder / "layer", Options())
    with (folder / "image").open("w+b") as out:
        merge([folder / "layer"], out)
    return Image.open(folder / "image")


def spec(name: str) -> str:
    return json.dumps({"argv": [name, "{connection_file}"], "display_name": name, "language": "python"})


@pytest.mark.parametrize(
    ("files", "env", "first"),
    [
        # The official images; jupyter/docker-stacks; a virtual environment; uv's or pyenv's link to where it really is.
        ({"usr/local/bin/python3": "", "usr/local/share/jupyter/kernels/a/kernel.json": spec("x")}, {}, "x"),
        ({"opt/conda/share/jupyter/kernels/a/kernel.json": spec("x")}, {}, "x"),
        (
            {"srv/venv/bin/python": "-> /usr/bin/python3", "srv/venv/share/jupyter/kernels/a/kernel.json": spec("x")},
            {"PATH": "/srv/venv/bin:/usr/bin"},
            None,
        ),
        (
            {
                "srv/venv/bin/python": "-> /usr/bin/python3",
                "usr/bin/python3": "",
                "srv/venv/share/jupyter/kernels/a/kernel.json": spec("x"),
                "usr/share/jupyter/kernels/a/kernel.json": spec("shadowed"),
            },
            {"PATH": "/srv/venv/bin:/usr/bin"},
            "x",
        ),
        (
            {
                "usr/local/bin/python3": "-> /opt/py/3.12/bin/python3.12",
                "opt/py/3.12/bin/python3.12": "",
                "opt/py/3.12/share/jupyter/kernels/a/kernel.json": spec("x"),
            },
            {},
            "x",
        ),
        (
            {
                "opt/tool/bin/jupyter": "",
                "opt/tool/share/jupyter/kernels/a/kernel.json": spec("x"),
                "usr/bin/python3": "",
                "usr/lib/python3/dist-packages/ipykernel/__init__.py": "",
            },
            {"PATH": "/usr/bin:/opt/tool/bin"},
            "x",
        ),
        ({"data/j/kernels/a/kernel.json": spec("x")}, {"JUPYTER_PATH": "relative:/data/j"}, "x"),
        # Somebody's home is not there when the image runs.
        ({"home/jovyan/.local/share/jupyter/kernels/a/kernel.json": spec("x")}, {"HOME": "/home/jovyan"}, None),
        # No kernelspec, but a Python that could be one.
        (
            {"usr/local/bin/python3": "", "usr/local/lib/python3.12/site-packages/ipykernel/__init__.py": ""},
            {},
            "/usr/local/bin/python3",
        ),
        (
            {"usr/bin/python3": "", "usr/local/lib/python3.11/dist-packages/ipykernel/__init__.py": ""},
            {"PATH": "/usr/bin"},
            "/usr/bin/python3",
        ),
        ({"usr/bin/python3": "", "usr/lib/python3.11/ipykernel/__init__.py": ""}, {"PATH": "/usr/bin"}, None),
        # A link that goes in circles, a PATH that is no path.
        ({"usr/bin/python": "-> python3", "usr/bin/python3": "-> python"}, {"PATH": "::bin:/usr/bin"}, None),
        ({"a": ""}, {"PATH": ":".join(f"/p{number}" for number in range(10_000))}, None),
    ],
)
def test_where_kernels_are_found(tmp_path: Path, files: dict[str, str], env: dict[str, str], first: str | None) -> None:
    with image_of(tmp_path, files) as image:
        kernels = image_kernels(image, env, foreign=True)
    assert [kernel.argv[0] for kernel in kernels][:1] == ([first] if first else [])


def test_an_image_of_ours_says_all_by_its_places(tmp_path: Path) -> None:
    files = {"usr/local/bin/python3": "", "usr/local/lib/python3.12/site-packages/ipykernel/__init__.py": ""}
    with image_of(tmp_path, files) as image:
        assert image_kernels(image, {}) == ()
