"""Kernelspecs appear, stay, and vanish whole. Apptainer is an empty program here: nothing is started."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jupyter_client.kernelspec import KernelSpecManager

from hpcbinder.config import Config, KernelsConfig, RuntimeConfig
from hpcbinder.errors import RegisterError
from hpcbinder.model import BaseRef, Entry, ImageConfig, Kernel, RegisteredKernel
from hpcbinder.register import logo, register_kernels, unregister_kernels
from hpcbinder.register.kernelspec import display_name

PYTHON = Kernel(
    "python3", "Python 3 (ipykernel)", "python", ("python", "-m", "ipykernel_launcher", "-f", "{connection_file}")
)
R = Kernel("ir", "R", "r", ("R", "--args", "{connection_file}"), {"R_X": "1"}, "message", {"x": 1})


def entry(*kernels: Kernel, id: str = "ligo-0123456789ab", **changes: Any) -> Entry:
    made = Entry(
        id=id,
        source="https://example.org/ligo",
        ref="main",
        commit="8c1f0a2" + "0" * 33,
        uncommitted=False,
        subdir="",
        buildpacks=(),
        base=BaseRef("debian:bookworm", "bookworm", "3.11", "amd64", "1"),
        image={"name": "hpcbinder/ligo:0123456789ab", "digest": "sha256:0"},
        config=ImageConfig("", "amd64", "", {"PATH": "/x"}, ("/opt/hpcbinder/bin/entrypoint",), (), "/", {}, (), ()),
        formats={"squashfs": "/store/ligo/ligo.squashfs"},
        kernels=kernels or (PYTHON,),
        packages={},
        decisions=(),
        timings={},
        size=0,
        created=0,
    )
    return dataclasses.replace(made, **changes)


@pytest.fixture(autouse=True)
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "programs"
    folder.mkdir()
    (folder / "apptainer").write_text("#!/bin/sh\nexit 1\n")
    (folder / "apptainer").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    return folder


CONFIG = Config(runtime=RuntimeConfig(name="apptainer"))


def files_below(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def test_jupyter_finds_the_kernel(tmp_path: Path) -> None:
    (kernel,) = register_kernels(entry(), config=CONFIG)
    assert kernel == RegisteredKernel(
        name="hpcbinder-ligo-0123456789ab",
        path=str(tmp_path / "data/kernels/hpcbinder-ligo-0123456789ab"),
        language="python",
        display_name="ligo (8c1f0a2): Python 3",
    )
    spec = KernelSpecManager(kernel_dirs=[str(tmp_path / "data/kernels")]).get_kernel_spec(kernel.name)
    assert spec.display_name == kernel.display_name
    assert spec.argv[1:] == ["-I", "-S", f"{kernel.path}/launch.py", "{connection_file}"]
    assert Path(spec.argv[0]).is_absolute()
    assert spec.metadata["hpcbinder"]["commit"] == entry().commit
    assert {p.name for p in Path(kernel.path).glob("logo-*")} == {"logo-32x32.png", "logo-64x64.png", "logo-svg.svg"}


def test_the_launcher_is_complete_without_hpcbinder(tmp_path: Path) -> None:
    (kernel,) = register_kernels(entry(), config=CONFIG)
    code = "import sys; sys.path[:0] = sys.argv[1:]; import hpcbinder_launch.main as m; print(m.__file__, *sys.modules)"
    argv = [sys.executable, "-I", "-S", "-c", code, kernel.path]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(kernel.path)
    assert "hpcbinder" not in done.stdout.split()


def test_launch_json_says_what_is_run(tmp_path: Path) -> None:
    _, kernel = register_kernels(entry(PYTHON, R), config=CONFIG)
    described = json.loads((Path(kernel.path) / "launch.json").read_text())
    assert described["argv"] == ["R", "--args", "{connection_file}"]
    assert described["env"] == {"R_X": "1"}
    assert described["image"]["location"] == "/store/ligo/ligo.squashfs"
    assert described["runtime"] == "apptainer"
    spec = json.loads((Path(kernel.path) / "kernel.json").read_text())
    assert spec["interrupt_mode"] == "message"
    assert spec["metadata"]["x"] == 1


def test_several_kernels_have_a_name_each(tmp_path: Path) -> None:
    names = [kernel.name for kernel in register_kernels(entry(PYTHON, R), config=CONFIG, name="mine", prefix=tmp_path)]
    assert names == ["mine-python3", "mine-ir"]
    assert (tmp_path / "share/jupyter/kernels/mine-ir/kernel.json").exists()


def test_the_configured_prefix(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, kernels=KernelsConfig(prefix=tmp_path / "site"))
    (kernel,) = register_kernels(entry(), config=config)
    assert kernel.path.startswith(str(tmp_path / "site/share/jupyter/kernels/"))


def test_doing_it_again_changes_nothing(tmp_path: Path) -> None:
    register_kernels(entry(), config=CONFIG)
    before = files_below(tmp_path / "data")
    register_kernels(entry(), config=CONFIG)
    assert files_below(tmp_path / "data") == before


def test_a_changed_setting_replaces_the_kernelspec_whole(tmp_path: Path) -> None:
    (kernel,) = register_kernels(entry(), config=CONFIG)
    (Path(kernel.path) / "stale").touch()
    register_kernels(entry(), config=Config(runtime=RuntimeConfig(name="apptainer", gpu="none")))
    assert json.loads((Path(kernel.path) / "launch.json").read_text())["gpu"] == "none"
    assert not (Path(kernel.path) / "stale").exists()
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["kernels"]


def test_a_name_follows_a_newer_image(tmp_path: Path) -> None:
    register_kernels(entry(), config=CONFIG, name="paper")
    newer = entry(id="ligo-ba9876543210")
    (kernel,) = register_kernels(newer, config=CONFIG, name="paper")
    assert json.loads((Path(kernel.path) / "kernel.json").read_text())["metadata"]["hpcbinder"]["id"] == newer.id
    assert not unregister_kernels(entry(), config=CONFIG)


def test_somebody_else_s_kernel_is_never_touched(tmp_path: Path) -> None:
    theirs = tmp_path / "data/kernels/theirs"
    theirs.mkdir(parents=True)
    (theirs / "kernel.json").write_text('{"argv": ["x"], "display_name": "x", "metadata": {"hpcbinder": []}}')
    before = files_below(tmp_path / "data")
    with pytest.raises(RegisterError, match="not made by hpcbinder"):
        register_kernels(entry(), config=CONFIG, name="theirs")
    record = dataclasses.replace(entry(), registered=(RegisteredKernel("theirs", str(theirs), "", ""),))
    assert not unregister_kernels(record, config=CONFIG)
    assert files_below(tmp_path / "data") == before
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["kernels"]


def test_unregistering_leaves_nothing(tmp_path: Path) -> None:
    first = register_kernels(entry(PYTHON, R), config=CONFIG)
    second = register_kernels(entry(PYTHON, R), config=CONFIG, prefix=tmp_path / "site")
    other = register_kernels(entry(id="other-0123456789ab"), config=CONFIG)
    record = dataclasses.replace(entry(PYTHON, R), registered=second)
    removed = unregister_kernels(record, config=CONFIG)
    assert {kernel.path for kernel in removed} == {kernel.path for kernel in (*first, *second)}
    assert not [p for p in (tmp_path / "site").rglob("*") if p.is_file()]
    assert [p.name for p in (tmp_path / "data/kernels").iterdir()] == [other[0].name]
    assert not unregister_kernels(record, config=CONFIG)


def test_a_link_to_a_kernel_of_ours_is_not_followed(tmp_path: Path) -> None:
    (kernel,) = register_kernels(entry(), config=CONFIG, prefix=tmp_path / "site")
    link = tmp_path / "data/kernels/link"
    link.parent.mkdir(parents=True)
    link.symlink_to(kernel.path)
    assert not unregister_kernels(entry(), config=CONFIG)
    assert Path(kernel.path).exists()
    with pytest.raises(RegisterError, match="cannot register"):
        register_kernels(entry(), config=CONFIG, name="link")
    assert link.is_symlink()


@pytest.mark.parametrize("name", ["", "-x", "../x", "a/b", "a b", "a\nb", "ä", ".x", "x" * 300, "--prefix=/"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(RegisterError, match="not a name for a kernel"):
        register_kernels(entry(), config=CONFIG, name=name)


def test_an_image_without_a_kernel() -> None:
    with pytest.raises(RegisterError, match="holds no Jupyter kernel") as raised:
        register_kernels(dataclasses.replace(entry(), kernels=()), config=CONFIG)
    assert "ipykernel" in str(raised.value)


def test_no_runtime_here(programs: Path, tmp_path: Path) -> None:
    (programs / "apptainer").unlink()
    with pytest.raises(RegisterError, match="apptainer is not installed") as raised:
        register_kernels(entry(), config=CONFIG)
    assert raised.value.exit_code == 7
    assert not (tmp_path / "data").exists()


def test_a_sif_of_another_image(programs: Path, tmp_path: Path) -> None:
    answer = {"data": {"attributes": {"labels": {"org.hpcbinder.id": "other-0123456789ab"}}}, "type": "container"}
    (programs / "apptainer").write_text(f"#!/bin/sh\nprintf '%s' '{json.dumps(answer)}'\n")
    with pytest.raises(RegisterError, match="this is the image of other-0123456789ab"):
        register_kernels(entry(), config=CONFIG)
    assert not (tmp_path / "data").exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(RegisterError, match="cannot register a kernel"):
        register_kernels(entry(), config=CONFIG)


def test_a_kernelspec_is_readable_for_others_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        (kernel,) = register_kernels(entry(), config=CONFIG)
    finally:
        os.umask(old)
    for path in [Path(kernel.path), *Path(kernel.path).rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644)


def test_what_a_killed_process_left_is_swept_in_time(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name, age in (("old", 7200), ("new", 60)):
        left = tmp_path / f"data/.hpcbinder-{name}"
        left.mkdir()
        os.utime(left, (time.time() - age,) * 2)
    register_kernels(entry(), config=CONFIG)
    assert {p.name for p in (tmp_path / "data").iterdir()} == {"kernels", ".hpcbinder-new"}


def _register(gpu: str) -> None:
    for _ in range(10):
        register_kernels(entry(), config=Config(runtime=RuntimeConfig(name="apptainer", gpu=gpu)))


def test_two_processes_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_register, args=(gpu,)) for gpu in ("none", "nvidia", "rocm")]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["kernels"]
    (folder,) = (tmp_path / "data/kernels").iterdir()
    assert json.loads((folder / "launch.json").read_text())["gpu"] in ("none", "nvidia", "rocm")


@given(st.text(), st.text(), st.text())
def test_whatever_an_image_calls_its_kernel(name: str, language: str, word: str) -> None:
    hostile = Kernel("k", name, language, (word or "x",), {}, "signal", {"hpcbinder": name})
    shown = display_name(entry(hostile), hostile)
    assert shown.startswith("ligo (8c1f0a2): ")
    assert "\n" not in shown and "\x1b" not in shown


def test_a_local_folder_says_that_it_is_one() -> None:
    assert display_name(entry(commit=None, uncommitted=True), PYTHON) == "ligo (folder): Python 3"
    assert display_name(entry(commit=None, ref="3232985"), PYTHON) == "ligo (3232985): Python 3"
    assert display_name(entry(uncommitted=True), PYTHON) == "ligo (8c1f0a2 with changes): Python 3"


@pytest.mark.parametrize("size", [32, 64])
def test_the_logo_is_a_png_of_that_size(size: int) -> None:
    image = logo.png(size)
    assert image.startswith(b"\x89PNG\r\n\x1a\n")
    assert int.from_bytes(image[16:20], "big") == int.from_bytes(image[20:24], "big") == size
    assert len(image) < 8192
    assert b"<polygon" in logo.svg()
