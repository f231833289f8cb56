"""Kernels are found by reading an image, never by running it."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcbinder.register import image_kernels
from hpcbinder.register.image_kernels import _kernel
from hpcbinder.squashfs import Image, Options, merge, write_layer

OPT = "opt/env/share/jupyter/kernels"
USR = "usr/share/jupyter/kernels"
PYTHON = {"argv": ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"], "display_name": "Python 3"}


def image_of(folder: Path, files: dict[str, bytes | str]) -> Image:
    """A squashfs with these files; a text is a symbolic link."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for path, content in files.items():
            info = tarfile.TarInfo(path)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    tar.seek(0)
    write_layer(tar, folder / "layer", Options())
    with (folder / "image").open("w+b") as out:
        merge([folder / "layer"], out)
    return Image.open(folder / "image")


def spec(**changes: Any) -> bytes:
    return json.dumps({**PYTHON, "language": "python", **changes}).encode()


def test_all_kernel_folders_are_looked_at_and_the_first_of_a_name_wins(tmp_path: Path) -> None:
    files = {
        f"{OPT}/python3/kernel.json": spec(),
        f"{USR}/python3/kernel.json": spec(display_name="shadowed"),
        f"{USR}/ir/kernel.json": spec(argv=["R", "{resource_dir}/x.R"], display_name="R", language="R"),
        f"{USR}/ir/logo.png": b"x",
    }
    with image_of(tmp_path, files) as image:
        python, r = image_kernels(image)
    assert (python.name, python.display_name, python.language) == ("python3", "Python 3", "python")
    assert python.argv[-1] == "{connection_file}"
    assert (r.name, r.language, r.argv) == ("ir", "r", ("R", "/usr/share/jupyter/kernels/ir/x.R"))


def test_what_the_kernelspec_asks_for_is_kept(tmp_path: Path) -> None:
    asked = spec(interrupt_mode="message", metadata={"debugger": True}, env={"A": "${PATH}:/x", "not a name": "x"})
    with image_of(tmp_path, {f"{OPT}/k/kernel.json": asked}) as image:
        (kernel,) = image_kernels(image, {"PATH": "/opt/env/bin"})
    assert kernel.interrupt_mode == "message"
    assert kernel.metadata == {"debugger": True}
    assert kernel.env == {"A": "/opt/env/bin:/x"}


def test_links_inside_the_image_are_followed(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {"real/k/kernel.json": spec(), f"{USR}/linked": "/real/k"}
    with image_of(tmp_path, files) as image:
        assert [kernel.name for kernel in image_kernels(image)] == ["linked"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no json",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        spec(argv=[]),
        spec(argv="python"),
        spec(argv=["a\0b"]),
        spec(argv=[1]),
        b" " * 300_000,
    ],
)
def test_what_jupyter_could_not_use_is_left_out(tmp_path: Path, content: bytes) -> None:
    with image_of(tmp_path, {f"{OPT}/good/kernel.json": spec(), f"{OPT}/k/kernel.json": content}) as image:
        assert [kernel.name for kernel in image_kernels(image)] == ["good"]


@pytest.mark.parametrize("name", ["-x y", "a\nb", "ä", "a'b", 'a"b'])
def test_names_that_jupyter_does_not_take(tmp_path: Path, name: str) -> None:
    with image_of(tmp_path, {f"{OPT}/{name}/kernel.json": spec()}) as image:
        assert not image_kernels(image)


def test_a_flood_of_kernels_ends(tmp_path: Path) -> None:
    with image_of(tmp_path, {f"{OPT}/k{number}/kernel.json": spec() for number in range(200)}) as image:
        assert len(image_kernels(image)) == 64


def test_a_hostile_display_name_is_one_safe_line(tmp_path: Path) -> None:
    name = "a\"b'\n\x1b[31mred\u202e"
    with image_of(tmp_path, {f"{OPT}/k/kernel.json": spec(display_name=name)}) as image:
        (kernel,) = image_kernels(image)
    assert kernel.display_name.isprintable()
    assert "\n" not in kernel.display_name


class Anything:
    """An image whose every kernel.json is this text."""

    def __init__(self, text: bytes) -> None:
        self.text = text

    def lookup(self, path: str, *, follow: bool = False) -> Any:
        return type("Node", (), {"kind": "file", "size": len(self.text)})

    def read(self, path: str, limit: int, *, follow: bool = False) -> bytes:
        return self.text


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
KEYS = ["argv", "display_name", "language", "env", "interrupt_mode", "metadata"]


@given(st.binary() | st.dictionaries(st.sampled_from(KEYS), json_values).map(lambda d: json.dumps(d).encode()))
def test_no_kernelspec_can_break_it(text: bytes) -> None:
    kernel = _kernel(Anything(text), "/folder", "k", {})  # type: ignore[arg-type]
    assert kernel is None or kernel.argv


@pytest.mark.parametrize(
    "metadata",
    [
        b"NaN",
        b'{"a": NaN}',
        b'{"a": [-Infinity]}',
        b'{"a": 1e999}',
        b'{"a": ' + b"[" * 400 + b"]" * 400 + b"}",
    ],
)
def test_metadata_that_no_record_could_hold_is_left_out(tmp_path: Path, metadata: bytes) -> None:
    text = spec()[:-1] + b', "metadata": ' + metadata + b"}"
    with image_of(tmp_path, {f"{OPT}/k/kernel.json": text}) as image:
        (kernel,) = image_kernels(image)
    assert kernel.metadata == {}


def test_a_kernel_cannot_choose_who_starts_it_on_the_host(tmp_path: Path) -> None:
    # jupyter_client starts a kernel through the provisioner that its kernelspec's metadata names.
    metadata = {"debugger": True, "kernel_provisioner": {"provisioner_name": "other", "config": {"x": 1}}}
    with image_of(tmp_path, {f"{OPT}/k/kernel.json": spec(metadata=metadata)}) as image:
        (kernel,) = image_kernels(image)
    assert kernel.metadata == {"debugger": True}
