"""The wheel and the editable install: complete, tidy, and useful on a machine without root or engines."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from package_index import PackageIndex

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the tracked files: what a release has, and the checkout stays clean."""
    source = tmp_path_factory.mktemp("source")
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    for name in names.stdout.decode().rstrip("\0").split("\0"):
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_symlink() or (ROOT / name).exists():
            shutil.copy2(ROOT / name, target, follow_symlinks=False)
    out = tmp_path_factory.mktemp("wheel")
    # From the source archive, as a release is made: a file that it forgets is missing here too.
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(out), str(source)], check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel; the folder of its programs."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run(["uv", "--no-config", "venv", "-q", "--python", sys.executable, str(folder)], check=True, env=uv())
    command = ["uv", "--no-config", "pip", "install", "-q", "--python", str(folder / "bin/python"), str(wheel)]
    subprocess.run(command, check=True, env=uv())
    return folder / "bin"


def uv() -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def bare(folder: Path, bin_: Path, index: PackageIndex, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run hpcbinder where nothing but git is installed, at a site with a package index."""
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    if not (tools / "git").exists():
        (tools / "git").symlink_to(shutil.which("git") or "git")
    environment = {"PATH": str(tools), "HOME": str(folder), "LANG": "C.UTF-8"}
    environment["HPCBINDER_SITE_PIP_INDEX_URL"] = index.url
    return subprocess.run([bin_ / "hpcbinder", *arguments], env=environment, cwd=folder, capture_output=True, text=True)


def test_the_wheel_holds_the_buildpacks_inside_our_namespace(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "hpcbinder/buildpacks/python/buildpack.toml" in names
    assert "hpcbinder/plan/server/requirements.lock" in names
    places = {name.partition("/")[0] for name in names if ".dist-info" not in name}
    (data,) = places - {"hpcbinder"}
    assert [name for name in names if name.startswith(data)] == [f"{data}/data/share/man/man1/hpcbinder.1"]
    assert not [name for name in names if "__pycache__" in name]


def test_the_wheel_plans_without_root_or_engines(installed: Path, tmp_path: Path, package_index: PackageIndex) -> None:
    package_index.ours()
    package_index.wheel("numpy", "2.0")
    repository = tmp_path / "repository"
    repository.mkdir()
    (repository / "requirements.txt").write_text("numpy\n")
    done = bare(tmp_path, installed, package_index, "plan", str(repository))
    assert done.returncode == 0, done.stderr
    assert "requirements.txt" in done.stdout
    assert "numpy==2.0" in done.stdout
    python = subprocess.run(
        [installed / "python", "-c", "import importlib.util as u; print(u.find_spec('buildpacks'))"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert python.stdout == "None\n"


def test_the_wheel_says_what_is_missing_to_build_and_run(
    installed: Path, tmp_path: Path, package_index: PackageIndex
) -> None:
    package_index.ours()
    repository = tmp_path / "repository"
    repository.mkdir()
    for arguments, code, word in (
        (("build", str(repository)), 5, "Docker"),
        (("build", str(repository), "--engine", "nonsense"), 2, "nonsense"),
        (("run", "nothing"), 8, "nothing"),
        (("list",), 0, ""),
    ):
        done = bare(tmp_path, installed, package_index, *arguments)
        assert done.returncode == code, done.stderr
        assert word.lower() in done.stderr.lower()
        assert "Traceback" not in done.stderr


def test_the_editable_install_of_this_checkout_finds_the_buildpacks(tmp_path: Path) -> None:
    program = "import hpcbinder.plan as p; print(sorted(pack.name for pack in p.load_packs([])))"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert "python" in done.stdout, done.stderr
